package source_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// failOver restores the database to the rows of a lagging standby.
func (p *progress) failOver(rows map[string]ledger.Checkpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows = rows
	p.timeline += "+"
}

// snapshot returns the rows that the standby has.
func (p *progress) snapshot() map[string]ledger.Checkpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.rows)
}

// adopted reports whether a checkpoint is saved on the database's current timeline.
func (p *progress) adopted(stream string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rows[stream].Timeline == "db/"+p.timeline
}

// timesOf returns how often an event was delivered.
func (f *function) timesOf(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done[id]
}

// rewinds returns the log lines that report a rewind.
func rewinds(lines []string) (said []string) {
	for _, line := range lines {
		if strings.Contains(line, "is re-read") {
			said = append(said, line)
		}
	}
	return said
}

func TestAfterAFailoverEverythingFromTheSurvivingFloorComesAgain(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	eventtest.Publish(t, server, "OTHER", 1001, 50)
	f := newFunction(t)
	p := &progress{}
	logger, lines := eventtest.Logger()
	startLogged(t, server, f.url(), p, logger, "EVENTS", "OTHER")
	through := func(events, other uint64) func() bool {
		return func() bool { return p.floor("EVENTS") == events && p.floor("OTHER") == other }
	}
	eventtest.Eventually(t, "progress is saved", through(101, 51))
	standby := p.snapshot()
	eventtest.Publish(t, server, "EVENTS", 101, 200)
	eventtest.Eventually(t, "progress is saved", through(301, 51))

	// No more events arrive, and the failover is still detected.
	p.failOver(standby)
	eventtest.Eventually(t, "all of it is redelivered", func() bool { return f.repeats() == 200 })
	eventtest.Eventually(t, "progress is saved again", func() bool { return through(301, 51)() && p.adopted("EVENTS") && p.adopted("OTHER") })
	if got := f.timesOf("test-000100") + f.timesOf("test-001001"); got != 2 {
		t.Errorf("what had survived was delivered %d times, want twice", got)
	}
	said := rewinds(lines())
	if len(said) != 1 || !strings.Contains(said[0], "stream=EVENTS from=101 messages=200 timeline=db/+ timeline_before=db/") {
		t.Errorf("the log has %q", said)
	}

	// Another failover, to a standby that never saw the cluster.
	p.failOver(nil)
	eventtest.Eventually(t, "everything is redelivered", func() bool { return f.repeats() == 200+350 })
	eventtest.Eventually(t, "progress is saved again", func() bool { return through(301, 51)() && p.adopted("EVENTS") })
}

// failBack restores the database to a former primary, with the rows that it had when it was
// lost.
func (p *progress) failBack(rows map[string]ledger.Checkpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rows = rows
	p.timeline = strings.TrimSuffix(p.timeline, "+")
}

func TestAfterAFailoverAndBackEverythingFromTheSurvivingFloorIsDeliveredAgain(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f := newFunction(t)
	blocked := make(chan struct{})
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if e.ID() == "test-000101" {
			<-blocked
		}
		return http.StatusNoContent
	})
	p := &progress{}
	startSource(t, server, f.url(), p)
	saved := func(floor uint64) {
		t.Helper()
		eventtest.Eventually(t, fmt.Sprintf("floor %d is saved", floor), func() bool { return p.floor("EVENTS") == floor && p.adopted("EVENTS") })
	}
	saved(101)
	former, standby := p.snapshot(), p.snapshot()

	// On the new primary the floor does not rise: its first event hangs.
	p.failOver(standby)
	saved(101)
	eventtest.Publish(t, server, "EVENTS", 101, 50)
	js := native(t, server)
	eventtest.Eventually(t, "the others are acknowledged", func() bool {
		consumer, err := js.Consumer(t.Context(), "EVENTS", "tandem-east-flights")
		return err == nil && consumer.CachedInfo().Delivered.Stream == 150 && consumer.CachedInfo().NumAckPending == 1
	})

	// The former primary has not committed these events. Its floor is that of the new
	// one.
	p.failBack(former)
	eventtest.Eventually(t, "they are delivered again", func() bool { return f.repeats() >= 49 })
	close(blocked)
	saved(151)
	for i := 102; i <= 150; i++ {
		if id := fmt.Sprintf("test-%06d", i); f.timesOf(id) < 2 {
			t.Errorf("%s was delivered %d times, want once on each primary", id, f.timesOf(id))
		}
	}
	if got := f.timesOf("test-000100"); got != 1 {
		t.Errorf("what both primaries have was delivered %d times, want once", got)
	}
}

func TestASourceThatWasAwayDuringTheFailoverRewinds(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f := newFunction(t)
	p := &progress{}
	s := startSource(t, server, f.url(), p)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 101 })
	standby := p.snapshot()
	eventtest.Publish(t, server, "EVENTS", 101, 50)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 151 })
	s.stop()
	p.failOver(standby)

	s = startSource(t, server, f.url(), p)
	eventtest.Eventually(t, "lost commits are redelivered", func() bool { return f.repeats() == 50 })
	eventtest.Eventually(t, "progress is saved again", func() bool { return p.floor("EVENTS") == 151 && p.adopted("EVENTS") })
	s.stop()

	// A completed rewind is not repeated.
	logger, lines := eventtest.Logger()
	startLogged(t, server, f.url(), p, logger, "EVENTS")
	eventtest.Publish(t, server, "EVENTS", 151, 10)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 161 })
	if f.repeats() != 50 || len(rewinds(lines())) != 0 {
		t.Errorf("%d events were redelivered, want the 50 before; log: %q", f.repeats(), rewinds(lines()))
	}
}

