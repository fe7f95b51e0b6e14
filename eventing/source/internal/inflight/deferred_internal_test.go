package inflight

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// lacking completes a request whose events lack something in the deployment.
func (b *bench) lacking(entries []*Entry, next Next) {
	for _, e := range entries {
		e.Delivery.Lack = delivery.Lack{Fingerprint: "23514 orders", Since: b.now, Attempts: 1}
	}
	b.answer(entries, next, time.Second, time.Millisecond)
}

func TestADeferredEventLeavesTheTableWhenItIsStored(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{Defers: true})
	b.receive(3, "", 10, b.now)
	_, entries, _ := b.request()
	b.lacking(entries, Defer)
	stored := b.NextToDefer(10)
	if len(stored) != 3 || len(b.NextToDefer(10)) != 0 {
		t.Fatalf("%d are to be stored, want 3, once", len(stored))
	}
	if finished := b.Deferred(stored, []bool{true, false, true}, time.Minute); len(finished) != 2 {
		t.Errorf("%d are finished, want 2", len(finished))
	}
	if _, n := b.partition.Has(0); n != 1 {
		t.Errorf("%d are in flight, want the one that was not stored", n)
	}
	if sequences, _, _ := b.request(); sequences != nil {
		t.Errorf("%v are sent before their time", sequences)
	}
	b.now = b.now.Add(time.Minute)
	if sequences, _, _ := b.request(); !cmp.Equal(sequences, []uint64{2}) {
		t.Errorf("%v are sent, want 2", sequences)
	}
}

// A circuit that is open because the deployment lacks something is closed by deferring its
// events: other events of their type are fine.
func TestEventsThatAreDeferredEndTheProbingOfTheirType(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{Defers: true})
	b.receive(100, "", 10, b.now)
	_, entries, _ := b.request()
	b.lacking(entries, Unavailable)
	if n, _ := b.CountLacking(); n != 100 {
		t.Fatalf("%d wait, want all 100", n)
	}
	for range 40 {
		b.now = b.now.Add(probeLimit)
		if _, entries, _ := b.request(); entries != nil {
			b.lacking(entries, Retry)
		}
	}
	if len(b.probed) > 0 {
		t.Errorf("the type is still probed")
	}
}

func TestTheOldestAreDeferredFirstWhenTheTableIsCrowded(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{Defers: true})
	b.receive(10, "", 10, b.now)
	_, entries, _ := b.request()
	b.lacking(entries[5:6], Retry)
	b.lacking(entries[2:3], Retry)
	b.lacking(entries[7:8], Retry)
	b.answer(entries[0:1], Retry, time.Second, time.Millisecond) // it broke the function
	b.DeferLacking(func(e *Entry) bool { return e.Sequence() != 8 })
	var sequences []uint64
	for _, e := range b.NextToDefer(10) {
		sequences = append(sequences, e.Sequence())
	}
	if diff := cmp.Diff([]uint64{3, 6}, sequences); diff != "" {
		t.Errorf("deferred (-want +got):\n%s", diff)
	}
}

func TestADeferredEventIsRunBeforeTheLaterOnesOfItsSubject(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{Defers: true, Ordered: true})
	b.receive(3, "a", 10, b.now)
	_, entries, _ := b.request()
	b.lacking(entries, Defer)
	stored := b.NextToDefer(10)
	b.Block(ledger.BlockedEvent{Subject: "a", Source: stored[0].ID.Source, ID: stored[0].ID.ID})
	b.Deferred(stored, []bool{true}, time.Minute)
	if _, entries, _ := b.request(); entries != nil {
		t.Fatalf("a later event of the subject is sent")
	}
	behind := b.NextToStore(10)
	b.Stored(behind, []bool{true, true}, []int{1, 1})

	m := &modelMessage{sequence: 17, arrived: b.now, size: 10, subject: "a", id: EventID{ID: fmt.Sprint(1)}}
	for range 2 { // even again, after it failed
		if got := b.DeferredPartition().Receive(m, &delivery.Delivery{Alone: true, DeferredKey: "1"}, m.id, "a"); got != Added {
			t.Fatalf("received: %d", got)
		}
		b.now = b.now.Add(time.Second)
		_, entries, _ := b.request()
		if len(entries) != 1 || entries[0].Partition() != b.DeferredPartition() || entries[0].GoesTogether() {
			t.Fatalf("%v are sent, want the deferred event alone", entries)
		}
		b.lacking(entries, Drop)
	}
	if n, _ := b.CountLacking(); n != 0 {
		t.Errorf("%d wait, want none", n)
	}
}
