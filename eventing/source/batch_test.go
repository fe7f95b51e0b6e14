package source_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// together is a function that accepts batches, and answers with the outcome of each event.
type together struct {
	server *httptest.Server

	mu      sync.Mutex
	status  func(id string, alone bool) int
	refuses int // the status of the answer to any batch
	done    map[string]int
	tried   map[string]int // attempts of each event, alone or in a batch
	letters map[string]event.Event
	batches []int // their sizes
	single  int
	pause   time.Duration
	hold    chan struct{} // no request is answered before it is closed; nil means no wait

	noBatches bool // the function does not state that it accepts batches
}

// count returns how many events are done, and attempts the total number of attempts.
func (f *together) count() (n int) {
	f.read(func() { n = len(f.done) })
	return n
}

func (f *together) attempts() (n int) {
	f.read(func() {
		for _, tries := range f.tried {
			n += tries
		}
	})
	return n
}

func newTogether(t *testing.T) *together {
	t.Helper()

	f := &together{done: map[string]int{}, tried: map[string]int{}, letters: map[string]event.Event{}}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	return f
}

func (f *together) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	mode, err := cloudevent.ModeOf(r.Header.Get("Content-Type"))
	var events []event.Event
	switch {
	case err != nil:
	case mode == cloudevent.Batch:
		var members []cloudevent.Member
		members, err = cloudevent.ReadBatch(body, cloudevent.Rules{})
		for _, m := range members {
			events = append(events, m.Event)
		}
	default:
		events = make([]event.Event, 1)
		events[0], err = cloudevent.ReadBinary(r.Header, body, cloudevent.Rules{})
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.URL.Path == "/dead-letters" {
		f.letters[events[0].ID()] = events[0]
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if hold := f.hold; hold != nil {
		f.mu.Unlock()
		<-hold
		f.mu.Lock()
	}
	if pause := f.pause; pause > 0 {
		f.mu.Unlock()
		time.Sleep(pause)
		f.mu.Lock()
	}
	alone := mode != cloudevent.Batch
	if !f.noBatches {
		w.Header().Set(outcome.MaxBatchHeader, "100")
	}
	if alone {
		f.single++
	} else {
		f.batches = append(f.batches, len(events))
		if f.refuses != 0 {
			w.WriteHeader(f.refuses)
			return
		}
	}
	outcomes := make([]outcome.Outcome, len(events))
	for i, e := range events {
		status := http.StatusNoContent
		if f.status != nil {
			status = f.status(e.ID(), alone)
		}
		f.tried[e.ID()]++
		if status < 300 {
			f.done[e.ID()]++
		}
		header := http.Header{}
		header.Set("Tandem-Receipt", "won")
		outcomes[i] = outcome.FromHTTP(status, header, "reason")
		if alone {
			w.Header().Set("Tandem-Receipt", "won")
			w.WriteHeader(status)
			return
		}
	}
	w.Header().Set("Content-Type", outcome.OutcomesType)
	_, _ = w.Write(outcome.Append(nil, outcomes))
}

func (f *together) read(look func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	look()
}

func startTogether(t *testing.T, server *natstest.Server, f *together, p *progress, batch int, cfg delivery.Config) running {
	t.Helper()

	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Function, cfg.BackoffBase, cfg.BackoffCap = "flights", time.Millisecond, 20*time.Millisecond
	delivery, err := delivery.New(f.server.URL, f.server.URL+"/dead-letters", cfg)
	if err != nil {
		t.Fatal(err)
	}
	source, err := source.New(eventing.StreamList{stream}, delivery, p, source.Config{
		Function: "flights", Batch: batch, SaveInterval: saveInterval,
	})
	if err != nil {
		t.Fatal(err)
	}
	return running{source: source, stop: run(t, source)}
}

func TestEventsGoTogetherThatWaitTogether(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 3000)
	f, p := newTogether(t), &progress{}
	f.pause, f.hold = 5*time.Millisecond, make(chan struct{})
	startTogether(t, server, f, p, 100, delivery.Config{})
	eventtest.Reaches(t, "messages wait", 3001, func() int { return p.head("EVENTS") })
	close(f.hold)
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 3001 })
	f.read(func() {
		if len(f.done) != 3000 {
			t.Errorf("%d events are done", len(f.done))
		}
		for id, times := range f.done {
			if times != 1 {
				t.Errorf("%s was done %d times", id, times)
			}
		}
		if largest := slices.Max(f.batches); largest > 100 || len(f.batches) > 300 {
			t.Errorf("%d batches, the largest of %d", len(f.batches), largest)
		}
	})

	// No event waits for a batch to fill.
	eventtest.Publish(t, server, "EVENTS", 3001, 1)
	eventtest.Eventually(t, "one alone is acknowledged", func() bool { return p.floor("EVENTS") == 3002 })
}

