package inflight

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestAServiceListIsInTheOrderOfService(t *testing.T) {
	t.Parallel()

	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		p := &Partition{}
		var l serviceList
		var want []uint64
		next := uint64(0)
		fresh := func() *Entry { next++; return &Entry{partition: p, sequence: next} }
		var early []*Entry // are added later than entries behind them
		for range 200 {
			switch r.IntN(6) {
			case 0, 1:
				e := fresh()
				l.add(e)
				want = append(want, e.sequence)
			case 2:
				early = append(early, fresh())
			case 3:
				for _, e := range early {
					l.add(e)
					want = append(want, e.sequence)
				}
				early = nil
			case 4:
				l.keepOnly(func(e *Entry) bool { return e.sequence%7 != seed%7 })
				want = slices.DeleteFunc(want, func(s uint64) bool { return s%7 == seed%7 })
			default:
				slices.Sort(want)
				from := 0
				if r.IntN(2) == 0 {
					from = r.IntN(len(want) + 1)
				}
				to := from + r.IntN(len(want)-from+1)
				taken := l.take(from, to)
				var got []uint64
				for _, e := range taken {
					got = append(got, e.sequence)
				}
				if !slices.Equal(got, want[from:to]) {
					t.Fatalf("seed %d: entries %d to %d are %v, want %v", seed, from, to, got, want[from:to])
				}
				back := taken[r.IntN(len(taken)+1):] // as if the others were committed
				want = slices.Delete(want, from, to)
				l.addFirst(back)
				for _, e := range back {
					want = append(want, e.sequence)
				}
			}
			if l.len() != len(want) {
				t.Fatalf("seed %d: there are %d entries, want %d", seed, l.len(), len(want))
			}
		}
	}
}

func TestAQueueIsInOrderWhateverIsAddedWhen(t *testing.T) {
	t.Parallel()

	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := &Partition{}
		h := entryQueue{less: (*Entry).before}
		var want []uint64
		for next := uint64(1); next < 500; next++ {
			switch r.IntN(12) {
			case 0, 1, 2, 3, 4, 5:
				sequence := 1000 * next
				if r.IntN(1+int(seed%5)) > 0 {
					sequence = uint64(r.IntN(500_000)) // it is before others
				}
				h.add(&Entry{partition: p, sequence: sequence})
				want = append(want, sequence)
				slices.Sort(want)
			case 6:
				h.rebuild(func(e *Entry) bool { return e.sequence%7 != seed%7 })
				want = slices.DeleteFunc(want, func(s uint64) bool { return s%7 == seed%7 })
			default:
				for range min(r.IntN(20), len(want)) {
					first := h.first()
					if !h.leads(first) {
						t.Fatalf("seed %d: the first entry does not lead", seed)
					}
					if got := h.take(); got != first || got.sequence != want[0] {
						t.Fatalf("seed %d: took %d, want %d", seed, got.sequence, want[0])
					}
					want = want[1:]
				}
			}
			var all []uint64
			for e := range h.all() {
				all = append(all, e.sequence)
			}
			slices.Sort(all)
			if h.Len() != len(want) || !slices.Equal(all, want) {
				t.Fatalf("seed %d: there are %d entries, %v, want %v", seed, h.Len(), all, want)
			}
		}
	}
}

// A queue that is never empty does not retain the entries that were taken.
func TestAQueueThatIsNeverEmptyDoesNotGrow(t *testing.T) {
	t.Parallel()

	p := &Partition{}
	h := entryQueue{less: (*Entry).before}
	for n := range uint64(100_000) {
		h.add(&Entry{partition: p, sequence: n})
		if n >= 100 {
			h.take()
		}
	}
	if len(h.run) > 1000 || cap(h.run) > 1000 {
		t.Errorf("the list has a length of %d and a capacity of %d for %d entries", len(h.run), cap(h.run), h.Len())
	}
}
