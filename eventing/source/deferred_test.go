package source_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
)

// deferredEvents is a Deferred in memory. The real one is in the database. The other methods
// are not called while nothing is counted.
type deferredEvents struct {
	source.Deferred
	mu  sync.Mutex
	ids []string
}

func (d *deferredEvents) Defer(_ context.Context, _ string, events []deferred.Event, _ time.Duration) ([]deferred.Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	results := make([]deferred.Result, len(events))
	for i, e := range events {
		if results[i] = deferred.Unproven; e.Proven {
			results[i] = deferred.Stored
			d.ids = append(d.ids, e.ID)
		}
	}
	return results, nil
}

func (d *deferredEvents) Counts(context.Context, string) ([]deferred.Count, error) { return nil, nil }

func (d *deferredEvents) Elsewhere(context.Context, string) ([]deferred.Lack, error) { return nil, nil }

func (d *deferredEvents) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ids)
}

// Events that lack something never fill the in-flight table, so that other events proceed: when
// they fill half of it, they are deferred long before their time. If the function is broken,
// they wait.
func TestEventsThatTakeHalfOfTheTableAreDeferredAtOnce(t *testing.T) {
	t.Parallel()

	const total, healthyEvery = 3000, 2
	for _, sick := range []bool{false, true} {
		server := natstest.Start(t)
		eventtest.Publish(t, server, "EVENTS", 0, total)
		var tried sync.Map
		f := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			w.Header().Set(outcome.MaxBatchHeader, "100")
			w.Header().Set(eventing.VersionsHeader, "flights=1")
			outcomeOf := func(id string) outcome.Outcome {
				tried.Store(id, true)
				if !sick && numberOf(id)%healthyEvery == 0 {
					return outcome.Outcome{Kind: outcome.Committed, Won: true}
				}
				return outcome.Outcome{Kind: outcome.Deployment, Status: http.StatusServiceUnavailable, Fingerprint: "23514 days", EffectClass: outcome.Commuting}
			}
			if id := r.Header.Get("Ce-Id"); id != "" {
				o := outcomeOf(id)
				if o.Kind == outcome.Committed {
					w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptWon)
					w.WriteHeader(http.StatusNoContent)
					return
				}
				w.Header().Set(outcome.OutcomeHeader, o.Header())
				w.WriteHeader(o.Status)
				return
			}
			members, err := cloudevent.ReadBatch(body, cloudevent.Rules{})
			if err != nil {
				t.Errorf("no batch: %v", err)
			}
			outcomes := make([]outcome.Outcome, len(members))
			for i, m := range members {
				outcomes[i] = outcomeOf(m.Event.ID())
			}
			w.Header().Set("Content-Type", outcome.OutcomesType)
			_, _ = w.Write(outcome.Append(nil, outcomes))
		})
		sender, err := delivery.New(f, f+"/dead-letters", delivery.Config{Function: "flights", TryFor: 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		p, store := &progress{}, &deferredEvents{}
		s, err := source.New(eventing.StreamList{stream}, sender, p, source.Config{
			Function: "flights", MaxBytes: 1 << 20, SaveInterval: saveInterval, Deferred: store,
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s)
		if sick {
			eventtest.Eventually(t, "events fail", func() bool {
				n := 0
				tried.Range(func(any, any) bool { n++; return true })
				return n > 20
			})
			if n := store.count(); n > 0 {
				t.Errorf("%d events of a sick function are deferred", n)
			}
		} else {
			const half = 1024 // of the 2048 messages that fit in 1 MiB
			eventtest.Eventually(t, "they are deferred", func() bool { return store.count() >= half })
			eventtest.Eventually(t, "all are read", func() bool {
				n := 0
				tried.Range(func(any, any) bool { n++; return true })
				return n == total
			})
		}
		stop()
	}
}
