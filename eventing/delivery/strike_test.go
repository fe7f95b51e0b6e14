package delivery_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/outcome"
)

// hangUp closes the connection of a request without an answer.
func hangUp(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

func suspectEvent(id string) event.Event {
	e := event.New()
	e.SetID(id)
	e.SetSource("/tests")
	e.SetType("test")
	return e
}

func TestABrokenConnectionIsToldFromOneThatWasNeverThere(t *testing.T) {
	t.Parallel()

	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_, _ = io.WriteString(conn, text)
				_ = conn.Close()
			}
		}
	}
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		broken  bool
	}{
		"closed":                       {hangUp, true},
		"another protocol":             {raw("SSH-2.0-OpenSSH_9.2\r\n"), false},
		"garbage":                      {raw("\x15\x03\x01"), false},
		"half of a header":             {raw("HTTP/1.1 204 No"), false},
		"a header that is none":        {raw("HTTP/1.1 204 No Content\r\n: x\r\n\r\n"), false},
		"two lengths":                  {raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), false},
		"a header that is too large":   {raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 11<<20) + "\r\n\r\n"), false},
		"502 of queue-proxy, garbage":  {answer(502, "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"SSH-2.0\"\n"), false},
		"502 of queue-proxy, idle":     {answer(502, "http: server closed idle connection\n"), false},
		"no answer in time":            {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false},
		"503":                          {answer(503, "busy"), false},
		"502 that states nothing":      {answer(502, ""), false},
		"502 of queue-proxy, EOF":      {answer(502, "EOF\n"), true},
		"502 of queue-proxy, reset":    {answer(502, "read tcp 127.0.0.1:4->127.0.0.1:8080: read: connection reset by peer\n"), true},
		"502 of queue-proxy, refused":  {answer(502, "dial tcp 127.0.0.1:8080: connect: connection refused\n"), false},
		"503 of Envoy, termination":    {answer(503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination"), true},
		"503 of Envoy, no connection":  {answer(503, "upstream connect error or disconnect/reset before headers. reset reason: connection failure"), false},
		"502 of the function's own":    {answer(502, "EOF", outcome.MaxBatchHeader, "10"), false},
		"500, the function goes on":    {answer(500, "EOF"), false},
		"503 of a function that stops": {answer(503, "shutting down", outcome.DrainingHeader, "true"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			server := httptest.NewServer(tt.handler)
			t.Cleanup(server.Close)
			cfg := delivery.Config{Function: "f"}
			if name == "no answer in time" {
				cfg.Timeout = 300 * time.Millisecond
			}
			sender, err := delivery.New(server.URL, server.URL, cfg)
			if err != nil {
				t.Fatal(err)
			}
			d := &delivery.Delivery{Event: suspectEvent("1")}
			steps, _ := sender.Deliver(t.Context(), []*delivery.Delivery{d})
			if steps[0].Broken != tt.broken || steps[0].Draining != strings.Contains(name, "stops") {
				t.Errorf("broken %t, draining %t; want broken %t", steps[0].Broken, steps[0].Draining, tt.broken)
			}
			if tt.broken && !d.Alone {
				t.Error("the event may go with others")
			}
		})
	}

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	sender, err := delivery.New("http://"+listener.Addr().String(), "http://"+listener.Addr().String(), delivery.Config{Function: "f"})
	if err != nil {
		t.Fatal(err)
	}
	if steps, _ := sender.Deliver(t.Context(), []*delivery.Delivery{{Event: suspectEvent("1")}}); steps[0].Broken {
		t.Error("a connection that was refused counts as broken")
	}
}

func TestOutcomesThatCannotBeReadAreNoBrokenConnection(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		body, length string
	}{
		"no JSON":           {body: "busy"},
		"half of it":        {body: "["},
		"of another number": {body: "[]"},
		"cut off":           {body: "[", length: "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var requests atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set(outcome.MaxBatchHeader, "10")
				w.Header().Set(outcome.MaxBatchBytesHeader, "100000")
				w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptWon)
				if requests.Add(1) == 1 {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				w.Header().Set("Content-Type", outcome.OutcomesType)
				if tt.length != "" {
					w.Header().Set("Content-Length", tt.length)
				}
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = io.WriteString(w, tt.body)
			}))
			t.Cleanup(server.Close)
			sender, err := delivery.New(server.URL, server.URL, delivery.Config{Function: "f"})
			if err != nil {
				t.Fatal(err)
			}
			sender.Deliver(t.Context(), []*delivery.Delivery{{Event: suspectEvent("1")}})
			steps, _ := sender.Deliver(t.Context(), []*delivery.Delivery{{Event: suspectEvent("2")}, {Event: suspectEvent("3")}})
			for _, step := range steps {
				if step.Settled || step.Broken || step.Outcome.Kind != outcome.Unavailable {
					t.Errorf("step %+v, want the function to be unavailable", step)
				}
			}
		})
	}
}

// If net/http repeated the request after the connection broke, it would end another process.
func TestARequestIsNotRepeatedAfterItsConnectionBroke(t *testing.T) {
	t.Parallel()

	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptWon)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		hangUp(w, r)
	}))
	t.Cleanup(server.Close)
	sender, err := delivery.New(server.URL, server.URL, delivery.Config{Function: "f"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true} { // the second request reuses the connection of the first
		steps, _ := sender.Deliver(t.Context(), []*delivery.Delivery{{Event: suspectEvent(fmt.Sprint(i))}})
		if steps[0].Broken != want {
			t.Errorf("request %d: broken %t, want %t", i+1, steps[0].Broken, want)
		}
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

func TestAStruckEventIsADeadLetterWithTheCause(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		strikes       int
		deadElsewhere bool
		reason        string
	}{
		"three strikes":             {3, false, "the function's process ended (connection closed) in 3 of 3 attempts, each alone"},
		"dead in another cluster":   {1, true, "the function's process ended (connection closed) in 1 of 1 attempts, each alone; the event is a dead letter of another cluster"},
		"two strikes":               {2, false, ""},
		"no strike, dead elsewhere": {0, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			letters := make(chan http.Header, 10)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/dead-letters" {
					hangUp(w, r)
					return
				}
				letters <- r.Header
				w.Header().Set(outcome.MaxBatchHeader, "10")
				w.WriteHeader(http.StatusNoContent)
			}))
			t.Cleanup(server.Close)
			sender, err := delivery.New(server.URL, server.URL+"/dead-letters", delivery.Config{Function: "f"})
			if err != nil {
				t.Fatal(err)
			}
			d := &delivery.Delivery{Event: suspectEvent("1")}
			sender.Deliver(t.Context(), []*delivery.Delivery{d})
			d.Strikes, d.DeadElsewhere = tt.strikes, tt.deadElsewhere
			steps, _ := sender.Deliver(t.Context(), []*delivery.Delivery{d})
			if steps[0].Rejected != (tt.reason != "") {
				t.Fatalf("rejected %t", steps[0].Rejected)
			}
			if tt.reason == "" {
				return
			}
			header := <-letters
			reason, err := base64.StdEncoding.DecodeString(header.Get("Ce-Knativeerrordata"))
			if err != nil || string(reason) != tt.reason || header.Get("Ce-Tandemattempts") != fmt.Sprint(tt.strikes) {
				t.Errorf("the dead letter has the reason %q after %s attempts, want %q", reason, header.Get("Ce-Tandemattempts"), tt.reason)
			}
		})
	}
}
