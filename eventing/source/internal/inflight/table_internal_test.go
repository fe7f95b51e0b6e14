package inflight

import (
	"fmt"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// bench is a table with one partition, with a clock that the test sets.
type bench struct {
	t testing.TB
	*Table
	partition *Partition
	now       time.Time
	events    int // limit of the function for one request
	next      uint64
}

// newBench returns a table that races.
func newBench(tb testing.TB, cfg Config) *bench {
	tb.Helper()

	b := &bench{t: tb, now: modelStart, events: 100}
	cfg.Now = func() time.Time { return b.now }
	cfg.MaxBatch = func() (int, int) { return b.events, 1 << 20 }
	if cfg.InFlight == 0 {
		cfg.InFlight = 64
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 1 << 20
	}
	b.Table = New(cfg)
	b.partition = b.AddPartition()
	b.partition.Complete()
	b.SetHedge(eventing.Hedge{})
	b.Block()
	return b
}

// receive adds n messages of a subject, of a size, that the stream stored at a time, with
// many behind them.
func (b *bench) receive(n int, subject string, size int, arrived time.Time) {
	b.t.Helper()
	for range n {
		b.next++
		m := &modelMessage{sequence: b.next, arrived: arrived, pending: 1 << 20, size: size, subject: subject, id: EventID{ID: fmt.Sprint(b.next)}}
		if got := b.partition.Receive(m, &delivery.Delivery{}, m.id, subject); got != Added {
			b.t.Fatalf("receive %d: %d", b.next, got)
		}
	}
}

// request returns the sequences of the next request, its entries, and the time to wait.
func (b *bench) request() (sequences []uint64, entries []*Entry, wait time.Duration) {
	entries, wait = b.NextRequest(time.Hour)
	for _, e := range entries {
		sequences = append(sequences, e.Sequence())
	}
	return sequences, entries, wait
}

// answer completes a request.
func (b *bench) answer(entries []*Entry, next Next, after, took time.Duration) {
	r := Request{Entries: entries, Took: took, Answered: next != Unavailable && next != Drop, Together: entries[0].GoesTogether()}
	for range entries {
		r.Next, r.After = append(r.Next, next), append(r.After, after)
	}
	b.Complete(r)
}

// lookUp looks up all entries that wait for it; none is committed.
func (b *bench) lookUp() (n int) {
	for b.lookups.len() > 0 {
		entries := b.NextLookup(1000)
		b.LookedUp(entries, make([]bool, len(entries)))
		n += len(entries)
	}
	return n
}

func TestARateIsWaitedForOnlyWhileNothingIsAllowed(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{InFlight: 1, Rate: 1000})
	b.receive(10, "", 10, b.now)
	b.request()
	b.now = b.now.Add(time.Second)
	_, entries, _ := b.request()
	if entries == nil {
		t.Fatal("nothing is sent after a second")
	}
	b.now = b.now.Add(time.Second) // the rate allows more, but the limit of events in flight is reached
	if _, more, wait := b.request(); more != nil || wait != time.Hour {
		t.Errorf("%d are sent, wait %s; want to wait for the request", len(more), wait)
	}
	b.answer(entries, Finish, 0, 0)
	for range 20 {
		_, entries, wait := b.request()
		if entries != nil {
			b.answer(entries, Finish, 0, 0)
			continue
		}
		if wait <= 0 {
			t.Fatalf("nothing is sent, and wait is %s", wait)
		}
		b.now = b.now.Add(wait)
	}
	if b.partition.entries.len() > 0 {
		t.Errorf("%d of 10 are not sent at the times that NextRequest returned", b.partition.entries.len())
	}
}

func TestWhatIsLeftToOthersIsTakenByASourceOfFewEvents(t *testing.T) {
	t.Parallel()

	for _, inFlight := range []int{1, 2, 3, 4, 64} {
		b := newBench(t, Config{InFlight: inFlight, CatchUpLag: time.Second})
		b.SetPreference(func(*Entry) bool { return false })
		b.receive(10, "", 10, b.now.Add(-time.Minute))
		b.lookUp()
		if left := b.Counts()[stateLeft]; left != 10 {
			t.Fatalf("%d are left to others, want 10", left)
		}
		for range 40 {
			if _, entries, _ := b.request(); entries != nil {
				b.answer(entries, Finish, 0, 0)
			}
			b.lookUp()
			b.now = b.now.Add(relookEvery)
		}
		if b.Counts() != [Finished]int{} {
			t.Errorf("with %d in flight, there are %v", inFlight, b.Counts())
		}
	}
}

