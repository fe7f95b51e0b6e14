package oidc_test

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/eventing/serve/oidc"
)

const (
	audience = "serving.knative.dev/service/tandem/flights"
	subject  = "system:serviceaccount:tandem:source"
)

// clock is a clock that tests advance.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

func newAuthorizer(tb testing.TB, config oidc.Config) *oidc.Authorizer {
	tb.Helper()

	if config.Audience == "" {
		config.Audience = audience
	}
	g, err := oidc.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

// admit presents a token and returns the status of the answer; 0 for none.
func admit(ctx context.Context, g *oidc.Authorizer, token string) (status int, err error) {
	err = g.Authorize(ctx, http.Header{"Authorization": {"Bearer " + token}})
	var denied *serve.DeniedError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &denied):
		return http.StatusServiceUnavailable, err
	case denied.Forbidden:
		return http.StatusForbidden, err
	}
	return http.StatusUnauthorized, err
}

func wants(tb testing.TB, g *oidc.Authorizer, token string, status int, says string) {
	tb.Helper()

	got, err := admit(tb.Context(), g, token)
	switch {
	case got != status:
		tb.Errorf("answer is %d, error %v, want %d", got, err, status)
	case err != nil && !strings.Contains(err.Error(), says):
		tb.Errorf("error is %q, want it to say %q", err, says)
	}
}

func TestOnlyWhoHasAGoodTokenIsLetIn(t *testing.T) {
	t.Parallel()

	good, other := newKey(t, "k1"), newKey(t, "k1")
	i := newIssuer(t, false, newKey(t, "k0"), good)
	nameless := newKey(t, "")
	i.keys = append(i.keys, nameless)
	g := newAuthorizer(t, oidc.Config{Issuer: i.url, Subjects: []string{"system:serviceaccount:tandem:other", subject, "system:serviceaccount:teams:*"}})
	now := time.Now()
	public := good.Key.(*ecdsa.PrivateKey).X.Bytes()
	secret := jose.JSONWebKey{Key: append(public, public...), KeyID: "k1", Algorithm: string(jose.HS256)}
	tests := []struct {
		name, token string
		status      int
		says        string
	}{
		{"good", sign(t, good, i.claims(now, nil)), 0, ""},
		{"without a key's name", sign(t, nameless, i.claims(now, nil)), 0, ""},
		{"audience alone", sign(t, good, i.claims(now, map[string]any{"aud": audience})), 0, ""},
		{"subject by its beginning", sign(t, good, i.claims(now, map[string]any{"sub": "system:serviceaccount:teams:a"})), 0, ""},
		{"other subject", sign(t, good, i.claims(now, map[string]any{"sub": "system:serviceaccount:tandem:sourcerer"})), 403, `"system:serviceaccount:tandem:sourcerer" is not among`},
		{"no subject", sign(t, good, i.claims(now, map[string]any{"sub": ""})), 403, "is not among the accepted subjects"},
		{"wrong audience", sign(t, good, i.claims(now, map[string]any{"aud": "https://kubernetes"})), 401, "audience"},
		{"no audience", sign(t, good, i.claims(now, map[string]any{"aud": nil})), 401, "audience"},
		{"expired", sign(t, good, i.claims(now.Add(-2*time.Hour), nil)), 401, "expired"},
		{"does not expire", sign(t, good, i.claims(now, map[string]any{"exp": nil})), 401, "verify token"},
		{"not good yet", sign(t, good, i.claims(now.Add(time.Hour), nil)), 401, "before the nbf"},
		{"other issuer", sign(t, good, i.claims(now, map[string]any{"iss": "https://elsewhere.example.com"})), 401, `the token is of issuer "https://elsewhere.example.com"`},
		{"other key of that name", sign(t, other, i.claims(now, nil)), 401, "verify"},
		{"algorithm none", unsigned(t, "k1", i.claims(now, nil)), 401, "none"},
		{"secret key", sign(t, secret, i.claims(now, nil)), 401, "HS256"},
		{"changed afterwards", swapClaims(t, sign(t, good, i.claims(now, nil)), sign(t, other, i.claims(now, map[string]any{"sub": "system:serviceaccount:teams:a"}))), 401, "verify"},
		{"no JWT", "abc", 401, "it is not a JWT"},
		{"parts that are no JSON", "YQ.YQ.YQ", 401, "it is not a JWT"},
		{"too long", strings.Repeat("a", 20_000), 401, "want at most 16384"},
		{"none", "", 401, "want Bearer and a token"},
	}
	for range 2 { // the second time, valid tokens are in the cache
		for _, tt := range tests {
			status, err := admit(t.Context(), g, tt.token)
			if status != tt.status || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: answer is %d, error %v, want %d with %q", tt.name, status, err, tt.status, tt.says)
			}
		}
	}
	if looks := i.looks.Load(); looks != 1 {
		t.Errorf("the issuer was asked %d times, want once", looks)
	}
	if i.otherSeen.Load() != 0 {
		t.Error("the issuer was shown a token that is not for it")
	}
}