func TestWhatABatchIsRefusedForIsSaidOfNoGoodEvent(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 2000)
	bad := map[string]int{
		"test-000007": 422, "test-000008": 500, "test-000500": 400, "test-001500": 413, "test-001501": 500, "test-001999": 401,
	}
	f, p := newTogether(t), &progress{}
	begun := time.Now()
	f.status = func(id string, alone bool) int {
		if bad[id] == http.StatusUnauthorized && time.Since(begun) > 2*time.Second {
			return http.StatusNoContent
		}
		if bad[id] == 0 {
			return http.StatusNoContent
		}
		return bad[id]
	}
	f.pause = time.Millisecond
	startTogether(t, server, f, p, 50, delivery.Config{TryFor: 500 * time.Millisecond})
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 2001 })
	f.read(func() {
		if len(f.done) != 1995 {
			t.Errorf("%d events are done, want 1995", len(f.done))
		}
		for id := range f.tried {
			if bad[id] == 0 && f.tried[id] != 1 {
				t.Errorf("%s, which is good, was sent %d times", id, f.tried[id])
			}
		}
		if len(f.letters) != 5 {
			t.Errorf("%d dead letters, want 5", len(f.letters))
		}
		for id, letter := range f.letters {
			code, tries := fmt.Sprint(letter.Extensions()["knativeerrorcode"]), fmt.Sprint(letter.Extensions()["tandemattempts"])
			if code != fmt.Sprint(bad[id]) || tries != fmt.Sprint(f.tried[id]) {
				t.Errorf("%s is dead with code %s after %s attempts, want %d after %d", id, code, tries, bad[id], f.tried[id])
			}
		}
	})
}

func TestAFunctionThatTakesNoBatchesGetsEventsOneByOne(t *testing.T) {
	t.Parallel()

	for _, status := range []int{http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusInternalServerError, http.StatusNotImplemented} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			const events = 1500
			eventtest.Publish(t, server, "EVENTS", 1, events)
			f, p := newTogether(t), &progress{}
			f.refuses = status
			startTogether(t, server, f, p, 10, delivery.Config{})
			eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == events+1 })
			f.read(func() {
				if len(f.done) != events || len(f.letters) != 0 {
					t.Errorf("%d events are done, %d dead", len(f.done), len(f.letters))
				}
				// Batches after 1, 2, 4, … s; otherwise each event would be in one of 150.
				if len(f.batches) > 100 {
					t.Errorf("%d batches were sent to a sink that takes none", len(f.batches))
				}
			})
		})
	}
}

func TestAFunctionThatIsAwayGetsBatchesAgain(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 2000)
	f, p := newTogether(t), &progress{}
	var away sync.Map
	away.Store("away", true)
	f.status = func(string, bool) int {
		if gone, _ := away.Load("away"); gone == true {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	}
	startTogether(t, server, f, p, 20, delivery.Config{TryFor: 100 * time.Millisecond})
	time.Sleep(2 * time.Second)
	away.Store("away", false)
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 2001 })
	f.read(func() {
		if len(f.done) != 2000 || len(f.letters) != 0 {
			t.Errorf("%d events are done, %d dead", len(f.done), len(f.letters))
		}
	})
}

// Data that is sent as JSON and is not valid could end its event and begin another one.
func TestNoEventIsSmuggledIntoABatch(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		e := eventtest.NewEvent(fmt.Sprintf("test-%06d", i+1))
		if i%10 == 3 {
			e.DataEncoded = []byte(`1},{"specversion":"1.0","id":"smuggled","source":"/else","type":"x","data":2`)
		}
		eventtest.Eventually(t, "it is stored", func() bool { return publisher.Publish(t.Context(), []event.Event{e}) == nil })
	}
	f, p := newTogether(t), &progress{}
	f.pause, f.hold = 5*time.Millisecond, make(chan struct{})
	startTogether(t, server, f, p, 20, delivery.Config{})
	eventtest.Reaches(t, "messages wait", 101, func() int { return p.head("EVENTS") })
	close(f.hold)
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 101 })
	f.read(func() {
		if len(f.done) != 100 || f.done["smuggled"] != 0 || len(f.batches) == 0 {
			t.Errorf("%d events are done in %d batches, one that was never sent %d times", len(f.done), len(f.batches), f.done["smuggled"])
		}
	})
}
