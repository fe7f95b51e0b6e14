package clusters_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/test/deployment/workload/harm"
)

// By the clock of the database, an event was committed before the transaction of
// the next event of its subject began, in any cluster.
func TestEventsOfASubjectAreCommittedInOrderByBothClusters(t *testing.T) {
	t.Parallel()
	for name, second := range map[string][]string{
		"racing":  {"TANDEM_ORDERING=subject", "TANDEM_BATCH=20"},
		"hedging": {"TANDEM_ORDERING=subject", "TANDEM_HEDGE=100ms"},
		"sharing": {"TANDEM_ORDERING=subject", "TANDEM_HEDGE=share"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "racing" {
				long(t)
			}
			first := []string{"TANDEM_ORDERING=subject"}
			if name == "sharing" {
				first = second
			}
			w := newWorldWith(t, 1000, first, second)
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
			events := inOrder(t, js, int(w.supply.total()), func(m natsjs.Msg) event {
				return event{m.Headers().Get("ce-source"), m.Headers().Get("ce-id"), m.Headers().Get("ce-subject")}
			})
			committed := w.committed(t, `select key, committed_at from tandem.ledger`)
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

// inOrder reads n messages of the stream in order.
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

// The table rejects the first event of two subjects. The events after it wait in the
// database, not in the stream. One letter is dropped; the other event is replayed when the
// table accepts it. Meanwhile sources are killed.
func TestEventsBehindADeadLetterAreCommittedInOrderAfterTheVerdict(t *testing.T) {
	long(t)
	t.Parallel()
	const behind = 300
	w := startHarm(t, "TANDEM_ORDERING=subject")
	if _, err := w.Pool.Exec(t.Context(), `alter table harm_events add constraint refused check (id not like '%-000')`); err != nil {
		t.Fatal(err)
	}
	ordered := func(subject string, n int) event.Event {
		e := harmEvent(t, fmt.Sprintf("%s-%03d", subject, n), harm.None)
		e.SetSubject(subject)
		return e
	}
	w.send(t, ordered("dropped", 0), ordered("replayed", 0))
	poll(t, "the first events are not dead in both clusters", func(ctx context.Context) bool {
		return len(w.dead(ctx, "dropped-000")) == 2 && len(w.dead(ctx, "replayed-000")) == 2
	})
	for n := 1; n <= behind; n++ {
		w.send(t, ordered("dropped", n), ordered("healthy", n), ordered("replayed", n))
	}
	committed := func(ctx context.Context, subject string) (n int) {
		if err := w.Pool.QueryRow(ctx, `select count(*) from harm_events where id like $1 || '-%'`, subject).Scan(&n); err != nil {
			return -1
		}
		return n
	}
	stored := func(ctx context.Context) (n int) {
		if err := w.Pool.QueryRow(ctx, `select count(*) from tandem.blocked_event`).Scan(&n); err != nil {
			return -1
		}
		return n
	}
	js, err := natsjs.New(w.NC)
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "events behind a dead letter hold the stream", func(ctx context.Context) bool {
		return stored(ctx) == 2*2*behind && committed(ctx, "healthy") == behind &&
			through(ctx, js, w.Clusters()[0]) && through(ctx, js, w.Clusters()[1])
	})
	for _, c := range w.Clusters() {
		kill(t, c.Source, 1)
	}
	if n := committed(t.Context(), "dropped") + committed(t.Context(), "replayed"); n != 0 {
		t.Errorf("%d events were committed before there was a verdict on the one before them", n)
	}

	verdicts := deadletter.NewVerdicts(w.Pool)
	letters, err := verdicts.Read(t.Context(), "harm", "/test/harm", "dropped-000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verdicts.Drop(t.Context(), "harm", "/test/harm", "dropped-000", letters); err != nil {
		t.Fatal(err)
	}
	poll(t, "no event behind the dropped letter is committed", func(ctx context.Context) bool { return committed(ctx, "dropped") > 0 })
	kill(t, w.Clusters()[0].Source, 2)
	if _, err := w.Pool.Exec(t.Context(), `alter table harm_events drop constraint refused`); err != nil {
		t.Fatal(err)
	}
	w.replay(t, ordered("replayed", 0))
	poll(t, "no event behind the replayed one is committed", func(ctx context.Context) bool { return committed(ctx, "replayed") > 1 })
	kill(t, w.Clusters()[1].Source, 2)
	w.send(t, ordered("dropped", behind+1), ordered("replayed", behind+1))
	poll(t, "events are still stored", func(ctx context.Context) bool {
		return committed(ctx, "dropped") == behind+1 && committed(ctx, "replayed") == behind+2 && stored(ctx) == 0
	})
	var wrong int
	if err := w.Pool.QueryRow(t.Context(), `select count(*) from (
		select id, lag(id) over (partition by split_part(id, '-', 1) order by committed_at) as before from harm_events
	) as e where before > id`).Scan(&wrong); err != nil || wrong > 0 {
		t.Errorf("%d events were committed before an earlier one of their subject, %v", wrong, err)
	}
}

// replay delivers an event to the function of the first cluster.
func (w *harmWorld) replay(t *testing.T, e event.Event) {
	t.Helper()
	body, err := cloudevent.AppendJSON(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "the event is not accepted", func(ctx context.Context) bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.Clusters()[0].FunctionURL(), bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", event.ApplicationCloudEventsJSON)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Log(err)
			return false
		}
		defer response.Body.Close() //nolint:errcheck // only the status counts
		if response.StatusCode/100 != 2 {
			t.Logf("the event was answered with %s", response.Status)
		}
		return response.StatusCode/100 == 2
	})
}
