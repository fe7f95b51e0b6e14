package delivery_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/outcome"
)

// hello answers every request like a default backend.
func hello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Del(outcome.ReceiptHeader)
	_, _ = io.WriteString(w, "hello")
}

func TestA2xxWithoutAReceiptIsNoAcknowledgement(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc
		broker bool
		letter bool // a dead letter from the start
		own    bool // the function is the dead letter sink
		want   bool // it is acknowledged
	}{
		{name: "a default backend", handle: hello},
		{name: "a receipt that is none", handle: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(outcome.ReceiptHeader, "thanks") }},
		{name: "a function", handle: func(http.ResponseWriter, *http.Request) {}, want: true},
		{name: "a Broker", handle: hello, broker: true, want: true},
		{name: "a dead letter to a default backend", handle: hello, letter: true, own: true},
		{name: "a dead letter to a sink elsewhere", handle: hello, letter: true, want: true},
		{name: "a dead letter to a Broker", handle: hello, letter: true, own: true, broker: true, want: true},
		{name: "a dead letter to a function", handle: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Del(outcome.ReceiptHeader)
			w.Header().Set(outcome.MaxBatchHeader, "128")
			w.WriteHeader(http.StatusNoContent)
		}, letter: true, own: true, want: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			address, letters := eventtest.Serve(t, tt.handle), eventtest.Serve(t, tt.handle)
			if tt.own {
				letters = address + "/dead-letters"
			}
			logger, lines := eventtest.Logger()
			d, err := delivery.New(address, letters, delivery.Config{Function: "flights", Broker: tt.broker, Logger: logger})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			e := &delivery.Delivery{Event: eventtest.NewEvent("1")}
			if tt.letter {
				e.Unreadable = io.ErrUnexpectedEOF
			}
			for range 3 {
				steps, _ := d.Deliver(ctx, []*delivery.Delivery{e})
				if steps[0].Settled != tt.want {
					t.Fatalf("step %+v, settled want %t", steps[0], tt.want)
				}
				if tt.want {
					break
				}
				if steps[0].Outcome.Kind != outcome.Unavailable || steps[0].RetryIn == 0 || e.Attempts != 0 {
					t.Errorf("step %+v, want a retry that does not count", steps[0])
				}
			}
			err = d.Ready()
			if tt.want {
				if err != nil {
					t.Errorf("Ready: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "answered 200 OK without a Tandem receipt") {
				t.Errorf("Ready: %v", err)
			}
			if got := lines(); len(got) != 1 || !strings.Contains(got[0], "TANDEM_SINK_KIND=broker") {
				t.Errorf("log %q, want one line", got)
			}
		})
	}
}
