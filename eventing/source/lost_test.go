package source_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	natsjs "github.com/nats-io/nats.go/jetstream"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// storedAttempts is a [source.Attempts] in memory, of one stream. The real one is ledger's.
type storedAttempts struct {
	mu    sync.Mutex
	epoch string
	rows  map[uint64]ledger.EventAttempts
}

func (a *storedAttempts) Save(_ context.Context, _, _, epoch string, attempts []ledger.EventAttempts, settled []uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.epoch = epoch
	if a.rows == nil {
		a.rows = map[uint64]ledger.EventAttempts{}
	}
	for _, e := range attempts {
		a.rows[e.Sequence] = e
	}
	for _, sequence := range settled {
		delete(a.rows, sequence)
	}
	return nil
}

func (a *storedAttempts) Load(_ context.Context, _, _, epoch string) (list []ledger.EventAttempts, stale int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.epoch != epoch {
		stale, a.rows = len(a.rows), nil
	}
	return slices.Collect(maps.Values(a.rows)), stale, nil
}

func (a *storedAttempts) sequences() []uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.rows))
}

// failing is a source that is started several times, with a function that fails on some
// events.
type failing struct {
	server   *natstest.Server
	function *function
	attempts *storedAttempts
	progress *progress
	logger   *slog.Logger
	lines    func() []string
	metrics  *sdkmetric.ManualReader // of the latest start
}

func newFailing(t *testing.T, ids ...string) *failing {
	t.Helper()

	f := &failing{server: natstest.Start(t), function: newFunction(t), attempts: &storedAttempts{}, progress: &progress{}}
	f.logger, f.lines = eventtest.Logger()
	f.function.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if slices.Contains(ids, e.ID()) {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	return f
}

func (f *failing) start(t *testing.T) running {
	t.Helper()

	f.metrics = sdkmetric.NewManualReader()
	counted, err := source.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(f.metrics)), "east", "flights")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := jetstream.NewStream(eventtest.Connect(t, f.server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.function.url(), f.function.url()+"/dead-letters"), f.progress, source.Config{
		Function: "flights", SaveInterval: saveInterval, Metrics: counted, Logger: f.logger, Attempts: f.attempts,
	})
	if err != nil {
		t.Fatal(err)
	}
	return running{source: s, stop: run(t, s)}
}

// stored returns the stream.
func (f *failing) stored(t *testing.T) natsjs.Stream {
	t.Helper()

	js := natstest.JetStream(t, f.server.URL())
	stream, err := js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func (f *failing) gone(t *testing.T, want float64) {
	t.Helper()

	eventtest.Eventually(t, "lost events are counted", func() bool { return collect(t, f.metrics)["tandem_source_gone"] >= want })
	if got := collect(t, f.metrics)["tandem_source_gone"]; got != want {
		t.Errorf("%v messages are counted, want %v", got, want)
	}
}

// holds waits until the given number of events is in flight.
func (f *failing) holds(t *testing.T, events float64) {
	t.Helper()

	eventtest.Eventually(t, "failing events are in flight", func() bool { return collect(t, f.metrics)["tandem_source_held"] == events })
}

func (f *failing) logged(t *testing.T, text string) {
	t.Helper()

	n := 0
	eventtest.Eventually(t, "the log has "+text, func() bool { // a moment after it is counted
		n = 0
		for _, line := range f.lines() {
			if strings.Contains(line, text) {
				n++
			}
		}
		return n > 0
	})
	if n != 1 {
		t.Errorf("%d lines have %q, want one: %q", n, text, f.lines())
	}
}

func TestFailingEventsThatTheStreamDeletesAreCountedWhenNoProcessHasThem(t *testing.T) {
	t.Parallel()

	f := newFailing(t, "test-000003", "test-000005")
	eventtest.Publish(t, f.server, "EVENTS", 1, 6)
	first := f.start(t)
	eventtest.Eventually(t, "their attempts are stored", func() bool { return cmp.Equal(f.attempts.sequences(), []uint64{3, 5}) })
	f.function.waitFor(t, 4)
	first.stop()

	// This process has them in memory, so they are not lost even if the stream has
	// deleted them.
	second := f.start(t)
	f.holds(t, 2)
	if err := f.stored(t).Purge(t.Context(), natsjs.WithPurgeSequence(4)); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "the floor is above the one that was deleted", func() bool { return f.progress.floor("EVENTS") == 5 })
	time.Sleep(5 * saveInterval)
	f.holds(t, 2)
	if got := f.attempts.sequences(); !cmp.Equal(got, []uint64{3, 5}) {
		t.Errorf("attempts of %v are stored, want those of 3 and 5", got)
	}
	f.gone(t, 0)
	second.stop()

	// A process ended before it could save that 4 was finished.
	if err := f.attempts.Save(t.Context(), "", "", f.attempts.epoch, []ledger.EventAttempts{{Sequence: 4, Attempts: 1}}, nil); err != nil {
		t.Fatal(err)
	}
	third := f.start(t)
	f.gone(t, 1)
	eventtest.Eventually(t, "the attempts of lost and settled ones are deleted", func() bool { return cmp.Equal(f.attempts.sequences(), []uint64{5}) })
	f.logged(t, "lost for this cluster")
	f.logged(t, "from=3 messages=1")
	third.stop()

	// The next process finds nothing to count.
	f.start(t)
	f.holds(t, 1)
	time.Sleep(5 * saveInterval)
	f.gone(t, 0)
}

