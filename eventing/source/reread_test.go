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

// TestAnOrdinaryRestartKeepsTheConsumer starts a source again whose last checkpoint was not
// saved, as when it was killed.
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
	// The database has lost one of the commits, and the function takes its time with it.
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
	s.stop() // before it is settled: the next one has to look, too

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
