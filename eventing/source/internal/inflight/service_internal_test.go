package inflight

import (
	"slices"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
)

// serve runs a function that processes requests in the order in which they are opened,
// each for the duration that took returns for its events, until a time has passed. It
// returns the sizes of the requests, and the maximum number of open ones.
func (b *bench) serve(until time.Duration, took func(events int) time.Duration, arrive func()) (sizes []int, most int) {
	type request struct {
		entries    []*Entry
		begun, end time.Time
	}
	var open []request
	stop := b.now.Add(until)
	for b.now.Before(stop) {
		arrive()
		_, entries, wait := b.request()
		if entries != nil {
			open = append(open, request{entries, b.now, b.now.Add(took(len(entries)))})
			sizes, most = append(sizes, len(entries)), max(most, len(open))
			continue
		}
		next := b.now.Add(min(wait, 100*time.Microsecond))
		for _, r := range open {
			if r.end.Before(next) {
				next = r.end
			}
		}
		b.now = next
		open = slices.DeleteFunc(open, func(r request) bool {
			if r.end.After(b.now) {
				return false
			}
			b.answer(r.entries, Finish, 0, r.end.Sub(r.begun))
			return true
		})
	}
	return sizes, most
}

// steady returns a func that adds an event at an interval.
func (b *bench) steady(every time.Duration) func() {
	next := b.now
	return func() {
		for !next.After(b.now) {
			b.receive(1, "", 10, next)
			next = next.Add(every)
		}
	}
}

func TestNewEventsDoNotOvertakeABacklog(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{})
	b.events = 10
	other := b.AddPartition()
	other.Complete()
	backlog := b.now.Add(-time.Minute)
	for sequence := range uint64(50) { // new events of one partition are first
		m := &modelMessage{sequence: sequence, arrived: b.now}
		other.Receive(m, &delivery.Delivery{}, m.id, "")
	}
	b.receive(200, "", 10, backlog)
	for served := 0; served < 200; {
		_, entries, wait := b.request()
		if entries == nil {
			b.now = b.now.Add(wait)
			continue
		}
		for _, e := range entries {
			if served++; e.partition != b.partition || e.Sequence() != uint64(served) {
				t.Fatalf("event %d of the service is %d of another partition: %t", served, e.Sequence(), e.partition != b.partition)
			}
		}
		b.answer(entries, Finish, 0, 0)
	}
}

func TestAFunctionThatWaitsGetsManyRequestsAndAQuickOneLargeBatches(t *testing.T) {
	isModel(t)
	t.Parallel()

	waits := newBench(t, Config{InFlight: 1000, MaxBytes: 64 << 20})
	waits.receive(5000, "", 10, waits.now)
	_, most := waits.serve(2*time.Second, func(int) time.Duration { return 50 * time.Millisecond }, waits.steady(time.Millisecond))
	if most < 2*fewRequests {
		t.Errorf("of a function that waits 50 ms at most %d requests are open, want at least %d", most, 2*fewRequests)
	}

	quick := newBench(t, Config{InFlight: 1000, MaxBytes: 64 << 20})
	sizes, most := quick.serve(time.Second, func(events int) time.Duration {
		return time.Millisecond + time.Duration(events)*20*time.Microsecond
	}, quick.steady(25*time.Microsecond)) // 40,000/s
	total := 0
	for _, size := range sizes {
		total += size
	}
	if mean := total / len(sizes); mean < 8 || most > 2*fewRequests {
		t.Errorf("a quick function gets %d requests at once and %d events in one, want at most %d and at least 8", most, mean, 2*fewRequests)
	}
}

func TestALoneEventGoesAtOnce(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{})
	for range fewRequests {
		b.receive(1, "", 10, b.now)
		if sent, _, _ := b.request(); len(sent) != 1 {
			t.Fatalf("%d events are sent, want the one", len(sent))
		}
	}
	b.receive(1, "", 10, b.now)
	if sent, _, wait := b.request(); sent != nil || wait > maxPace {
		t.Errorf("%d are sent while %d requests are open, or wait is %s, want at most %s", len(sent), fewRequests, wait, maxPace)
	}
}

func TestWhatIsLeftIsTakenFromTheFarEnd(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{CatchUpLag: time.Second, MaxBytes: 64 << 20})
	b.SetPreference(func(*Entry) bool { return false })
	b.receive(3*blockSize, "", 10, b.now.Add(-time.Minute))
	b.lookUp()
	if left := b.Counts()[stateLeft]; left != 3*blockSize {
		t.Fatalf("%d are left", left)
	}
	b.request()
	b.lookUp()
	sent, _, _ := b.request()
	if len(sent) == 0 || sent[0] != 2*blockSize+1 {
		t.Errorf("%d is sent first, want %d, the first of the last block", sent[:min(1, len(sent))], 2*blockSize+1)
	}
}

func TestARateIsHeld(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{Rate: 500})
	b.receive(2000, "", 10, b.now)
	sizes, _ := b.serve(2*time.Second, func(int) time.Duration { return time.Millisecond }, func() {})
	total := 0
	for _, size := range sizes {
		total += size
	}
	if total < 990 || total > 1000+500/20 {
		t.Errorf("in 2 s at 500/s there are %d events", total)
	}
}

func TestTheFarthestPayloadsAreEvicted(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{InFlight: 256, Ordered: true, MaxBytes: 256 << 10})
	b.receive(80, "a", 1000, b.now)
	if n, _ := b.partition.roomNow(); n == 0 {
		t.Fatal("a subject's far tail leaves no room")
	}
	evicted := 0
	for sequence := uint64(1); sequence <= b.next; sequence++ {
		e := b.partition.entries.get(sequence)
		switch {
		case e.Evicted:
			evicted++
		case evicted > 0:
			t.Errorf("%d is not evicted, and one before it is", sequence)
		}
	}
	if first := b.next - uint64(evicted); evicted == 0 || first < farBehind {
		t.Errorf("%d of 80 are evicted; the first %d may be needed soon", evicted, farBehind)
	}
}

// A function that starts answers nothing for seconds. It must not receive a request
// every few milliseconds meanwhile: the autoscaler would take them for load.
func TestAFunctionThatStartsGetsFewRequests(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{InFlight: 1024, MaxBytes: 64 << 20})
	for begun := b.now; b.now.Sub(begun) < 5*time.Second; b.now = b.now.Add(time.Millisecond) {
		b.receive(1, "", 10, b.now)
		b.request()
	}
	if b.open < fewRequests || b.open > 50 {
		t.Errorf("%d requests are open after 5 s without an answer, want at most 50", b.open)
	}
}

// Events that the function never answers, and that are retried continuously, do not
// prevent finding out that it answers for others.
func TestAnEventThatWasNotTriedIsTriedBesideRetries(t *testing.T) {
	t.Parallel()

	const bad = 50
	b := newBench(t, Config{InFlight: 8})
	b.events = 1
	b.receive(bad+1, "", 10, b.now)
	for begun := b.now; b.now.Sub(begun) < 2*time.Minute; b.now = b.now.Add(time.Millisecond) {
		for {
			sequences, entries, _ := b.request()
			if entries == nil {
				break
			}
			if sequences[0] > bad {
				return
			}
			b.answer(entries, Unavailable, time.Millisecond, time.Microsecond)
		}
	}
	t.Error("the event that the function would answer is not sent within 2 minutes")
}
