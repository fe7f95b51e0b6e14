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
		var early []*Entry // are added later than others that come after them
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
