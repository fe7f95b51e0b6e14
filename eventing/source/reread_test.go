package source_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/source"
)

// TestAnOrdinaryRestartKeepsTheConsumer restarts a source whose last checkpoint was not
// saved, as after a kill.
func TestAnOrdinaryRestartKeepsTheConsumer(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f, p := newFunction(t), &progress{}
	l := &testLedger{done: map[string]bool{}}
	s := hedging(t, server, f, p, source.Config{Ledger: l})
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 101 })
	s.stop()
	p.set(func(p *progress) {
		row := p.rows["EVENTS"]
		row.Floor = 61
		p.rows["EVENTS"] = row
	})
	// The database has lost one of the commits, and the function is slow to repeat it.
	for i := 1; i <= 100; i++ {
		l.done[fmt.Sprintf("test-%06d", i)] = i != 70
	}
	again := make(chan struct{})
	f.answer(func(http.ResponseWriter, *http.Request, event.Event) int {
		<-again
		return http.StatusNoContent
	})
	created := func() any {
		consumer, err := native(t, server).Consumer(t.Context(), "EVENTS", "tandem-west-flights")
		if err != nil {
			t.Fatal(err)
		}
		return consumer.CachedInfo().Created
	}
	before := created()

	s = hedging(t, server, f, p, source.Config{Ledger: l})
	eventtest.Eventually(t, "the lost one is delivered again, and the rest looked up", func() bool {
		return f.tried("/ test-000070") == 2 && p.floor("EVENTS") == 70
	})
	s.stop() // before the event is finished: the next process has to look it up, too

	hedging(t, server, f, p, source.Config{Ledger: l, Hedge: eventing.Hedge{}})
	eventtest.Eventually(t, "it is delivered once more", func() bool { return f.tried("/ test-000070") == 3 })
	if floor := p.floor("EVENTS"); floor != 70 {
		t.Errorf("floor %d was saved before the event was settled", floor)
	}
	close(again)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 101 })
	if after := created(); after != before {
		t.Errorf("the consumer was created again at %v", after)
	}
	if got := f.tried("/ test-000069") + f.tried("/ test-000071"); got != 2 {
		t.Errorf("others were delivered again")
	}
}

// TestADeadEventIsNotTriedAgainAfterARestart has a slow event at the floor, so that messages
// acknowledged above it are read again.
func TestADeadEventIsNotTriedAgainAfterARestart(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 20)
	f, p, j := newFunction(t), &progress{}, newJournal(20)
	l := &testLedger{done: map[string]bool{}}
	hold := make(chan struct{})
	f.answer(func(_ http.ResponseWriter, r *http.Request, e event.Event) int {
		switch {
		case r.URL.Path == "/dead-letters":
			j.letter("west", "", e.ID())
		case e.ID() == "test-000001":
			<-hold
		case e.ID() == "test-000005":
			return http.StatusUnprocessableEntity
		}
		l.set(func(l *testLedger) { l.done[e.ID()] = e.ID() != "test-000005" })
		return http.StatusNoContent
	})
	cfg := source.Config{Ledger: l, Blocked: verdictsOf{"west", j}}
	s := hedging(t, server, f, p, cfg)
	eventtest.Eventually(t, "all but the first are settled", func() bool { return f.count() == 19 && f.tried("/dead-letters test-000005") == 1 })
	s.stop()
	hedging(t, server, f, p, cfg)
	eventtest.Eventually(t, "the first is delivered again", func() bool { return f.tried("/ test-000001") == 2 })
	close(hold)
	eventtest.Eventually(t, "all are acknowledged", func() bool { return p.floor("EVENTS") == 21 })
	if tried, letters := f.tried("/ test-000005"), f.tried("/dead-letters test-000005"); tried != 1 || letters != 1 {
		t.Errorf("the dead event was tried %d times, with %d letters", tried, letters)
	}
}