// swapClaims returns a token with the claims of another one.
func swapClaims(tb testing.TB, token, other string) string {
	tb.Helper()

	a, b := strings.Split(token, "."), strings.Split(other, ".")
	return a[0] + "." + b[1] + "." + a[2]
}

func TestTokenIsReadFromTheHeaderAsTheStandardSays(t *testing.T) {
	t.Parallel()

	k := newKey(t, "k1")
	i := newIssuer(t, false, k)
	g := newAuthorizer(t, oidc.Config{Issuer: i.url})
	token := sign(t, k, i.claims(time.Now(), nil))
	for _, tt := range []struct {
		values []string
		says   string
	}{
		{[]string{"Bearer " + token}, ""},
		{[]string{"bearer  " + token}, ""},
		{nil, "is missing"},
		{[]string{"Basic " + token}, "want Bearer"},
		{[]string{token}, "want Bearer"},
		{[]string{"Bearer " + token, "Bearer " + token}, "it occurs 2 times"},
	} {
		err := g.Authorize(t.Context(), http.Header{"Authorization": tt.values})
		var denied *serve.DeniedError
		switch {
		case tt.says == "" && err != nil:
			t.Errorf("%.20q: %v", tt.values, err)
		case tt.says != "" && (!errors.As(err, &denied) || denied.Forbidden || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%.20q: error is %v, want a denial that says %q", tt.values, err, tt.says)
		}
	}
}

func TestIssuerThatIsDownTurnsNobodyAwayAndIsAskedAgain(t *testing.T) {
	t.Parallel()

	address := freeAddress(t)
	k := newKey(t, "k1")
	i := &issuer{keys: []jose.JSONWebKey{k}, url: "http://" + address}
	c := &clock{}
	g := newAuthorizer(t, oidc.Config{Issuer: i.url, Now: c.now})
	token := sign(t, k, i.claims(c.now(), nil))
	wants(t, g, token, 503, "connection refused")
	wants(t, g, token, 503, "connection refused") // without a request to the issuer

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	i.server = httptest.NewUnstartedServer(http.HandlerFunc(i.serve))
	i.server.Listener = listener
	i.server.Start()
	c.forward(2 * time.Second)
	wants(t, g, token, 0, "")

	// The fetched keys are used when the issuer is unavailable again.
	i.server.Close()
	c.forward(30 * time.Minute)
	for n := range 3 {
		wants(t, g, sign(t, k, i.claims(c.now(), map[string]any{"jti": n})), 0, "")
		c.forward(time.Minute)
	}
	wants(t, g, sign(t, newKey(t, "k2"), i.claims(c.now(), nil)), 503, "connection refused")
}

func TestIssuerThatHangsIsWaitedForByAllAtOnceAndNotForLong(t *testing.T) {
	t.Parallel()

	k := newKey(t, "k1")
	i := newIssuer(t, false, k)
	hold := make(chan struct{})
	i.hold = hold
	g := newAuthorizer(t, oidc.Config{Issuer: i.url})
	token := sign(t, k, i.claims(time.Now(), nil))

	// A caller that gives up receives no answer, and keeps no other from receiving one.
	gone, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if status, err := admit(gone, g, token); status != 503 {
		t.Errorf("answer is %d, error %v, want 503", status, err)
	}
	var senders sync.WaitGroup
	for range 50 {
		senders.Go(func() {
			// The issuer answers when all wait, or never: then the wait times out.
			if status, err := admit(t.Context(), g, token); status != 503 || !strings.Contains(err.Error(), "deadline exceeded") {
				t.Errorf("answer is %d, error %v, want 503 after the deadline", status, err)
			}
		})
	}
	senders.Wait()
	if i.mostOnce.Load() != 1 {
		t.Errorf("the issuer was asked %d times at once", i.mostOnce.Load())
	}

	close(hold)
	eventtest.Eventually(t, "the token is accepted", func() bool {
		status, _ := admit(t.Context(), g, token)
		return status == 0
	})
	if looks := i.looks.Load(); looks != 1 {
		t.Errorf("keys were fetched %d times, want once", looks)
	}
}

func TestKeysMayBeChanged(t *testing.T) {
	t.Parallel()

	first, second, third := newKey(t, "k1"), newKey(t, "k2"), newKey(t, "k3")
	i := newIssuer(t, false, first)
	c := &clock{}
	g := newAuthorizer(t, oidc.Config{Issuer: i.url, Now: c.now})
	old := sign(t, first, i.claims(c.now(), nil))
	wants(t, g, old, 0, "")

	// The first token with a new key triggers a fetch, and is valid.
	c.forward(time.Minute)
	i.change(func(i *issuer) { i.keys = []jose.JSONWebKey{first, second} })
	wants(t, g, sign(t, second, i.claims(c.now(), nil)), 0, "")
	wants(t, g, old, 0, "")

	// Another one shortly afterwards is answered with 503: its key is not known yet.
	i.change(func(i *issuer) { i.keys = []jose.JSONWebKey{second, third} })
	fresh := sign(t, third, i.claims(c.now(), nil))
	for range 20 {
		wants(t, g, fresh, 503, "the key is unknown, and keys are fetched again in 10s")
	}
	if looks := i.looks.Load(); looks != 2 {
		t.Errorf("the issuer was asked %d times, want twice", looks)
	}
	c.forward(11 * time.Second)
	wants(t, g, fresh, 0, "")

	// A withdrawn key is not accepted any more, even for a token in the cache.
	c.forward(11 * time.Second)
	wants(t, g, old, 401, `signed with key "k1", which the issuer does not have`)
	// A key that the issuer never had is fetched once.
	c.forward(time.Minute)
	looks := i.looks.Load()
	stranger := sign(t, newKey(t, "k9"), i.claims(c.now(), nil))
	wants(t, g, stranger, 401, "which the issuer does not have")
	wants(t, g, stranger, 503, "are fetched again")
	if got := i.looks.Load() - looks; got != 1 {
		t.Errorf("the issuer was asked %d times, want once", got)
	}
}

func TestWithdrawnKeyIsNoticedThoughOnlyKnownTokensCome(t *testing.T) {
	t.Parallel()

	first, second := newKey(t, "k1"), newKey(t, "k2")
	i := newIssuer(t, false, first)
	c := &clock{}
	g := newAuthorizer(t, oidc.Config{Issuer: i.url, Now: c.now})
	token := sign(t, first, i.claims(c.now(), nil))
	wants(t, g, token, 0, "")
	i.change(func(i *issuer) { i.keys = []jose.JSONWebKey{second} })
	c.forward(11 * time.Minute)
	eventtest.Eventually(t, "the key is not known any more, and the issuer was asked just now", func() bool {
		status, err := admit(t.Context(), g, token)
		if status != 0 && status != 503 {
			t.Fatalf("answer is %d, error %v", status, err)
		}
		return status == 503
	})
	c.forward(time.Minute)
	wants(t, g, token, 401, "which the issuer does not have")
}

func TestIssuerIsKnownByItsCertificateAndMayWantAToken(t *testing.T) {
	t.Parallel()

	k := newKey(t, "k1")
	i := newIssuer(t, true, k)
	i.server.Config.ErrorLog = nil
	c := &clock{}
	token := sign(t, k, i.claims(c.now(), nil))
	ca := i.caFile(t)

	wants(t, newAuthorizer(t, oidc.Config{Issuer: i.url}), token, 503, "certificate")
	wants(t, newAuthorizer(t, oidc.Config{Issuer: i.url, CAFile: ca}), token, 0, "")

	// Like the API server, which wants a token both for its configuration and for its
	// keys.
	i.change(func(i *issuer) { i.wants = "first" })
	wants(t, newAuthorizer(t, oidc.Config{Issuer: i.url, CAFile: ca}), token, 503, "401 Unauthorized")
	tokenFile := write(t, "first\n")
	g := newAuthorizer(t, oidc.Config{Issuer: i.url, CAFile: ca, TokenFile: tokenFile, Now: c.now})
	wants(t, g, token, 0, "")

	// Kubernetes replaces the token in the file from time to time.
	i.change(func(i *issuer) { i.wants, i.keys = "second", append(i.keys, newKey(t, "k2")) })
	if err := os.WriteFile(tokenFile, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.forward(time.Minute)
	wants(t, g, sign(t, i.keys[1], i.claims(c.now(), nil)), 0, "")
}

func TestTokenForTheIssuerIsShownToNobodyElse(t *testing.T) {
	t.Parallel()

	var seen atomic.Int64
	thief := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			seen.Add(1)
		}
	}))
	defer thief.Close()
	redirects := httptest.NewTLSServer(http.RedirectHandler(thief.URL, http.StatusFound))
	defer redirects.Close()
	i := issuer{server: redirects, url: redirects.URL}
	g := newAuthorizer(t, oidc.Config{Issuer: redirects.URL, CAFile: i.caFile(t), TokenFile: write(t, "secret")})
	wants(t, g, sign(t, newKey(t, "k1"), i.claims(time.Now(), nil)), 503, "302 Found")
	if seen.Load() != 0 {
		t.Error("the token was sent to another server")
	}
}

