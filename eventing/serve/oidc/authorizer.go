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

// algorithms are the accepted signature algorithms, all with public keys.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512,
	oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// Authorizer accepts requests that carry a valid token of the issuer. It implements
// [serve.Authorizer]. Create it with [New]. It is safe for concurrent use.
type Authorizer struct {
	config Config
	keys   *keySet
	tokens *tokenCache
}

var _ serve.Authorizer = (*Authorizer)(nil)

// New returns an Authorizer. It does not send a request to the issuer. The error
// reports all invalid fields of config.
func New(config Config) (*Authorizer, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("verify tokens: %w", err)
	}
	a := &Authorizer{config: config, tokens: newTokenCache()}
	a.keys = &keySet{now: config.Now, fetch: config.fetchKeys}
	return a, nil
}

// Authorize implements [serve.Authorizer].
func (a *Authorizer) Authorize(ctx context.Context, header http.Header) error {
	token, err := bearerToken(header)
	if err != nil {
		return &serve.DeniedError{Err: err}
	}
	subject, err := a.verifySubject(ctx, token)
	if err != nil {
		return err
	}
	if !a.allows(subject) {
		return &serve.DeniedError{Forbidden: true, Err: fmt.Errorf("%q is not among the accepted subjects", clip(subject))}
	}
	return nil
}

// verifySubject verifies a token and returns its subject.
func (a *Authorizer) verifySubject(ctx context.Context, token string) (string, error) {
	if subject, ok := a.tokens.subject(token, a.keys.currentGeneration(), a.config.Now()); ok {
		return subject, nil
	}
	claims, err := parseUnverified(token)
	if err != nil {
		return "", &serve.DeniedError{Err: err}
	}
	if claims.issuer != a.config.Issuer {
		// Without this check keys would be fetched for tokens of other issuers.
		return "", &serve.DeniedError{Err: fmt.Errorf("the token is of issuer %q, want %q", clip(claims.issuer), a.config.Issuer)}
	}
	public, generation, err := a.keys.findKeys(ctx, claims.keyID)
	if err != nil {
		return "", fmt.Errorf("verify token: %w", err)
	}
	if len(public) == 0 {
		return "", &serve.DeniedError{Err: fmt.Errorf("verify token: it is signed with key %q, which the issuer does not have", clip(claims.keyID))}
	}
	verified, err := oidc.NewVerifier(a.config.Issuer, &oidc.StaticKeySet{PublicKeys: public}, &oidc.Config{
		ClientID: a.config.Audience, SupportedSigningAlgs: algorithms, Now: a.config.Now,
	}).Verify(ctx, token)
	if err != nil {
		return "", &serve.DeniedError{Err: fmt.Errorf("verify token: %w", err)}
	}
	a.tokens.add(token, verified.Subject, verified.Expiry, generation)
	return verified.Subject, nil
}

func (a *Authorizer) allows(subject string) bool {
	if len(a.config.Subjects) == 0 {
		return true
	}
	for _, s := range a.config.Subjects {
		if prefix, ok := strings.CutSuffix(s, "*"); s == subject || ok && strings.HasPrefix(subject, prefix) {
			return true
		}
	}
	return false
}

// bearerToken returns the token of a request (RFC 6750, section 2.1).
func bearerToken(header http.Header) (string, error) {
	values := header["Authorization"]
	switch {
	case len(values) == 0:
		return "", errors.New("send a token: the header Authorization with Bearer and the token is missing")
	case len(values) > 1:
		return "", fmt.Errorf("header Authorization: it occurs %d times", len(values))
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	switch {
	case !strings.EqualFold(scheme, "Bearer") || token == "":
		return "", errors.New("header Authorization: want Bearer and a token")
	case len(token) > maxToken:
		return "", fmt.Errorf("header Authorization: the token has %d bytes, want at most %d", len(token), maxToken)
	}
	return token, nil
}

// unverified are claims of a token that has not been verified.
type unverified struct{ keyID, issuer string }

func parseUnverified(token string) (unverified, error) {
	errForm := errors.New("verify token: it is not a JWT: want three parts in base64 with dots between them")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return unverified{}, errForm
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
			return unverified{}, errForm
		}
	}
	return unverified{keyID: header.KeyID, issuer: claims.Issuer}, nil
}

// clip bounds text of a token that an answer quotes.
func clip(s string) string {
	const limit = 256
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