func TestWhatIsLeftToOthersFindsOutWhetherTheFunctionAnswersAgain(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{CatchUpLag: time.Second})
	b.receive(silentRequests, "", 10, b.now)
	b.events = 1
	for range silentRequests {
		_, entries, _ := b.request()
		b.answer(entries, Drop, 0, 0) // without an answer
	}
	b.events = 100
	b.SetPreference(func(*Entry) bool { return false })
	b.receive(10, "", 10, b.now.Add(-time.Minute))
	b.lookUp()
	b.request()
	b.lookUp()
	sent, entries, _ := b.request()
	if len(sent) != 1 || sent[0] != b.next {
		t.Fatalf("%d are sent, want the last of those left, as a probe", sent)
	}
	b.answer(entries, Finish, 0, 0)
	b.lookUp() // left entries may have been committed meanwhile
	b.request()
	b.lookUp()
	if sent, _, _ := b.request(); len(sent) != 9 {
		t.Errorf("%d are sent after an answer, want the other 9", sent)
	}
}

func TestAClusterThatStandsByRetriesNothingAtOnce(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{})
	b.receive(1, "", 10, b.now)
	_, entries, _ := b.request()
	b.SetHedge(eventing.Hedge{Standby: true})
	b.answer(entries, Again, 0, 0)
	if sent, _, _ := b.request(); sent != nil || b.Counts()[stateWaiting] != 1 {
		t.Errorf("%d are sent in standby: %v", sent, b.Counts())
	}
}

func TestABlockedSubjectTakesNoRoomFromOthers(t *testing.T) {
	t.Parallel()

	for _, inFlight := range []int{1, 64} {
		b := newBench(t, Config{InFlight: inFlight, Ordered: true, MaxBytes: 256 << 10})
		other := b.AddPartition() // a busy one
		other.Complete()
		b.Block(ledger.BlockedEvent{Subject: "blocked", ID: "dead"})
		for sequence := range uint64(60) {
			m := &modelMessage{sequence: sequence, arrived: b.now, size: 10, id: EventID{ID: fmt.Sprint(sequence)}}
			other.Receive(m, &delivery.Delivery{}, m.id, "")
		}
		b.receive(30, "blocked", 3000, b.now)
		if n, _ := b.partition.roomNow(); n == 0 {
			t.Errorf("with %d in flight, a blocked subject leaves no room: %d bytes", inFlight, b.partition.bytes)
		}
	}
}

func TestASubjectInALongBackoffTakesNoRoomFromOthers(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{Ordered: true, MaxBytes: 256 << 10})
	for subject := range 5 {
		b.receive(7, fmt.Sprint(subject), 3000, b.now)
	}
	_, entries, _ := b.request()
	if len(entries) != 5 {
		t.Fatalf("%d are sent, want the first of each subject", len(entries))
	}
	b.answer(entries, Retry, 30*time.Second, 0)
	if n, _ := b.partition.roomNow(); n == 0 {
		t.Errorf("nothing could be delivered for 30 s, and there is no room: %d bytes", b.partition.bytes)
	}
}

func TestAbandoningWakesWhatWaitedForItsLookups(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{CatchUpLag: time.Second})
	other := b.AddPartition()
	b.SetPreference(func(*Entry) bool { return false })
	b.receive(10, "", 10, b.now.Add(-time.Minute))
	b.lookUp() // they are left
	m := &modelMessage{sequence: 1, arrived: b.now.Add(-time.Minute), pending: 1 << 20}
	other.Receive(m, &delivery.Delivery{}, m.id, "") // to be looked up
	<-b.Wake()
	b.request() // waits for the lookup
	other.Abandon()
	select {
	case <-b.Wake():
	default:
		t.Error("nothing wakes the dispatcher, and the lookup that it waits for does not come")
	}
}
