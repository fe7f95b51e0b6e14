package ingest

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLargeRequestsLeaveMemoryToSmallOnes(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		b := newBudget(1000, time.Now)
		large := acquire(t, b, 750, false)
		if s, ok := b.acquire(timeout(t, time.Second), 1, false, func() {}); ok {
			t.Errorf("a large request has %d bytes of those for small ones", s.bytes)
		}
		small := acquire(t, b, 250, true)
		if used := b.used(); used != 1000 {
			t.Errorf("%d bytes are in use, want 1000", used)
		}
		large.retain()
		large.release()
		if used := b.used(); used != 1000 {
			t.Errorf("%d bytes are in use while one of two holders has released them, want 1000", used)
		}
		large.release()
		small.read(100)
		if used := b.used(); used != 100 {
			t.Errorf("%d bytes are in use, want 100", used)
		}
		small.release()
		// A request that needs more than the budget has all that large ones may have.
		acquire(t, b, 1_000_000, false).release()
		if used := b.used(); used != 0 {
			t.Errorf("%d bytes are in use at the end", used)
		}
	})
}

func TestSlowBodiesLoseTheirMemoryOnlyToRequestsThatWait(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		b := newBudget(1000, time.Now)
		var slow [3]*share
		evicted := 0
		for i := range slow {
			s, ok := b.acquire(t.Context(), 250, false, func() {
				evicted++
				go func() {
					if slow[i].read(250) {
						t.Error("an evicted request may go on")
					}
					slow[i].release()
				}()
			})
			if !ok {
				t.Fatal("no memory")
			}
			slow[i] = s
		}
		time.Sleep(time.Hour)
		if evicted != 0 {
			t.Errorf("%d were evicted while no request waited", evicted)
		}
		published := slow[2]
		if !published.read(250) {
			t.Error("a request that was read may not go on")
		}
		begin := time.Now()
		next := acquire(t, b, 250, false) // in the place of the oldest
		if took := time.Since(begin); evicted != 1 || took > slowAfter {
			t.Errorf("%d were evicted after %s, want the oldest at once", evicted, took)
		}
		next.release()
		published.release()
	})
}

func TestMemoryIsReturnedWhateverHappens(t *testing.T) {
	t.Parallel()

	b := newBudget(1000, time.Now)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(300))*time.Microsecond)
				bytes := rand.Int64N(400)
				if s, ok := b.acquire(ctx, bytes, bytes < 100, func() {}); ok {
					if used := b.used(); used > 1000 || used < 0 {
						t.Errorf("%d bytes are in use", used)
					}
					s.read(bytes / 2)
					s.release()
				}
				cancel()
			}
		})
	}
	all.Wait()
	if used := b.used(); used != 0 || len(b.reading)+len(b.waiting[0])+len(b.waiting[1]) != 0 {
		t.Errorf("%d bytes are in use at the end", used)
	}
}

func acquire(t *testing.T, b *budget, bytes int64, small bool) *share {
	t.Helper()

	s, ok := b.acquire(timeout(t, time.Minute), bytes, small, func() {})
	if !ok {
		t.Fatalf("no memory for %d bytes", bytes)
	}
	return s
}

func timeout(t *testing.T, d time.Duration) context.Context {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
