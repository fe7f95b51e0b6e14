package source_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

func TestEventsThatBreakTheFunctionDoNotHoldUpOthers(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name      string
		bad, code int
		takes     time.Duration
	}{
		// More than the 32 that are delivered at once, and the 64 that are held.
		{name: "answered 500", bad: 300, code: http.StatusInternalServerError},
		// The events are due more often than the function can answer, as on a slow machine:
		// redeliveries must leave time for first attempts.
		{name: "answered 500 slowly", bad: 300, code: http.StatusInternalServerError, takes: 100 * time.Millisecond},
		// A function that is unavailable would answer like this too, and these events
		// leave no room for others.
		{name: "answered 503", bad: 50, code: http.StatusServiceUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			eventtest.Publish(t, server, "EVENTS", 1, tt.bad)
			eventtest.Publish(t, server, "EVENTS", 1001, 400)
			f := newFunction(t)
			var well atomic.Bool
			var all atomic.Int64 // attempts when each event had one
			f.answer(func(_ http.ResponseWriter, r *http.Request, e event.Event) int {
				if e.ID() < "test-001000" && !well.Load() {
					if events, attempts := f.attempted("test-001000"); events == tt.bad {
						all.CompareAndSwap(0, int64(attempts))
					}
					time.Sleep(tt.takes)
					return tt.code
				}
				return http.StatusNoContent
			})
			p := &progress{}
			startSource(t, server, f.url(), p)
			// The failing events are delivered first. How long that takes depends on the machine, and on
			// how often a function that answers 503 is probed. Each event is attempted once
			// before one is attempted endlessly.
			eventtest.Reaches(t, "events that break the function are attempted", tt.bad, func() int {
				events, _ := f.attempted("test-001000")
				return events
			})
			eventtest.Eventually(t, "the function has the last of them", func() bool { return all.Load() > 0 })
			if attempts := int(all.Load()); tt.takes > 0 && attempts > 2*tt.bad {
				t.Errorf("%d attempts of %d events that break the function before the first of the others", attempts, tt.bad)
			}
			f.waitFor(t, 400)
			if got := p.floor("EVENTS"); got > uint64(tt.bad) {
				t.Errorf("floor %d, though what breaks the function is not done", got)
			}
			well.Store(true)
			f.waitFor(t, 400+tt.bad)
			eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == uint64(401+tt.bad) })
		})
	}
}

func TestTheBytesInMemoryAreBounded(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	large := make([]byte, 200<<10)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		e := eventtest.NewEvent(fmt.Sprintf("test-%06d", i))
		e.SetDataContentType("application/octet-stream")
		e.DataEncoded = large
		eventtest.Eventually(t, "it is stored", func() bool { return publisher.Publish(t.Context(), []event.Event{e}) == nil })
	}
	f := newFunction(t)
	hold := make(chan struct{})
	var most, now atomic.Int32
	f.answer(func(http.ResponseWriter, *http.Request, event.Event) int {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-hold
		now.Add(-1)
		return http.StatusNoContent
	})
	p := &progress{}
	hedging(t, server, f, p, source.Config{MaxBytes: 1 << 20})
	eventtest.Eventually(t, "some are being delivered", func() bool { return now.Load() >= 2 })
	time.Sleep(500 * time.Millisecond)
	close(hold)
	f.waitFor(t, 40)
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 41 })
	if got := most.Load(); got > 5 {
		t.Errorf("%d events of 200 KiB were held at once, with a bound of 1 MiB", got)
	}

	// One event is larger than all that may be held, and is delivered alone.
	e := eventtest.NewEvent("test-000040")
	e.SetDataContentType("application/octet-stream")
	e.DataEncoded = make([]byte, 1000<<10)
	eventtest.Eventually(t, "it is stored", func() bool { return publisher.Publish(t.Context(), []event.Event{e}) == nil })
	f.waitFor(t, 41)
}

func TestABacklogDoesNotGrowTheMemory(t *testing.T) { //nolint:paralleltest // it measures the heap
	server := natstest.Start(t)
	const backlog = 30_000
	eventtest.Publish(t, server, "EVENTS", 1, backlog)
	f := newFunction(t)
	f.answer(func(http.ResponseWriter, *http.Request, event.Event) int { return http.StatusServiceUnavailable })
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	const maxBytes, stub = 4 << 20, 512
	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	p := &progress{}
	s, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.url(), f.url()), p, source.Config{
		Function: "flights", MaxBytes: maxBytes, SaveInterval: saveInterval,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	const most = maxBytes / stub
	eventtest.Reaches(t, "messages are read as far as they may wait", most*9/10, func() int { return p.head("EVENTS") })
	time.Sleep(time.Second)
	// The server is in this process too, and keeps what it has read for a while.
	if grown := heap() - before; grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB with a backlog of %d", grown>>20, backlog)
	}
	if read := p.head("EVENTS") - 1; read > most {
		t.Errorf("%d messages are read, want at most %d", read, most)
	}
}

func TestAnEventThatKeepsBreakingTheFunctionIsADeadLetterAfterAWhile(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 20)
	f := newFunction(t)
	letters := make(chan event.Event, 10)
	var away atomic.Bool
	f.answer(func(_ http.ResponseWriter, r *http.Request, e event.Event) int {
		switch {
		case r.URL.Path == "/dead-letters":
			letters <- e
		case e.ID() == "test-000007" && away.Load():
			return http.StatusServiceUnavailable
		case e.ID() == "test-000007":
			return http.StatusInternalServerError
		case e.ID() == "test-000008" && f.tried("/ "+e.ID()) < 3:
			return http.StatusInternalServerError // the function recovers before the third answer, which would make it a dead letter
		case e.ID() == "test-000009" && f.tried("/ "+e.ID()) < 30:
			return []int{503, 401, 403, 404, 415, 502}[f.tried("/ "+e.ID())%6] // never counts as an attempt
		}
		return http.StatusNoContent
	})
	p := &progress{}
	conn := eventtest.Connect(t, server, nil)
	stream, err := jetstream.NewStream(conn, "west", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	logger, lines := eventtest.Logger()
	delivery, err := delivery.New(f.url(), f.url()+"/dead-letters", delivery.Config{
		Function: "flights", BackoffBase: time.Millisecond, BackoffCap: 50 * time.Millisecond, TryFor: 2 * time.Second, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	source, err := source.New(eventing.StreamList{stream}, delivery, p, source.Config{Function: "flights", SaveInterval: saveInterval})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	run(t, source)
	f.waitFor(t, 19)
	away.Store(true)
	time.Sleep(2 * time.Second) // this time does not count
	away.Store(false)
	letter := <-letters
	if took := time.Since(begun); took < 3500*time.Millisecond {
		t.Errorf("dead after %s: the time without an answer was counted", took)
	}
	if letter.ID() != "test-000007" || letter.Extensions()["knativeerrorcode"] != "500" || letter.Extensions()["tandemattempts"] == "0" {
		t.Errorf("dead letter %v", letter)
	}
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 21 })
	select {
	case letter := <-letters:
		t.Errorf("another dead letter: %v", letter)
	default:
	}
	if log := strings.Join(lines(), ""); strings.Count(log, "event rejected; it is a dead letter now") != 1 {
		t.Errorf("log:\n%s", log)
	}
}