func TestAnswersOfTheIssuerThatCannotBeUsedAreSaid(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, path, answer, says string }{
		{"other issuer", "/.well-known/openid-configuration", `{"issuer":"https://other","jwks_uri":"SELF/keys"}`, "did not match the issuer URL"},
		{"no JSON", "/.well-known/openid-configuration", `<html>`, "decode"},
		{"endless", "/.well-known/openid-configuration", strings.Repeat(" ", 2<<20), "too large"},
		{"keys nowhere", "/.well-known/openid-configuration", `{"issuer":"SELF"}`, `the address of its keys is ""`},
		{"keys in a file", "/.well-known/openid-configuration", `{"issuer":"SELF","jwks_uri":"file:///etc/passwd"}`, "want https"},
		{"no keys", "/keys", `{"keys":[]}`, "0 are usable"},
		{"only keys of other kinds", "/keys", `{"keys":[{"kty":"oct","k":"AAAA","kid":"k1"},{"kty":"new"}]}`, "0 are usable"},
		{"endless keys", "/keys", strings.Repeat(" ", 2<<20), "too large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var self string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer := `{"issuer":"SELF","jwks_uri":"SELF/keys"}`
				if r.URL.Path == tt.path {
					answer = tt.answer
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(strings.ReplaceAll(answer, "SELF", self)))
			}))
			defer server.Close()
			self = server.URL
			i := issuer{url: self}
			wants(t, newAuthorizer(t, oidc.Config{Issuer: self}), sign(t, newKey(t, "k1"), i.claims(time.Now(), nil)), 503, tt.says)
		})
	}
}

