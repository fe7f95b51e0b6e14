package process_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions/flights"
)

func TestOnlySendersWhoHaveATokenAreServed(t *testing.T) {
	t.Parallel()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	provider := &oidctest.Server{PublicKeys: []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: "k1", Algorithm: oidc.ES256}}}
	issuer := httptest.NewServer(provider)
	defer issuer.Close()
	provider.SetIssuer(issuer.URL)
	const audience = "serving.knative.dev/service/tandem/flights"
	token := func(sub, aud string) string {
		claims := fmt.Sprintf(`{"iss":%q,"aud":[%q],"sub":%q,"exp":%d}`, issuer.URL, aud, sub, time.Now().Add(time.Hour).Unix())
		return "authorization: Bearer " + oidctest.SignIDToken(key, "k1", oidc.ES256, claims)
	}

	url := database(t)
	i, s := startComponents(t, "east", url, map[string]string{
		"TANDEM_OIDC_ISSUER": issuer.URL, "TANDEM_OIDC_AUDIENCE": audience,
		"TANDEM_OIDC_SUBJECTS": "system:serviceaccount:tandem:source, system:serviceaccount:tandem:oidc-*",
	})
	for _, path := range []string{"", "/dead-letters"} {
		for _, tt := range []struct {
			name, header string
			status       int
		}{
			{"nobody", "x-nothing: ", 401},
			{"token for somebody else", token("system:serviceaccount:tandem:source", "other"), 401},
			{"somebody else", token("system:serviceaccount:tandem:default", audience), 403},
			{"the source", token("system:serviceaccount:tandem:source", audience), 204},
			{"a trigger", token("system:serviceaccount:tandem:oidc-trigger-1", audience), 204},
		} {
			if a := mustPost(t, s.URL+path, "flight-1", departure(1), tt.header); a.status != tt.status {
				t.Errorf("%s, to %q: answer is %d %q, want %d", tt.name, path, a.status, a.body, tt.status)
			}
		}
	}
	if n := query[int](t, url, "select count(*) from tandem.ledger"); n != 1 {
		t.Errorf("%d events are in the ledger, want 1", n)
	}
	if n := query[int](t, url, "select count(*) from tandem.dead_letter"); n != 1 {
		t.Errorf("%d dead letters are kept, want 1", n)
	}
	// Health checks have no token.
	if ready, err := i.Ready(t.Context()); !ready {
		t.Error(err)
	}
}

func TestSendersArePostponedWhileTheIssuerIsAway(t *testing.T) {
	t.Parallel()

	_, s := startComponents(t, "east", database(t), map[string]string{"TANDEM_OIDC_ISSUER": "http://127.0.0.1:1", "TANDEM_OIDC_AUDIENCE": "a"})
	claims := `{"iss":"http://127.0.0.1:1","aud":"a","sub":"s","exp":9999999999}`
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := mustPost(t, s.URL, "flight-1", departure(1), "authorization: Bearer "+oidctest.SignIDToken(key, "k1", oidc.ES256, claims))
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "fetch the issuer's keys") {
		t.Errorf("answer is %d %q with %v, want 503 with Retry-After", a.status, a.body, a.header)
	}
}

func TestHalfAConfigurationOfSendersIsRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		env  map[string]string
		says string
	}{
		{map[string]string{"TANDEM_OIDC_SUBJECTS": "a"}, "TANDEM_OIDC_ISSUER: missing"},
		{map[string]string{"TANDEM_OIDC_ISSUER": "https://x"}, "TANDEM_OIDC_AUDIENCE: missing"},
		{map[string]string{"TANDEM_OIDC_ISSUER": "x", "TANDEM_OIDC_AUDIENCE": "a"}, `issuer "x": want a URL`},
		{map[string]string{"TANDEM_OIDC_ISSUER": "https://x", "TANDEM_OIDC_AUDIENCE": "a", "TANDEM_OIDC_CA_FILE": "/nowhere"}, "/nowhere"},
	} {
		tt.env["TANDEM_CLUSTER"], tt.env["DATABASE_URL"] = "east", "postgres://u@127.0.0.1:1/x"
		if err := process.New(flights.Function()).Start(t.Context(), tt.env); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v: error is %v, want it to say %q", tt.env, err, tt.says)
		}
	}
}
