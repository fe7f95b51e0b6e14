package source_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/source"
)

// evenDone returns a ledger that has every second event.
func evenDone(events int) *testLedger {
	l := &testLedger{done: map[string]bool{}}
	for n := 0; n <= events; n += 2 {
		l.done[fmt.Sprintf("test-%06d", n)] = true
	}
	return l
}

func TestASourceThatIsBehindDeliversOnlyWhatIsNotDone(t *testing.T) {
	t.Parallel()

	for name, cfg := range map[string]source.Config{
		"one by one": {InFlight: 8, CatchUpLag: time.Millisecond},
		"batches":    {InFlight: 8, Batch: 5, CatchUpLag: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			const events = 3000
			server := natstest.Start(t)
			eventtest.Publish(t, server, "EVENTS", 1, events)
			f := newFunction(t)
			p := &progress{}
			cfg.Ledger = evenDone(events)
			hedging(t, server, f, p, cfg)
			eventtest.Reaches(t, "the floor", events+1, func() int { return int(p.floor("EVENTS")) })
			// When few messages wait, all of them are delivered without a lookup.
			if done, last := f.count(), 4*max(8, 20)+1; done < events/2 || done > events/2+last {
				t.Errorf("%d events were delivered, want %d, and of the last %d all", done, events/2, last)
			}
			for n := 1; n <= events; n += 2 {
				if id := fmt.Sprintf("test-%06d", n); cfg.Batch == 0 && f.tried("/ "+id) != 1 {
					t.Errorf("%s was delivered %d times", id, f.tried("/ "+id))
				}
			}
		})
	}
}

func TestASourceThatIsNotBehindDeliversAtOnce(t *testing.T) {
	t.Parallel()

	for name, cfg := range map[string]source.Config{
		"not for long": {CatchUpLag: time.Hour},
		"never":        {InFlight: 8, CatchUpLag: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			eventtest.Publish(t, server, "EVENTS", 1, 500)
			f := newFunction(t)
			l := &testLedger{all: true}
			cfg.Ledger = l
			hedging(t, server, f, &progress{}, cfg)
			f.waitFor(t, 500)
			if questions, _ := l.asked(); questions > 0 {
				t.Errorf("the ledger was asked %d times", questions)
			}
		})
	}
}

func TestASourceThatIsBehindDoesNotStormAFunctionThatIsAway(t *testing.T) {
	t.Parallel()

	const inFlight = 8
	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 2000)
	f := newFunction(t)
	seen := make(chan string, 100_000)
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		seen <- e.ID()
		return http.StatusServiceUnavailable
	})
	p := &progress{}
	hedging(t, server, f, p, source.Config{InFlight: inFlight, Ledger: &testLedger{}, CatchUpLag: time.Millisecond})
	tried, begun := map[string]bool{}, time.Now()
	for time.Since(begun) < 3*time.Second || len(tried) == 0 {
		select {
		case id := <-seen:
			tried[id] = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	if most := inFlight * (1 + time.Since(begun).Seconds()); float64(len(tried)) > most { // some more each second
		t.Errorf("%d events were tried, want not many more than the %d that are delivered at once", len(tried), inFlight)
	}
	f.answer(nil)
	eventtest.Reaches(t, "the floor", 2001, func() int { return int(p.floor("EVENTS")) })
}

func TestIfTheLedgerIsAwayWhoIsBehindDelivers(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 1000)
	f := newFunction(t)
	p := &progress{}
	hedging(t, server, f, p, source.Config{InFlight: 8, Ledger: &testLedger{broken: true}, CatchUpLag: time.Millisecond})
	f.waitFor(t, 1000)
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 1001 })
}