func TestADatabaseThatWasPutBackOnTheSameTimelineIsNoticed(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f := newFunction(t)
	p := &progress{}
	s := startSource(t, server, f.url(), p)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 101 })
	copied := p.snapshot()
	putBack := func() { p.set(func(p *progress) { p.rows = maps.Clone(copied) }) }
	eventtest.Publish(t, server, "EVENTS", 101, 50)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 151 })
	putBack() // while it runs
	eventtest.Eventually(t, "lost commits are redelivered", func() bool { return f.repeats() == 50 })
	eventtest.Eventually(t, "progress is saved again", func() bool { return p.floor("EVENTS") == 151 })
	s.stop()
	putBack() // while it does not run
	startSource(t, server, f.url(), p)
	eventtest.Eventually(t, "lost commits are redelivered", func() bool { return f.repeats() == 100 })
}

func TestAnAnswerFromBeforeTheFailoverIsNotBelieved(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 20)
	f := newFunction(t)
	committed, again := make(chan struct{}), make(chan struct{})
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if e.ID() != "test-000005" {
			return http.StatusNoContent
		}
		if f.tried("/ test-000005") > 1 {
			<-again // the new primary is slow
			return http.StatusNoContent
		}
		<-committed // on the old primary, whose answer is late
		return http.StatusNoContent
	})
	p := &progress{}
	startSource(t, server, f.url(), p)
	eventtest.Eventually(t, "the floor is at the one that takes its time", func() bool { return p.floor("EVENTS") == 5 })
	p.failOver(p.snapshot())
	eventtest.Eventually(t, "it is redelivered", func() bool { return f.tried("/ test-000005") == 2 })
	close(committed)
	f.waitFor(t, 20)
	time.Sleep(10 * saveInterval)
	if got := p.floor("EVENTS"); got != 5 {
		t.Errorf("floor %d: an answer to a request from before the failover was believed", got)
	}
	close(again)
	eventtest.Eventually(t, "the floor rises", func() bool { return p.floor("EVENTS") == 21 })
	// Events acknowledged above the floor were redelivered too.
	if got := f.timesOf("test-000020"); got != 2 {
		t.Errorf("the last event was done %d times, want twice", got)
	}
}

func TestARewindThatWasInterruptedIsDoneByTheNext(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f := newFunction(t)
	p := &progress{}
	s := startSource(t, server, f.url(), p)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 101 })
	js := native(t, server)
	for i, interrupted := range []func(){
		func() {}, // after the due rewind was recorded
		func() { // after the consumer was deleted
			if err := js.DeleteConsumer(t.Context(), "EVENTS", "tandem-east-flights"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		s.stop()
		p.set(func(p *progress) {
			p.rows["EVENTS"] = ledger.Checkpoint{Epoch: p.rows["EVENTS"].Epoch, Floor: 61}
		})
		interrupted()
		s = startSource(t, server, f.url(), p)
		eventtest.Eventually(t, "lost commits are redelivered", func() bool { return f.repeats() == 40*(i+1) })
		eventtest.Eventually(t, "progress is saved again", func() bool { return p.floor("EVENTS") == 101 && p.adopted("EVENTS") })
	}
	if got := f.timesOf("test-000060"); got != 1 {
		t.Errorf("what had survived was delivered %d times", got)
	}
}

func TestAfterARewindTheLedgerIsAskedFirst(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f := newFunction(t)
	p := &progress{}
	// Of the acknowledged events, the ledger has every second one.
	l := &testLedger{done: map[string]bool{}}
	hedging(t, server, f, p, source.Config{Ledger: l})
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 101 })
	for i := 2; i <= 100; i += 2 {
		l.set(func(l *testLedger) { l.done[fmt.Sprintf("test-%06d", i)] = true })
	}
	p.failOver(nil)
	eventtest.Eventually(t, "progress is saved again", func() bool { return p.floor("EVENTS") == 101 && p.adopted("EVENTS") })
	if got := f.repeats(); got != 50 {
		t.Errorf("%d events were delivered again, want the 50 that the ledger has not", got)
	}
}

func native(t *testing.T, server *natstest.Server) natsjs.JetStream {
	t.Helper()

	js := natstest.JetStream(t, server.URL())
	return js
}

func TestWhoDeletesTheConsumerGetsEverythingAgain(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f := newFunction(t)
	p := &progress{horizon: 11}
	s := startSource(t, server, f.url(), p)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 101 })
	s.stop()
	if err := native(t, server).DeleteConsumer(t.Context(), "EVENTS", "tandem-east-flights"); err != nil {
		t.Fatal(err)
	}
	startSource(t, server, f.url(), p)
	eventtest.Eventually(t, "everything that the ledger remembers is redelivered", func() bool { return f.repeats() == 90 })
}
