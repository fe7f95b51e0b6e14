package inflight

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
)

// isModel leaves a test of a model, which has one goroutine, to a run without the race detector:
// with it, the test takes ten times as long and finds nothing more. make test has both runs.
func isModel(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("a model has one goroutine: make test runs it without the race detector")
	}
}

// The goroutines of a source, with the table's channels and its condition: only these
// wake them.
func TestGoroutinesThatShareATableFinishEverything(t *testing.T) {
	t.Parallel()

	for _, hedge := range []eventing.Hedge{{}, {Delay: 100 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			const messages = 2000
			table := New(Config{
				Now: time.Now, InFlight: 32, MaxBytes: 1 << 20, CatchUpLag: time.Second, Ordered: true,
				MaxBatch: func() (int, int) { return 10, 1 << 20 },
			})
			p := table.AddPartition()
			p.Complete()
			table.Block()
			table.SetHedge(hedge)
			table.SetPreference(func(e *Entry) bool { return e.Block()%2 == 0 })
			closed := make(chan struct{})
			var workers sync.WaitGroup
			for range 4 {
				workers.Go(func() {
					for turn := 0; ; turn++ {
						entries := table.NextLookup(100)
						if entries == nil {
							return
						}
						time.Sleep(60 * time.Millisecond)
						if turn%5 == 4 {
							table.LookedUp(entries, nil)
						} else {
							table.LookedUp(entries, make([]bool, len(entries)))
						}
					}
				})
			}
			workers.Go(func() {
				for {
					entries, wait := table.NextRequest(time.Hour)
					if entries == nil {
						select {
						case <-table.Wake():
						case <-time.After(wait):
						case <-closed:
							return
						}
						continue
					}
					workers.Go(func() {
						time.Sleep(5 * time.Millisecond)
						r := Request{Entries: entries, Answered: true, Took: 5 * time.Millisecond, Together: entries[0].GoesTogether()}
						for _, e := range entries {
							next := Finish
							if e.Sequence()%50 == 0 && e.attempts == 0 {
								next = Retry
							}
							if e.Evicted {
								e.Fetched(e.Message)
							}
							r.Next, r.After = append(r.Next, next), append(r.After, time.Second)
						}
						table.Complete(r)
					})
				}
			})
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			for sequence := uint64(1); sequence <= messages && ctx.Err() == nil; {
				n, _ := p.Room(ctx)
				for ; n > 0 && sequence <= messages; n-- {
					m := &modelMessage{sequence: sequence, arrived: begin.Add(-time.Minute), pending: messages, size: 1000, subject: []string{"", "a", "b"}[sequence%3]}
					p.Receive(m, &delivery.Delivery{}, m.id, m.subject)
					sequence++
				}
			}
			for _, inFlight := p.Has(0); inFlight > 0 && ctx.Err() == nil; _, inFlight = p.Has(0) {
				time.Sleep(10 * time.Millisecond)
			}
			if ctx.Err() != nil {
				t.Errorf("not everything is finished after 5 minutes: %v", table.Counts())
			}
			table.Close()
			close(closed)
			workers.Wait()
		})
	}
}
