package functionstest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"time"
)

const (
	// few and many are how often an event is computed in a row. Two keys of a map
	// are iterated in the same order seven times of eight (Go 1.26), so few calls in
	// a dozen places detect that the order varies. If two series of many are equal,
	// or one of them is constant, it is not by chance.
	few, many = 8, 40

	// callers is how many goroutines compute all events concurrently.
	callers = 8
)

// series holds the records of each event, in the order of the events, for each
// time that it was computed.
type series [][]record

// runs holds all results.
type runs struct {
	// here is from this process, one event at a time; days from a bubble of
	// testing/synctest, in which the clock shows other days.
	here       []run
	concurrent series
	days       []series

	// first and second are from two processes without a known difference, in the
	// order of events; backwards from another one, in the opposite order; places
	// from processes with one difference each.
	first, second, backwards series
	places                   []place

	// goroutines is how many were started while an event was computed, and
	// variables the environment variables that were read.
	goroutines []uint64
	variables  []string
}

// run is a series and the circumstances of it.
type run struct {
	when   string
	series series
}

// compute computes event i once.
func (c *checker) compute(ctx context.Context, i int) (r record) {
	e := c.events[i].Clone()
	defer func() {
		if value := recover(); value != nil {
			// Separate from the record, because it contains addresses that
			// differ.
			c.stacks.Store(i, string(debug.Stack()))
			r = record{Broken: fmt.Sprintf("it panicked: %v", value)}
		}
	}()
	// These lookups mark in the log of the test binary where a function begins and ends.
	_ = os.Getenv(beginMark)
	fx, err := c.f.Handle(ctx, e)
	_ = os.Getenv(endMark)

	r = recordOf(&c.f, c.events[i], fx, err)
	if !bytes.Equal(e.Data(), c.events[i].Data()) {
		r = record{Broken: "it changed the data of its event, which it must not"}
	}
	return r
}

// inOrder computes each event several times in a row.
func (c *checker) inOrder(ctx context.Context, order []int, times int) series {
	all := make(series, len(c.events))
	for _, i := range order {
		for range times {
			all[i] = append(all[i], c.compute(ctx, i))
		}
	}
	return all
}

// countGoroutines returns how many goroutines are started while each event is
// computed.
func (c *checker) countGoroutines(ctx context.Context) []uint64 {
	sample := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	read := func() uint64 {
		metrics.Read(sample)
		if sample[0].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return sample[0].Value.Uint64()
	}
	counts := make([]uint64, len(c.events))
	for i := range counts {
		before := read()
		c.compute(ctx, i)
		counts[i] = read() - before
	}
	return counts
}

func (c *checker) forwards() []int {
	order := make([]int, len(c.events))
	for i := range order {
		order[i] = i
	}
	return order
}

func (c *checker) backwards() []int {
	order := c.forwards()
	slices.Reverse(order)
	return order
}

// shuffled returns an order, the same for the same seed.
func (c *checker) shuffled(seed int) []int {
	order := c.forwards()
	rand.New(rand.NewPCG(uint64(seed), 0)).Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
	return order
}

// computeHere computes the results that can be computed in this process.
func (c *checker) computeHere(ctx context.Context, b bubble) *runs {
	mixed := make(series, len(c.events))
	r := &runs{here: []run{
		{"in the same process", c.inOrder(ctx, c.forwards(), few)},
		{"in the opposite order of events", c.inOrder(ctx, c.backwards(), few)},
		{"in another order of events", mixed},
	}}
	for seed := range few {
		for _, i := range c.shuffled(seed) {
			mixed[i] = append(mixed[i], c.compute(ctx, i))
		}
	}
	r.concurrent = c.concurrently(ctx)
	if b != nil {
		b(func(ctx context.Context) {
			r.days = append(r.days, c.inOrder(ctx, c.forwards(), many))
			// Every component of the date and of the time of day changes.
			time.Sleep(400*24*time.Hour + 13*time.Hour + 17*time.Minute + 19*time.Second + 23*time.Millisecond)
			r.days = append(r.days, c.inOrder(ctx, c.forwards(), many))
			// On the third day everything has expired.
			time.Sleep(100 * 365 * 24 * time.Hour)
			r.days = append(r.days, c.inOrder(ctx, c.forwards(), many))
		})
	}
	return r
}

// concurrently computes all events in several goroutines, each in an order of its
// own.
func (c *checker) concurrently(ctx context.Context) series {
	all := make(series, len(c.events))
	var mu sync.Mutex
	var done sync.WaitGroup
	begin := make(chan struct{})
	for caller := range callers {
		done.Go(func() {
			<-begin
			for round := range 2 {
				for _, i := range c.shuffled(2*caller + round) {
					r := c.compute(ctx, i)
					mu.Lock()
					all[i] = append(all[i], r)
					mu.Unlock()
				}
			}
		})
	}
	close(begin)
	done.Wait()
	return all
}
