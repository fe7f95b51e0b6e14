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

// runTypes runs a function that answers immediately with next, for a time, and returns
// the attempts. Arrive adds events, once a millisecond.
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
	isModel(t)
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
	if held := b.Counts()[stateHeld]; held < 9900 {
		t.Errorf("%d are held, want about all 10000", held)
	}

	b.now = b.now.Add(probeLimit * 5 / 4)
	b.runTypes(100*time.Millisecond, func() {}, func(string) Next { return Finish })
	if b.Counts() != [Finished]int{} {
		t.Errorf("100 ms after a probe passed, there are %v", b.Counts())
	}
}

// An event that is at fault itself is not always the probe.
func TestAProbeIsAnotherEventEachTime(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{})
	b.events = 1
	b.receiveType(unavailableInRow, "t")
	b.runTypes(time.Second, func() {}, func(string) Next { return Unavailable })
	if held := b.Counts()[stateHeld]; held != unavailableInRow {
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
	isModel(t)
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
	if n := b.Counts()[stateHeld]; n > 0 {
		t.Errorf("100 ms after one probe passed, %d are held", n)
	}
}

// An event that another cluster commits does not wait until the function is available in
// this one.
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

// Each event of a type that hangs holds a request, and a place in the function, until the
// function's deadline: few of them are attempted.
func TestOfATypeThatHangsFewEventsAreTried(t *testing.T) {
	isModel(t)
	t.Parallel()

	b := newBench(t, Config{MaxBytes: 64 << 20, InFlight: 1024})
	type open struct {
		entries []*Entry
		ends    time.Time
	}
	var hanging []open
	tried, good := map[uint64]bool{}, 0
	for begun := b.now; b.now.Sub(begun) < 2*time.Minute; b.now = b.now.Add(10 * time.Millisecond) {
		b.receiveType(1, "hangs")
		b.receiveType(2, "good")
		for {
			_, entries, _ := b.request()
			if entries == nil {
				break
			}
			r := Request{Entries: entries, Took: time.Millisecond, Together: entries[0].GoesTogether(), Answered: true, Committed: true}
			hangs := false
			for _, e := range entries {
				m, _ := e.Message.(*modelMessage)
				next := Finish
				if m.kind == "hangs" {
					tried[m.sequence], hangs, next = true, true, Pending
				} else {
					good++
				}
				r.Next, r.After = append(r.Next, next), append(r.After, 0)
			}
			if len(entries) == 1 && hangs {
				hanging = append(hanging, open{entries, b.now.Add(20 * time.Second)})
				continue
			}
			b.Complete(r)
		}
		for len(hanging) > 0 && !b.now.Before(hanging[0].ends) {
			b.Complete(Request{Entries: hanging[0].entries, Next: []Next{Retry}, After: []time.Duration{time.Second}, Took: 20 * time.Second, Answered: true})
			hanging = hanging[1:]
		}
	}
	if want := 2 * 12_000; good < want-10 {
		t.Errorf("%d of %d good events are sent", good, want)
	}
	if n := len(tried); n < unavailableInRow || n > 2*unavailableInRow+10 {
		t.Errorf("%d events of the type that hangs are tried, want about %d", n, unavailableInRow)
	}
}

// A slow type does not hang: it is not held for long.
func TestATypeThatIsSlowIsDelivered(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{MaxBytes: 64 << 20, InFlight: 1024})
	type open struct {
		entries []*Entry
		ends    time.Time
	}
	var slow []open
	for begun := b.now; b.now.Sub(begun) < 20*time.Second; b.now = b.now.Add(10 * time.Millisecond) {
		if b.now.Sub(begun) < 10*time.Second {
			b.receiveType(1, "slow")
		}
		for {
			_, entries, _ := b.request()
			if entries == nil {
				break
			}
			if len(entries) == 1 {
				slow = append(slow, open{entries, b.now.Add(time.Second)})
				continue
			}
			b.answer(entries, Pending, 0, 10*time.Millisecond)
		}
		for len(slow) > 0 && !b.now.Before(slow[0].ends) {
			b.answer(slow[0].entries, Finish, 0, time.Second)
			slow = slow[1:]
		}
	}
	if b.Counts() != [Finished]int{} {
		t.Errorf("10 s after the last slow event came, there are %v", b.Counts())
	}
}

// Single events that hang have no answer until their deadline. Events of other types need not
// wait for it.
func TestATypeWhoseSingleEventsHangLeavesRequestsToOthers(t *testing.T) {
	t.Parallel()

	for perSecond, inFlight := range map[int]int{50: 256, 500: 256, 20: 8} {
		t.Run(fmt.Sprint(perSecond), func(t *testing.T) {
			t.Parallel()
			b := newBench(t, Config{MaxBytes: 64 << 20, InFlight: inFlight})
			b.events = 1
			type open struct {
				entries []*Entry
				ends    time.Time
			}
			var hanging []open
			good, bad := 0, 0
			latest := time.Duration(0)
			for begun := b.now; b.now.Sub(begun) < time.Minute; b.now = b.now.Add(10 * time.Millisecond) {
				for ; bad*1000 < int(b.now.Sub(begun).Milliseconds())*perSecond; bad++ {
					b.receiveType(1, "hangs")
				}
				b.receiveType(5, "good")
				for {
					_, entries, _ := b.request()
					if entries == nil {
						break
					}
					m, _ := entries[0].Message.(*modelMessage)
					if m.kind == "hangs" {
						hanging = append(hanging, open{entries, b.now.Add(20 * time.Second)})
						continue
					}
					good++
					latest = max(latest, b.now.Sub(m.arrived))
					b.Complete(Request{Entries: entries, Next: []Next{Finish}, After: []time.Duration{0}, Took: time.Millisecond, Together: true, Answered: true, Committed: true})
				}
				for len(hanging) > 0 && !b.now.Before(hanging[0].ends) {
					b.Complete(Request{Entries: hanging[0].entries, Next: []Next{Retry}, After: []time.Duration{time.Second}, Took: 20 * time.Second, Together: hanging[0].entries[0].GoesTogether(), Answered: true})
					hanging = hanging[1:]
				}
			}
			if want := 5 * 6000; good < want-10 {
				t.Errorf("%d of %d good events are sent", good, want)
			}
			if latest > time.Second {
				t.Errorf("a good event was sent after %v", latest)
			}
			t.Logf("%d good events, the latest after %v", good, latest)
		})
	}
}

// Probes that hang are followed by others before their deadline.
func TestProbesThatHangDoNotHoldTheirTypeForLong(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{MaxBytes: 64 << 20})
	b.events = 1
	b.runTypes(time.Second, func() { b.receiveType(1, "mixed") }, func(string) Next { return Unavailable })
	if b.Counts()[stateHeld] == 0 {
		t.Fatal("nothing is held")
	}
	hanging, done := 0, 0
	for end := b.now.Add(10 * time.Second); b.now.Before(end); b.now = b.now.Add(time.Millisecond) {
		for {
			_, entries, _ := b.request()
			if entries == nil {
				break
			}
			if hanging < 2 && done > 0 { // both that may be sent after the first probe
				hanging++
				continue
			}
			done += len(entries)
			b.answer(entries, Finish, 0, time.Millisecond)
		}
	}
	if done < 900 {
		t.Errorf("%d events are through after 10 s beside %d probes that hang", done, hanging)
	}
}
