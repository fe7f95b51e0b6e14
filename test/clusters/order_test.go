package clusters_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// By the clock of the database an event was committed before the transaction of the
// next one of its subject began, whichever of the clusters that was.
func TestEventsOfASubjectAreCommittedInOrderByBothClusters(t *testing.T) {
	t.Parallel()
	for name, second := range map[string][]string{
		"racing":  {"TANDEM_ORDERING=subject", "TANDEM_BATCH=20"},
		"hedging": {"TANDEM_ORDERING=subject", "TANDEM_HEDGE=100ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "hedging" {
				long(t)
			}
			w := newWorldWith(t, 1000, []string{"TANDEM_ORDERING=subject"}, second)
			for _, c := range w.Clusters() {
				w.kill(t, c.Source, 2)
				w.kill(t, c.Function, 1)
				w.kill(t, c.Source, 1)
			}
			w.finish(t, w.Clusters()...)

			js, err := natsjs.New(w.NC)
			if err != nil {
				t.Fatal(err)
			}
			type event struct{ source, id, subject string }
			events := inOrder(t, js, 20_000, func(m natsjs.Msg) event {
				return event{m.Headers().Get("ce-source"), m.Headers().Get("ce-id"), m.Headers().Get("ce-subject")}
			})
			committed := map[ledger.Key]time.Time{}
			rows, err := w.Pool.Query(t.Context(), `select key, committed_at from tandem.ledger`)
			if err != nil {
				t.Fatal(err)
			}
			var key [16]byte
			var at time.Time
			if _, err := pgx.ForEachRow(rows, []any{&key, &at}, func() error {
				committed[key] = at
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			last := map[string]time.Time{}
			wrong := 0
			for _, e := range events {
				at, there := committed[ledger.NewKey("flights", e.source, e.id)]
				if e.subject == "" || !there {
					t.Fatalf("event %s of subject %q is not in the ledger", e.id, e.subject)
				}
				if before := last[e.subject]; !at.After(before) {
					if wrong++; wrong < 5 {
						t.Errorf("%s of %s was committed at %s, the one before it at %s", e.id, e.subject, at, before)
					}
				}
				last[e.subject] = at
			}
			t.Logf("%d events of %d subjects, %d out of order", len(events), len(last), wrong)
		})
	}
}

// inOrder reads so many messages of the stream in its order.
func inOrder[T any](t *testing.T, js natsjs.JetStream, n int, read func(natsjs.Msg) T) []T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	consumer, err := jetstream.Ask(ctx, func(ctx context.Context) (natsjs.Consumer, error) {
		return js.OrderedConsumer(ctx, inputStream, natsjs.OrderedConsumerConfig{})
	})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	var all []T
	for len(all) < n {
		m, err := messages.Next(natsjs.NextContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, read(m))
	}
	return all
}
