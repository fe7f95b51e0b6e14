package inflight

import (
	"math/rand/v2"
	"testing"
)

func TestASequenceSetHoldsWhatAPlainSetHolds(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(1, 2))
	set, plain := &sequenceSet{}, map[uint64]bool{}
	for range 20_000 {
		sequence := 1<<40 + random.Uint64N(5*sequencePage)
		set.add(sequence)
		plain[sequence] = true
	}
	compare := func(from uint64) {
		t.Helper()

		for sequence := from; sequence < 1<<40+5*sequencePage; sequence++ {
			if set.has(sequence) != plain[sequence] {
				t.Fatalf("sequence %d: has is %t, want %t", sequence, set.has(sequence), plain[sequence])
			}
		}
	}
	compare(1<<40 - sequencePage)
	const floor = 1<<40 + 2*sequencePage + 100
	set.dropBelow(floor)
	compare(floor)
	if len(set.pages) != 3 {
		t.Errorf("%d pages are left, want 3", len(set.pages))
	}
	set.add(1 << 40)
	if set.has(1<<40) || len(set.pages) != 3 {
		t.Error("a page below the floor came back")
	}
}