// For an event whose function is unavailable, no attempts are stored.
func TestWaitingEventsThatTheStreamDeletesAreCountedWhenTheProcessEnds(t *testing.T) {
	t.Parallel()

	f := newFailing(t)
	f.function.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if e.ID() == "test-000003" || e.ID() == "test-000005" {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	})
	eventtest.Publish(t, f.server, "EVENTS", 1, 6)
	s := f.start(t)
	f.function.waitFor(t, 4)
	if err := f.stored(t).Purge(t.Context(), natsjs.WithPurgeSequence(4)); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "the floor is above the one that was deleted", func() bool { return f.progress.floor("EVENTS") == 5 })
	f.gone(t, 0)
	s.stop()
	f.gone(t, 1)
	f.logged(t, "from=3 messages=1")
}

func TestEventsThatAreLostWithTheirStreamAreCounted(t *testing.T) {
	t.Parallel()

	f := newFailing(t, "test-000003", "test-000005")
	eventtest.Publish(t, f.server, "EVENTS", 1, 6)
	recreate := func() {
		t.Helper()
		stream := f.stored(t)
		cfg := stream.CachedInfo().Config
		js := natstest.JetStream(t, f.server.URL())
		if err := js.DeleteStream(t.Context(), "EVENTS"); err != nil {
			t.Fatal(err)
		}
		eventtest.Eventually(t, "the stream is created again", func() bool {
			_, err := js.CreateStream(t.Context(), cfg)
			return err == nil
		})
	}

	first := f.start(t)
	eventtest.Eventually(t, "their attempts are stored", func() bool { return cmp.Equal(f.attempts.sequences(), []uint64{3, 5}) })
	f.function.waitFor(t, 4)
	eventtest.Eventually(t, "the rest is acknowledged", func() bool { return collect(t, f.metrics)["tandem_source_unacknowledged"] == 2 })
	recreate()
	f.gone(t, 2)
	f.logged(t, "unfinished messages of the old stream are lost for this cluster")
	eventtest.Publish(t, f.server, "EVENTS", 1, 6)
	eventtest.Eventually(t, "their attempts are stored", func() bool { return cmp.Equal(f.attempts.sequences(), []uint64{3, 5}) })
	first.stop()

	recreate()
	f.start(t)
	f.gone(t, 2)
	f.logged(t, "while failing events of it waited for a retry")
}

// An event behind a dead letter whose payload is only in the stream, and which the
// stream deletes, delays no later event of its subject.
func TestAnEventThatIsGoneBeforeItIsStoredHoldsNoOther(t *testing.T) {
	t.Parallel()

	f := newFailing(t)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, f.server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	const total = 400
	for n := 1; n <= total; n += 100 {
		events := make([]event.Event, 100)
		for i := range events {
			events[i] = eventtest.NewEvent(fmt.Sprintf("test-%06d", n+i))
			events[i].SetSubject("hot")
			events[i].DataEncoded = []byte(`"` + strings.Repeat("x", 4000) + `"`) // more than memory has room for
		}
		eventtest.Eventually(t, "they are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
	}
	j := newJournal(total+1, 1)
	j.refused = "hot"
	f.metrics = sdkmetric.NewManualReader()
	counted, err := source.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(f.metrics)), "east", "flights")
	if err != nil {
		t.Fatal(err)
	}
	startOrdered(t, f.server, j, "east", j.functionOf(t, "east", nil), f.progress, source.Config{MaxBytes: 1 << 20, Metrics: counted})
	eventtest.Eventually(t, "all are received", func() bool { return f.progress.head("EVENTS") == total+1 })
	if err := f.stored(t).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	j.refused = ""
	j.mu.Unlock()
	eventtest.Eventually(t, "each is stored or counted", func() bool {
		j.mu.Lock()
		stored := len(j.stored["east"])
		j.mu.Unlock()
		gone := int(collect(t, f.metrics)["tandem_source_gone"])
		return gone > 0 && stored+gone == total-1
	})
}
