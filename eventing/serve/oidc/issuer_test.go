package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// issuer is an OpenID Connect provider.
type issuer struct {
	server *httptest.Server
	url    string

	mu    sync.Mutex
	keys  []jose.JSONWebKey // with their private parts
	wants string            // the required token, if any
	says  string            // its own name in the metadata, if it differs
	hold  chan struct{}     // if not nil, answers wait for it

	looks     atomic.Int64 // requests for its keys
	atOnce    atomic.Int64
	mostOnce  atomic.Int64
	otherSeen atomic.Int64 // requests with a token that must not have one
}

// newIssuer starts an issuer; configure may change the server before it starts.
func newIssuer(tb testing.TB, secure bool, keys ...jose.JSONWebKey) *issuer {
	tb.Helper()

	i := &issuer{keys: keys}
	i.server = httptest.NewUnstartedServer(http.HandlerFunc(i.serve))
	if secure {
		i.server.StartTLS()
	} else {
		i.server.Start()
	}
	i.url = i.server.URL
	tb.Cleanup(i.server.Close)
	return i
}

func (i *issuer) serve(w http.ResponseWriter, r *http.Request) {
	now := i.atOnce.Add(1)
	defer i.atOnce.Add(-1)
	for most := i.mostOnce.Load(); now > most && !i.mostOnce.CompareAndSwap(most, now); most = i.mostOnce.Load() {
	}
	i.mu.Lock()
	keys, wants, says, hold := i.keys, i.wants, i.says, i.hold
	i.mu.Unlock()
	if says == "" {
		says = i.url
	}
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	if wants != "" && r.Header.Get("Authorization") != "Bearer "+wants {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	if wants == "" && r.Header.Get("Authorization") != "" {
		i.otherSeen.Add(1)
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": says, "jwks_uri": i.url + "/keys"})
	case "/keys":
		i.looks.Add(1)
		var set jose.JSONWebKeySet
		for _, k := range keys {
			set.Keys = append(set.Keys, k.Public())
		}
		_ = json.NewEncoder(w).Encode(set)
	default:
		http.NotFound(w, r)
	}
}

// change changes the issuer's answers.
func (i *issuer) change(change func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

// caFile writes the issuer's certificate.
func (i *issuer) caFile(tb testing.TB) string {
	tb.Helper()
	return write(tb, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw})))
}

func write(tb testing.TB, text string) string {
	tb.Helper()

	file := filepath.Join(tb.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return file
}

func newKey(tb testing.TB, id string) jose.JSONWebKey {
	tb.Helper()

	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return jose.JSONWebKey{Key: private, KeyID: id, Algorithm: string(jose.ES256), Use: "sig"}
}

// claims returns the claims of a token of this issuer that is valid for an hour.
func (i *issuer) claims(now time.Time, change map[string]any) map[string]any {
	c := map[string]any{
		"iss": i.url, "aud": []string{"https://kubernetes", audience}, "sub": subject,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for name, value := range change {
		c[name] = value
	}
	return c
}

// sign returns a signed token.
func sign(tb testing.TB, k jose.JSONWebKey, claims map[string]any) string {
	tb.Helper()

	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm), Key: k}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		tb.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// unsigned returns a token with the algorithm none.
func unsigned(tb testing.TB, keyID string, claims map[string]any) string {
	tb.Helper()

	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			tb.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	return part(map[string]string{"alg": "none", "kid": keyID}) + "." + part(claims) + "."
}

// freeAddress returns an address without a listener.
func freeAddress(tb testing.TB) string {
	tb.Helper()

	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was sent
	return l.Addr().String()
}
