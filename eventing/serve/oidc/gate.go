package oidc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/tandem-fn/tandem/eventing/serve"
)

// maxToken bounds a token, in bytes. Knative's have about a thousand.
const maxToken = 16 << 10

// algorithms are those whose keys are public.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512,
	oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// Gate lets in whoever shows a token of the issuer's. It implements [serve.Gate].
// Make it with [New]. For concurrent use.
type Gate struct {
	config Config
	keys   *keys
	known  *known
}

var _ serve.Gate = (*Gate)(nil)

// New makes a Gate. It does not ask the issuer for anything. The error says all that
// is wrong with config.
func New(config Config) (*Gate, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("verify tokens: %w", err)
	}
	g := &Gate{config: config, known: newKnown()}
	g.keys = &keys{now: config.Now, fetch: config.fetch}
	return g, nil
}

// Admit implements [serve.Gate].
func (g *Gate) Admit(ctx context.Context, header http.Header) error {
	token, err := bearer(header)
	if err != nil {
		return &serve.DeniedError{Err: err}
	}
	subject, err := g.subject(ctx, token)
	if err != nil {
		return err
	}
	if !g.allowed(subject) {
		return &serve.DeniedError{Known: true, Err: fmt.Errorf("%q may not send events here", clip(subject))}
	}
	return nil
}

// subject verifies a token and says whose it is.
func (g *Gate) subject(ctx context.Context, token string) (string, error) {
	if subject, ok := g.known.find(token, g.keys.current(), g.config.Now()); ok {
		return subject, nil
	}
	said, err := peek(token)
	if err != nil {
		return "", &serve.DeniedError{Err: err}
	}
	if said.issuer != g.config.Issuer {
		// Otherwise the issuer would be asked for a key that it never had.
		return "", &serve.DeniedError{Err: fmt.Errorf("the token is from %q, want one from %q", clip(said.issuer), g.config.Issuer)}
	}
	public, generation, err := g.keys.find(ctx, said.keyID)
	if err != nil {
		return "", fmt.Errorf("verify token: %w", err)
	}
	if len(public) == 0 {
		return "", &serve.DeniedError{Err: fmt.Errorf("verify token: it is signed with key %q, which the issuer does not have", clip(said.keyID))}
	}
	verified, err := oidc.NewVerifier(g.config.Issuer, &oidc.StaticKeySet{PublicKeys: public}, &oidc.Config{
		ClientID: g.config.Audience, SupportedSigningAlgs: algorithms, Now: g.config.Now,
	}).Verify(ctx, token)
	if err != nil {
		return "", &serve.DeniedError{Err: fmt.Errorf("verify token: %w", err)}
	}
	g.known.add(token, verified.Subject, verified.Expiry, generation)
	return verified.Subject, nil
}

func (g *Gate) allowed(subject string) bool {
	if len(g.config.Subjects) == 0 {
		return true
	}
	for _, s := range g.config.Subjects {
		if prefix, ok := strings.CutSuffix(s, "*"); s == subject || ok && strings.HasPrefix(subject, prefix) {
			return true
		}
	}
	return false
}

// bearer gives the token of a request (RFC 6750, section 2.1).
func bearer(header http.Header) (string, error) {
	values := header["Authorization"]
	switch {
	case len(values) == 0:
		return "", errors.New("send a token: the header Authorization with Bearer and the token is missing")
	case len(values) > 1:
		return "", fmt.Errorf("header Authorization: it is there %d times", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	switch {
	case !strings.EqualFold(scheme, "Bearer") || token == "":
		return "", errors.New("header Authorization: want Bearer and a token")
	case len(token) > maxToken:
		return "", fmt.Errorf("header Authorization: the token has %d bytes, at most %d are taken", len(token), maxToken)
	}
	return token, nil
}

// said is what a token says of itself, before anything of it is believed.
type said struct{ keyID, issuer string }

func peek(token string) (said, error) {
	errForm := errors.New("verify token: it is no JWT: want three parts in base64 with dots between them")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return said{}, errForm
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	for i, into := range []any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(text, into) != nil {
			return said{}, errForm
		}
	}
	return said{keyID: header.KeyID, issuer: claims.Issuer}, nil
}

// clip bounds what an answer quotes of a token.
func clip(s string) string {
	const limit = 256
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
