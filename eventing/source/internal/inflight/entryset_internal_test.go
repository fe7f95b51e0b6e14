package inflight

import (
	"maps"
	"math/rand/v2"
	"testing"
)

func TestAnEntrySetHoldsWhatAMapHolds(t *testing.T) {
	t.Parallel()

	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		var s entrySet
		want := map[uint64]*Entry{}
		for range 1000 {
			sequence := r.Uint64N(300)
			switch e := want[sequence]; {
			case s.get(sequence) != e:
				t.Fatalf("seed %d: entry %d is %v, want %v", seed, sequence, s.get(sequence), e)
			case e == nil && r.IntN(3) > 0:
				want[sequence] = &Entry{sequence: sequence}
				s.add(want[sequence])
			default:
				delete(want, sequence)
				s.remove(sequence)
			}
		}
		got := map[uint64]*Entry{}
		for e := range s.all() {
			got[e.sequence] = e
		}
		if !maps.Equal(got, want) || s.len() != len(want) {
			t.Fatalf("seed %d: there are %d entries, %d by their number, want %d", seed, len(got), s.len(), len(want))
		}
		for e := range s.all() {
			s.remove(e.sequence)
		}
		if s.len() != 0 || len(s.pages) != 0 {
			t.Fatalf("seed %d: %d entries and %d pages are left", seed, s.len(), len(s.pages))
		}
	}
}
