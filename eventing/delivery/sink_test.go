package delivery_test

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/sink"
)

func TestASinkWithACertificateOfItsOwnIsTrustedWhenKnativeSaysSo(t *testing.T) {
	t.Parallel()

	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Tandem-Receipt", "won")
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	certs := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))

	if _, err := newSinkDelivery(t, server.URL, server.URL, sink.Config{CACerts: certs}).DeliverUntilSettled(t.Context(), eventtest.NewEvent("1")); err != nil {
		t.Error(err)
	}

	d := newSinkDelivery(t, server.URL, server.URL, sink.Config{})
	if err := deliverUntilReported(t, d); !errors.Is(err, context.Canceled) {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
	if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Ready: %v", err)
	}
}

func TestTheTokenGoesToTheSinkAlone(t *testing.T) {
	t.Parallel()

	tokens := make(chan string, 10)
	note := func(w http.ResponseWriter, r *http.Request) {
		tokens <- r.URL.Path + " " + r.Header.Get("Authorization")
		if r.URL.Path == "/" {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}
	address, elsewhere := eventtest.Serve(t, note), eventtest.Serve(t, note)
	for _, tt := range []struct {
		token, deadLetterSink string
		want                  []string
	}{
		{deadLetterSink: address + "/dead-letters", want: []string{"/ ", "/dead-letters "}}, // there is no token file
		{token: "one\n", deadLetterSink: address + "/dead-letters", want: []string{"/ Bearer one", "/dead-letters Bearer one"}},
		{token: "one", deadLetterSink: elsewhere + "/letters", want: []string{"/ Bearer one", "/letters "}},
		{token: "\n", deadLetterSink: address + "/dead-letters", want: []string{"/ ", "/dead-letters "}},
	} {
		file := filepath.Join(t.TempDir(), "token")
		if tt.token != "" {
			if err := os.WriteFile(file, []byte(tt.token), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d := newSinkDelivery(t, address+"/", tt.deadLetterSink, sink.Config{TokenFile: file})
		if _, err := d.DeliverUntilSettled(t.Context(), eventtest.NewEvent("1")); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, []string{<-tokens, <-tokens}); diff != "" {
			t.Errorf("token %q (-want +got):\n%s", tt.token, diff)
		}
	}
}

func TestAnEventWaitsForAFreshToken(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int64
	address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer fresh" {
			refused.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	d := newSinkDelivery(t, address, address, sink.Config{TokenFile: file})
	done := make(chan error, 1)
	go func() {
		_, err := d.DeliverUntilSettled(t.Context(), eventtest.NewEvent("1"))
		done <- err
	}()
	eventtest.Eventually(t, "it is refused and tried again", func() bool { return refused.Load() > 2 })
	if err := os.WriteFile(file, []byte("fresh"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestATokenThatCannotBeReadIsNotLeftOut(t *testing.T) {
	t.Parallel()

	var asked atomic.Bool
	address := eventtest.Serve(t, func(http.ResponseWriter, *http.Request) { asked.Store(true) })
	d := newSinkDelivery(t, address, address, sink.Config{TokenFile: t.TempDir()})
	if err := deliverUntilReported(t, d); !errors.Is(err, context.Canceled) || asked.Load() {
		t.Errorf("delivered without it: %v", err)
	}
	if err := d.Ready(); err == nil || !strings.Contains(err.Error(), "read the sink's token") {
		t.Errorf("Ready: %v", err)
	}
}

func TestOverridesAreInTheEventAndInItsDeadLetter(t *testing.T) {
	t.Parallel()

	got := make(chan http.Header, 2)
	address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		if r.URL.Path == "/" {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	})
	overrides, err := sink.ParseOverrides(`{"extensions":{"tenant":"acme","stage":"100%"}}`)
	if err != nil {
		t.Fatal(err)
	}
	e := eventtest.NewEvent("1")
	e.SetExtension("tenant", "nobody")
	if _, err := newSinkDelivery(t, address+"/", address+"/dead-letters", sink.Config{Overrides: overrides}).DeliverUntilSettled(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		header := <-got
		if header.Get("Ce-Tenant") != "acme" || header.Get("Ce-Stage") != "100%25" || header.Get("Ce-Id") != "1" {
			t.Errorf("sent %v", header)
		}
	}
	if e.Extensions()["tenant"] != "nobody" {
		t.Error("the event itself was changed")
	}
}

func TestParseOverrides(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"":                                ``,
		`{}`:                              ``,
		`{"extensions":null}`:             ``,
		`{"extensions":{"a":"b"}}`:        ``,
		`tenant=acme`:                     `want {"extensions":{"NAME":"VALUE"}}: invalid character`,
		`{"extensions":{"a":1}}`:          `cannot unmarshal number`,
		`{"extension":{"tenant":"acme"}}`: `unknown field "extension"`,
	} {
		_, err := sink.ParseOverrides(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q in it", text, err, want)
		}
	}
}

func TestWhatASinkCannotHaveIsRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		cfg  sink.Config
		want string
	}{
		{cfg: sink.Config{Overrides: map[string]string{"id": "1"}}, want: `override of "id": only extension attributes`},
		{cfg: sink.Config{Overrides: map[string]string{"Tenant": "1"}}, want: `override of "Tenant": want lower-case`},
		{cfg: sink.Config{Overrides: map[string]string{"": "1"}}, want: `override of ""`},
		{cfg: sink.Config{Overrides: map[string]string{"tenant": "a\nb"}}, want: "control character"},
		{cfg: sink.Config{CACerts: "certs"}, want: "CA certificates: want PEM"},
	} {
		_, err := delivery.New("http://x", "http://x", delivery.Config{Function: "f", Sink: tt.cfg})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q in it", err, tt.want)
		}
	}
}

func newSinkDelivery(t *testing.T, address, deadLetters string, cfg sink.Config) *delivery.Sender {
	t.Helper()

	d, err := delivery.New(address, deadLetters, delivery.Config{
		Function: "flights", BackoffBase: time.Millisecond, BackoffCap: 20 * time.Millisecond, Sink: cfg,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// deliverUntilReported delivers an event until the delivery reports a failure, and
// returns the error of Deliver.
func deliverUntilReported(t *testing.T, d *delivery.Sender) error {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := d.DeliverUntilSettled(ctx, eventtest.NewEvent("1"))
		ended <- err
	}()
	eventtest.Eventually(t, "the delivery reports that it fails", func() bool { return d.Ready() != nil || len(ended) > 0 })
	cancel()
	return <-ended
}
