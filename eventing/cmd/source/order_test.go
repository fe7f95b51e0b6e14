package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test keeps dead letters as a function does

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// A dead letter blocks later events of its subject, even for the next process, until it
// is dropped, or its event is committed; other subjects proceed.
func TestASubjectIsParkedUntilTheVerdict(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publishOrdered(t, server, 0, 60)
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)

	letters := deadletter.NewStore(pool, "east")
	var mu sync.Mutex
	done := map[string][]string{} // by subject
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions { // the source asks for the types that the ledger has
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		e, err := cloudevent.ReadBinary(r.Header, nil, cloudevent.Rules{})
		switch {
		case err != nil:
			t.Errorf("not an event: %v", err)
		case r.URL.Path == "/dead-letters":
			if err := letters.Save(r.Context(), deadletter.Letter{Function: "flights", Event: e, Code: 422}); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		case e.ID() == "a-03" || e.ID() == "b-04":
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		default:
			if err := handle(r.Context(), pool, e.ID()); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			mu.Lock()
			if !slices.Contains(done[e.Subject()], e.ID()) {
				done[e.Subject()] = append(done[e.Subject()], e.ID())
			}
			mu.Unlock()
		}
		w.Header().Set("Tandem-Receipt", "lost")
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(sink.Close)
	expect := func(what string, want map[string]int) {
		t.Helper()
		eventtest.Eventually(t, what, func() bool {
			mu.Lock()
			defer mu.Unlock()
			for subject, n := range want {
				if len(done[subject]) < n {
					return false
				}
			}
			return true
		})
		mu.Lock()
		defer mu.Unlock()
		for subject, n := range want {
			if len(done[subject]) != n || !slices.IsSorted(done[subject]) {
				t.Fatalf("%s: of %s these are done: %v, want %d in order", what, subject, done[subject], n)
			}
		}
	}
	env := []string{"DATABASE_URL=" + url, "TANDEM_ORDERING=subject"}

	p := start(t, server.URL(), sink.URL, env...)
	expect("two are parked", map[string]int{"a": 3, "b": 4, "c": 20})
	p.end(t, syscall.SIGKILL)
	p = start(t, server.URL(), sink.URL, env...)
	publishOrdered(t, server, 60, 90)
	expect("the third goes on", map[string]int{"a": 3, "b": 4, "c": 30})
	p.end(t, syscall.SIGTERM)
	p = start(t, server.URL(), sink.URL, env...)
	// The dead letters are acknowledged. This process may redeliver later events, possibly after
	// the verdict.
	eventtest.Eventually(t, "it is ready", func() bool { _, err := get(t, p.metrics+"/health"); return err == nil })
	js := natstest.JetStream(t, server.URL())
	eventtest.Eventually(t, "all is acknowledged", func() bool {
		consumer, err := js.Consumer(t.Context(), "EVENTS", "tandem-east-flights")
		return err == nil && consumer.CachedInfo().NumPending == 0 && consumer.CachedInfo().NumAckPending == 0
	})

	// One is dropped, the other one committed, like by a replay or another cluster.
	verdicts := deadletter.NewVerdicts(pool)
	read, err := verdicts.Read(t.Context(), "flights", "/test", "a-03")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := verdicts.Drop(t.Context(), "flights", "/test", "a-03", read); n != 1 || err != nil {
		t.Fatalf("dropped %d, %v", n, err)
	}
	expect("a goes on", map[string]int{"a": 29, "b": 4, "c": 30})
	if err := handle(t.Context(), pool, "b-04"); err != nil {
		t.Fatal(err)
	}
	expect("b goes on", map[string]int{"a": 29, "b": 29, "c": 30})
	p.end(t, syscall.SIGTERM)
	if log := p.Log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("log:\n%s", log)
	}
}

// handle stores the ledger row of a function that has committed an event.
func handle(ctx context.Context, pool *pgxpool.Pool, id string) error {
	_, err := pool.Exec(ctx, `insert into tandem.ledger (writer, key, digest) values (1, tandem.key('flights', '/test', $1), '') on conflict do nothing`, id)
	return err
}

// publishOrdered publishes events from..to-1, with subjects a, b and c in turn.
func publishOrdered(t *testing.T, server *natstest.Server, from, to int) {
	t.Helper()

	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < to; i++ {
		subject := string(rune('a' + i%3))
		e := event.New()
		e.SetID(fmt.Sprintf("%s-%02d", subject, i/3))
		e.SetSource("/test")
		e.SetType("com.example.test")
		e.SetSubject(subject)
		eventtest.Eventually(t, "it is stored", func() bool { return publisher.Publish(t.Context(), []event.Event{e}) == nil })
	}
}
