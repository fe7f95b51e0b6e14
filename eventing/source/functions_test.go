package source_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source"
)

// ledgerOf is a Ledger that has events under the functions of their ids.
type ledgerOf map[string]string

func (l ledgerOf) Committed(_ context.Context, function string, events []source.EventID) ([]bool, error) {
	done := make([]bool, len(events))
	for i, e := range events {
		done[i] = l[e.ID] == function
	}
	return done, nil
}

// The ledger has an event under the function of its type, which may differ from the
// source's.
func TestEventsOfEveryFunctionOfAnImageAreFoundInTheLedger(t *testing.T) {
	t.Parallel()

	var delivered, asked atomic.Int64
	f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(outcome.TypesHeader, "com.example.flight;function=flights,com.example.order;function=orders")
		w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptLost)
		if r.Method == http.MethodOptions {
			asked.Add(1)
		} else {
			delivered.Add(1)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(f.Close)
	server := natstest.Start(t)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	ledger := ledgerOf{}
	var events []event.Event
	for i := range 40 {
		e := eventtest.NewEvent(fmt.Sprintf("test-%06d", i))
		e.SetType("com.example.flight")
		ledger[e.ID()] = "flights"
		if i%2 == 1 {
			e.SetType("com.example.order")
			ledger[e.ID()] = "orders"
		}
		events = append(events, e)
	}
	eventtest.Eventually(t, "they are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })

	p := &progress{}
	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.URL, f.URL), p, source.Config{
		Function: "flights", SaveInterval: saveInterval, Hedge: eventing.Hedge{Standby: true}, Ledger: ledger,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	eventtest.Eventually(t, "all are acknowledged", func() bool { return p.floor("EVENTS") == 41 })
	if delivered.Load() > 0 || asked.Load() != 1 {
		t.Errorf("%d requests with events and %d without, want 0 and 1", delivered.Load(), asked.Load())
	}
}
