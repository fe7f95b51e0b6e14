package inflight

import (
	"fmt"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/delivery"
)

// receiveType adds n events of a type.
func (b *bench) receiveType(n int, eventType string) {
	b.t.Helper()
	for range n {
		b.next++
		m := &modelMessage{sequence: b.next, arrived: b.now, size: 100, kind: eventType, id: EventID{ID: fmt.Sprint(b.next)}}
		d := &delivery.Delivery{Event: event.New()}
		d.Event.SetType(eventType)
		if got := b.partition.Receive(m, d, m.id, ""); got != Added {
			b.t.Fatalf("receive %d: %d", b.next, got)
		}
	}
}

// sent is an attempt.
type sent struct {
	eventType string
	first     bool
	at        time.Time
}

// runTypes runs a function that answers at once with next, for a time, and returns the
// attempts. Events arrive as arrive adds them, once a millisecond.
func (b *bench) runTypes(d time.Duration, arrive func(), next func(eventType string) Next) (all []sent) {
	b.t.Helper()
	for end := b.now.Add(d); b.now.Before(end); b.now = b.now.Add(time.Millisecond) {
		arrive()
		for {
			_, entries, _ := b.request()
			if entries == nil {
				break
			}
			r := Request{Entries: entries, Took: time.Millisecond, Together: entries[0].GoesTogether()}
			for _, e := range entries {
				m, _ := e.Message.(*modelMessage)
				n := next(m.kind)
				all = append(all, sent{m.kind, e.attempts == 0, b.now})
				r.Answered = r.Answered || n != Unavailable
				r.Next, r.After = append(r.Next, n), append(r.After, 100*time.Millisecond)
				if e.Evicted {
					e.Fetched(e.Message)
				}
			}
			b.Complete(r)
		}
	}
	return all
}

func TestATypeThatIsUnavailableIsProbedAndResumedAtOnce(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{MaxBytes: 64 << 20})
	b.events = 1
	outage := func(eventType string) Next {
		if eventType == "bad" {
			return Unavailable
		}
		return Finish
	}
	arrive := func() {
		b.receiveType(1, "bad")
		b.receiveType(1, "good")
	}
	all := b.runTypes(10*time.Second, arrive, outage)
	bad, good := 0, 0
	for _, s := range all {
		if s.eventType == "good" {
			good++
		} else {
			bad++
		}
	}
	if good != 10_000 || bad < unavailableInRow+10_000/1250 || bad > 2*unavailableInRow+10_000/750+10 {
		t.Errorf("%d good events are sent, want all 10000; %d of the type that is unavailable, want about one a second", good, bad)
	}
	if held := b.Counts()[Held]; held < 9900 {
		t.Errorf("%d are held, want about all 10000", held)
	}

	b.now = b.now.Add(probeLimit * 5 / 4)
	b.runTypes(100*time.Millisecond, func() {}, func(string) Next { return Finish })
	if b.Counts() != [Finished]int{} {
		t.Errorf("100 ms after a probe passed, there are %v", b.Counts())
	}
}

// An event that is at fault itself is not the probe for ever.
func TestAProbeIsAnotherEventEachTime(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{})
	b.events = 1
	b.receiveType(unavailableInRow, "t")
	b.runTypes(time.Second, func() {}, func(string) Next { return Unavailable })
	if held := b.Counts()[Held]; held != unavailableInRow {
		t.Fatalf("%d are held", held)
	}
	b.receiveType(1, "t")
	last := b.next
	for range 5 {
		b.now = b.now.Add(2 * probeLimit)
		sequences, entries, _ := b.request()
		if len(entries) != 1 {
			t.Fatalf("%d probes are sent, want one", len(entries))
		}
		if sequences[0] == last {
			return
		}
		b.answer(entries, Unavailable, 0, 0)
	}
	t.Error("the event that was not tried yet is not among five probes")
}

func TestAProbeWithoutAnAnswerIsFollowedByAnother(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{})
	b.events = 1
	b.receiveType(2*unavailableInRow, "t")
	b.runTypes(time.Millisecond, func() {}, func(string) Next { return Unavailable })
	b.now = b.now.Add(2 * probeLimit)
	if _, entries, _ := b.request(); len(entries) != 1 {
		t.Fatalf("%d probes are sent, want one", len(entries))
	}
	if _, entries, wait := b.request(); entries != nil || wait != probeHang {
		t.Errorf("%d more probes are sent, and wait is %s, want to wait for %s", len(entries), wait, probeHang)
	}
	b.now = b.now.Add(probeHang)
	if _, entries, _ := b.request(); len(entries) != 1 {
		t.Errorf("after %s, %d probes are sent, want one", probeHang, len(entries))
	}
}

func TestAFunctionThatIsAwayIsProbedForOneTypeAtATime(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{MaxBytes: 64 << 20})
	b.events = 1
	const types = 50
	arrive := func() {
		for i := range types {
			b.receiveType(1, fmt.Sprint(i))
		}
	}
	b.runTypes(time.Second, arrive, func(string) Next { return Unavailable })
	all := b.runTypes(10*time.Second, func() {}, func(string) Next { return Unavailable })
	if len(all) > 20 {
		t.Errorf("%d probes in 10 s, want about one a second", len(all))
	}
	b.now = b.now.Add(2 * probeLimit)
	b.runTypes(100*time.Millisecond, func() {}, func(string) Next { return Finish })
	if n := b.Counts()[Held]; n > 0 {
		t.Errorf("100 ms after one probe passed, %d are held", n)
	}
}

// What another cluster commits does not wait until the function is available in this one.
func TestWhatIsCommittedElsewhereWaitsForNoProbe(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{CatchUpLag: time.Second, MaxBytes: 64 << 20})
	b.events = 1
	b.runTypes(time.Second, func() { b.receiveType(3, "bad") }, func(string) Next { return Unavailable })
	for range 40 {
		b.now = b.now.Add(failingLookupEvery / 2)
		if _, entries, _ := b.request(); entries != nil {
			b.answer(entries, Unavailable, 0, time.Millisecond)
		}
		for b.lookups.len() > 0 {
			entries := b.NextLookup(1000)
			committed := make([]bool, len(entries))
			for i := range committed {
				committed[i] = true
			}
			b.LookedUp(entries, committed)
		}
	}
	if b.Counts() != [Finished]int{} {
		t.Errorf("everything is committed elsewhere, and there are %v", b.Counts())
	}
}