func TestNewRefusesWhatCannotBeMeant(t *testing.T) {
	t.Parallel()

	good := oidc.Config{Issuer: "https://issuer.example.com", Audience: "a"}
	for _, tt := range []struct {
		name   string
		change func(*oidc.Config)
		says   string
	}{
		{"no issuer", func(c *oidc.Config) { c.Issuer = "" }, `issuer "": want a URL like`},
		{"no URL", func(c *oidc.Config) { c.Issuer = "issuer.example.com" }, "want a URL like"},
		{"no audience", func(c *oidc.Config) { c.Audience = "" }, "audience: missing"},
		{"everybody as a subject", func(c *oidc.Config) { c.Subjects = []string{"*"} }, `subject "*": want one like`},
		{"star in the middle", func(c *oidc.Config) { c.Subjects = []string{"a*b"} }, `subject "a*b"`},
		{"no such file", func(c *oidc.Config) { c.CAFile = "/nowhere" }, "/nowhere"},
		{"file without certificates", func(c *oidc.Config) { c.CAFile = write(t, "x") }, "holds none in PEM"},
		{"no such token", func(c *oidc.Config) { c.TokenFile = "/nowhere" }, "/nowhere"},
		{"token for everybody to see", func(c *oidc.Config) { c.Issuer, c.TokenFile = "http://x", write(t, "x") }, "want https"},
		{"API server outside of a cluster", func(c *oidc.Config) { c.Issuer = "https://kubernetes.default.svc.cluster.local" }, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := good
			tt.change(&c)
			if _, err := oidc.New(c); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want it to say %q", err, tt.says)
			}
		})
	}
}

// BenchmarkAdmit measures a token in the cache.
func BenchmarkAdmit(b *testing.B) {
	k := newKey(b, "k1")
	i := newIssuer(b, false, k)
	g := newAuthorizer(b, oidc.Config{Issuer: i.url})
	header := http.Header{"Authorization": {"Bearer " + sign(b, k, i.claims(time.Now(), nil))}}
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Authorize(b.Context(), header); err != nil {
			b.Fatal(err)
		}
	}
}
