package process_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the outbox is in the database

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/eventing/relay"
	outputsink "github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// emitter is a function that emits outputs of the size in the event.
func emitter() functions.Function {
	return functions.Function{
		Name: "emitter", Version: "1", Types: []string{"com.example.emit"},
		Handle: func(_ context.Context, e event.Event) (functions.Effects, error) {
			var want struct{ Outputs, Bytes int }
			if err := e.DataAs(&want); err != nil {
				return functions.Effects{}, functions.Reject(err)
			}
			var fx functions.Effects
			for range want.Outputs {
				fx.Emit(functions.Output{Type: "com.example.emitted", DataContentType: "text/plain", Data: []byte(strings.Repeat("x", want.Bytes))})
			}
			return fx, nil
		},
	}
}

func emit(id string, outputs, size int) event.Event {
	e := event.New()
	e.SetID(id)
	e.SetSource("/tests")
	e.SetType("com.example.emit")
	e.SetDataContentType(event.ApplicationJSON)
	e.DataEncoded = fmt.Appendf(nil, `{"outputs":%d,"bytes":%d}`, outputs, size)
	return e
}

// offer returns the offer of the emitter's process for an event.
func offer(t *testing.T, e event.Event) sinkwriter.Offer {
	t.Helper()

	fx, err := emitter().Handle(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return sinkwriter.Offer{Function: "emitter", Version: "1", Event: e, Effects: fx}
}

// startEmitter starts a Runtime of the emitter, and returns it with a function that posts
// an event to it.
func startEmitter(t *testing.T, databaseURL string, env map[string]string) (*process.Runtime, func(event.Event) answer) {
	t.Helper()

	env["TANDEM_CLUSTER"], env["DATABASE_URL"], env["LOG_LEVEL"] = "east", databaseURL, "error"
	rt := process.New(emitter())
	if err := rt.Start(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	stop(t, rt)
	awaitReady(t, rt)
	s := serve(t, rt)
	return rt, func(e event.Event) answer {
		a, err := post(t.Context(), s.URL, e.ID(), string(e.Data()), "ce-type: "+e.Type(), "ce-source: "+e.Source())
		if err != nil {
			t.Error(err)
		}
		return a
	}
}

// postAll posts events, 16 concurrently, and returns the answers by id.
func postAll(events []event.Event, post func(event.Event) answer) map[string]answer {
	var mu sync.Mutex
	answers := map[string]answer{}
	next := make(chan event.Event)
	var senders sync.WaitGroup
	for range 16 {
		senders.Go(func() {
			for e := range next {
				a := post(e)
				mu.Lock()
				answers[e.ID()] = a
				mu.Unlock()
			}
		})
	}
	for _, e := range events {
		next <- e
	}
	close(next)
	senders.Wait()
	return answers
}

func TestLargeOutputsAreRejectedBeforeTheCommitAndLoseNoOthers(t *testing.T) {
	t.Parallel()

	const events, large = 300, 5
	server := natstest.Start(t)
	natsURL, databaseURL, stalls := server.URL(), database(t), eventtest.Stalls(t)
	rt, post := startEmitter(t, databaseURL, map[string]string{"NATS_URL": natsURL})
	var all []event.Event
	for n := range events {
		size := 100
		if n%(events/large) == 7 {
			size = 1_200_000
		}
		all = append(all, emit(fmt.Sprintf("e-%03d", n), 1, size))
	}
	all = append(all, emit("many", 30, 100_000)) // 3 MB together, each of which fits
	rejected := 0
	for id, a := range postAll(all, post) {
		switch a.status {
		case http.StatusNoContent:
		case http.StatusUnprocessableEntity:
			rejected++
			if !strings.Contains(a.body, "1048576") {
				t.Errorf("%s: %q, want the limit in it", id, a.body)
			}
		default:
			t.Errorf("%s: answer is %d %q", id, a.status, a.body)
		}
	}
	if rejected != large {
		t.Errorf("%d events were rejected, want %d", rejected, large)
	}
	if err := rt.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stalls() > time.Second {
		relayRest(t, databaseURL, streamPublisher(t, server))
	}
	js := natstest.JetStream(t, natsURL)
	stream, err := js.Stream(t.Context(), "OUTPUTS")
	if err != nil {
		t.Fatal(err)
	}
	if stored, want := stream.CachedInfo().State.Msgs, uint64(events-large+30); stored != want {
		t.Errorf("%d outputs are stored, want %d", stored, want)
	}
	if n := query[int](t, databaseURL, "select count(*) from tandem.outbox"); n != 0 {
		t.Errorf("%d rows are in the outbox, want none", n)
	}
}

// countingSink counts the requests for each event. Answer is called for each.
type countingSink struct {
	answer func(id string) int

	mu       sync.Mutex
	requests int
	accepted map[string]int
}

func (s *countingSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Ce-Id")
	code := s.answer(id)
	s.mu.Lock()
	s.requests++
	if code/100 == 2 {
		s.accepted[id]++
	}
	s.mu.Unlock()
	w.WriteHeader(code)
}

// counts returns the number of requests, the number of accepted events, and the maximum
// number of times that one event was accepted.
func (s *countingSink) counts() (requests, accepted, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.accepted {
		most = max(most, n)
	}
	return s.requests, len(s.accepted), most
}

func startCountingSink(t *testing.T, answer func(id string) int) (*countingSink, string) {
	t.Helper()

	s := &countingSink{answer: answer, accepted: map[string]int{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server.URL
}

func TestAnOutputThatTheSinkRejectsIsSetAsideAndHoldsUpNoOthers(t *testing.T) {
	t.Parallel()

	const events = 300
	for _, code := range []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			t.Parallel()

			_, bad := functions.OutputIdentity("emitter", "/tests", "e-077", 0)
			sink, url := startCountingSink(t, func(id string) int {
				if id == bad {
					return code
				}
				return http.StatusAccepted
			})
			databaseURL, stalls := database(t), eventtest.Stalls(t)
			_, post := startEmitter(t, databaseURL, map[string]string{"TANDEM_OUTPUT_SINK": url})
			var all []event.Event
			for n := range events {
				all = append(all, emit(fmt.Sprintf("e-%03d", n), 1, 100))
			}
			for id, a := range postAll(all, post) {
				if a.status != http.StatusNoContent {
					t.Errorf("%s: answer is %d %q", id, a.status, a.body)
				}
			}
			pool, err := pgxpool.New(t.Context(), databaseURL)
			if err != nil {
				t.Fatal(err)
			}
			publisher, err := outputsink.NewPublisher(url, outputsink.PublisherConfig{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var relays sync.WaitGroup
			relays.Go(func() { relay.Run(ctx, sinkwriter.NewOutbox(pool), publisher, relay.Config{}) }) // as in every cluster
			t.Cleanup(func() {
				cancel()
				relays.Wait()
				pool.Close()
			})
			eventtest.Eventually(t, "no row is in the outbox", func() bool { return query[int](t, databaseURL, "select count(*) from tandem.outbox") == 0 })
			requests, accepted, most := sink.counts()
			if accepted != events-1 || (requests != events || most != 1) && stalls() < time.Second {
				t.Errorf("%d requests, %d events accepted, one of them %d times; want %d, %d, 1", requests, accepted, most, events, events-1)
			}
			aside := query[string](t, databaseURL, `select string_agg(id || ' ' || code, ',') from tandem.rejected_output`)
			if want := fmt.Sprintf("%s %d", bad, code); aside != want {
				t.Errorf("set aside are %s, want %s", aside, want)
			}
		})
	}
}

func TestASlowSinkReceivesEachOutputOnce(t *testing.T) {
	t.Parallel()

	const outputs, inFlight = 400, 4
	for _, by := range []string{"winner", "relay"} {
		t.Run("from the "+by, func(t *testing.T) {
			t.Parallel()

			stalls := eventtest.Stalls(t)
			slow, url := startCountingSink(t, func(string) int {
				time.Sleep(50 * time.Millisecond)
				return http.StatusAccepted
			})
			pool, err := pgxpool.New(t.Context(), database(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			publisher, err := outputsink.NewPublisher(url, outputsink.PublisherConfig{InFlight: inFlight})
			if err != nil {
				t.Fatal(err)
			}
			config := sinkwriter.Config{Cluster: "east", PublishTimeout: 500 * time.Millisecond}
			if by == "winner" {
				config.Publisher = publisher
			}
			w, err := sinkwriter.New(pool, config)
			if err != nil {
				t.Fatal(err)
			}
			var offers []sinkwriter.Offer
			for n := range outputs {
				offers = append(offers, offer(t, emit(fmt.Sprintf("e-%03d", n), 1, 100)))
			}
			for _, o := range w.CommitAll(t.Context(), offers) {
				if o.Err != nil {
					t.Fatal(o.Err)
				}
			}
			if by == "relay" {
				if _, err := pool.Exec(t.Context(), "update tandem.outbox set due = now()"); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var relays sync.WaitGroup
			relays.Go(func() {
				relay.Run(ctx, sinkwriter.NewOutbox(pool), publisher, relay.Config{Interval: 100 * time.Millisecond, Timeout: time.Second})
			})
			t.Cleanup(func() {
				cancel()
				relays.Wait()
				if err := w.Close(context.WithoutCancel(ctx)); err != nil {
					t.Error(err)
				}
			})
			eventtest.Reaches(t, "outputs are accepted", outputs, func() int {
				_, accepted, _ := slow.counts()
				return accepted
			})
			eventtest.Eventually(t, "the outbox is empty", func() bool { n, err := sinkwriter.NewOutbox(pool).Backlog(t.Context()); return err == nil && n == 0 })
			// A request that was aborted because the process stalled is repeated.
			if requests, accepted, most := slow.counts(); accepted != outputs || (requests != outputs || most != 1) && stalls() < time.Second {
				t.Errorf("%d requests for %d outputs, of which one was accepted %d times; want one each for %d", requests, accepted, most, outputs)
			}
		})
	}
}
