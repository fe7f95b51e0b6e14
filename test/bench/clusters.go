package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-fn/tandem/sinkwriter"
)

// cluster is the writer of a data centre and its results.
type cluster struct {
	writer *sinkwriter.Writer

	won, lost atomic.Int64
	diverged  atomic.Int64
	published atomic.Int64
}

// Publish discards outputs.
func (c *cluster) Publish(_ context.Context, events []event.Event) error {
	c.published.Add(int64(len(events)))
	return nil
}

func (t *trial) cluster(ctx context.Context, name string) (*cluster, error) {
	connections := t.options.connections
	pool, err := t.pool(ctx, connections)
	if err != nil {
		return nil, err
	}
	c := &cluster{}
	c.writer, err = sinkwriter.New(pool, sinkwriter.Config{
		Cluster: name, Publisher: c, Connections: connections, BatchEvents: t.options.batch, NoDivergence: !t.checks,
		Logger: t.logger.With(slog.String("cluster", name)),
	})
	t.clusters = append(t.clusters, c)
	return c, err
}

// won returns how many events were won so far.
func (t *trial) won() (n int64) {
	for _, c := range t.clusters {
		n += c.won.Load()
	}
	return n
}

// offer offers all events in order, many concurrently. Each caller waits
// until ready returns for an event, and then offers its events together.
func (c *cluster) offer(ctx context.Context, t *trial, w workload, ready func(ctx context.Context, n int) error) error {
	together := t.together()
	return each(ctx, t.events, together, t.options.callers/together, func(ctx context.Context, from, to int) error {
		offers := make([]sinkwriter.Offer, 0, together)
		for n := from; n < to; n++ {
			if ready != nil {
				if err := ready(ctx, n); err != nil {
					return err
				}
			}
			offers = append(offers, w.offer(n))
		}
		for i, outcome := range c.writer.CommitAll(ctx, offers) {
			switch {
			case outcome.Err != nil:
				return fmt.Errorf("event %d: %w", from+i, outcome.Err)
			case outcome.Receipt.Won:
				c.won.Add(1)
			case outcome.Receipt.Diverged:
				c.diverged.Add(1)
			default:
				c.lost.Add(1)
			}
		}
		return nil
	})
}

// together returns how many events a caller offers at a time.
func (t *trial) together() int {
	if t.single {
		return 1
	}
	return min(t.options.together, t.options.callers)
}

// close waits until outputs are published and deleted from the outbox.
func (c *cluster) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return c.writer.Close(ctx)
}

// check compares the receipts of the clusters, and the database, with the
// expected results.
func (t *trial) check(ctx context.Context, w workload, clusters ...*cluster) error {
	var won, published int64
	for _, c := range clusters {
		if err := c.close(ctx); err != nil {
			return err
		}
		offers := c.won.Load() + c.lost.Load()
		if err := equal("the number of receipts of a cluster, won or lost", offers, int64(t.events)); err != nil {
			return err
		}
		won += c.won.Load()
		published += c.published.Load()
	}
	events := int64(t.events)
	rows := t.expectOrders
	if w.hot {
		rows = t.expectCounters
	}
	return errors.Join(
		equal("the number of offers that won", won, events),
		equal("the number of outputs published", published, events),
		rows(ctx, w),
		t.expect(ctx, "the number of rows in the ledger", "select count(*) from tandem.ledger", events+int64(t.ledgerRows)-t.forgotten),
		t.expect(ctx, "the number of rows left in the outbox", "select count(*) from tandem.outbox", 0),
	)
}

func (t *trial) expectCounters(ctx context.Context, w workload) error {
	return errors.Join(
		t.expect(ctx, "the number of counters", "select count(*) from "+w.counters(), hotRows),
		t.expect(ctx, "the sum of events", "select sum(events)::bigint from "+w.counters(), int64(t.events)),
		t.expect(ctx, "the sum of amounts", "select sum(amount)::bigint from "+w.counters(), w.total(t.events)),
	)
}

func runOne(ctx context.Context, t *trial) error {
	east, err := t.cluster(ctx, "east")
	if err != nil {
		return err
	}
	var w workload
	if err := t.measure(ctx, func(ctx context.Context) error {
		return east.offer(ctx, t, w, nil)
	}); err != nil {
		return err
	}
	return t.check(ctx, w, east)
}

// race has two clusters offer every event as fast as they can.
func race(w workload) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		w := w
		w.first = t.ledgerRows + 1
		return t.two(ctx, w, nil, nil)
	}
}

// two measures two clusters that offer every event, each when it is ready.
func (t *trial) two(ctx context.Context, w workload, readyEast, readyWest func(context.Context, int) error) error {
	east, err := t.cluster(ctx, "east")
	if err != nil {
		return err
	}
	west, err := t.cluster(ctx, "west")
	if err != nil {
		return err
	}
	if err := t.measure(ctx, func(ctx context.Context) error {
		beside, stop := context.WithCancel(ctx)
		defer stop()
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return east.offer(ctx, t, w, readyEast) })
		group.Go(func() error { return west.offer(ctx, t, w, readyWest) })
		besides, _ := errgroup.WithContext(ctx)
		if t.beside != nil {
			besides.Go(func() error { return t.beside(beside) })
		}
		err := group.Wait()
		stop()
		return errors.Join(err, besides.Wait())
	}); err != nil {
		return err
	}
	return t.check(ctx, w, east, west)
}

// runLate makes the second cluster offer each event some time after the first.
// At the end it is alone for that long, which is not counted.
func runLate(ctx context.Context, t *trial) error {
	offered := make([]atomic.Int64, t.events) // in nanoseconds since start
	start := t.now()
	since := func() time.Duration { return t.now().Sub(start) }
	first := func(_ context.Context, n int) error {
		offered[n].Store(int64(since()))
		return nil
	}
	second := func(ctx context.Context, n int) error {
		for offered[n].Load() == 0 {
			if err := sleep(ctx, lag/5); err != nil {
				return err
			}
		}
		if left := time.Duration(offered[n].Load()) + lag - since(); left > 0 {
			return sleep(ctx, left)
		}
		return nil
	}
	if err := t.two(ctx, workload{}, first, second); err != nil {
		return err
	}
	t.sample.eventsPerSecond = float64(t.events) / max(t.sample.secondsOfWholeRun-lag.Seconds(), 1e-3)
	return nil
}

// runLost measures the second cluster after the first has won everything.
func runLost(ctx context.Context, t *trial) error {
	east, err := t.cluster(ctx, "east")
	if err != nil {
		return err
	}
	var w workload
	if err := east.offer(ctx, t, w, nil); err != nil {
		return err
	}
	if err := east.close(ctx); err != nil {
		return err
	}
	t.pools[0].Close()
	t.pools = nil

	west, err := t.cluster(ctx, "west")
	if err != nil {
		return err
	}
	if err := t.measure(ctx, func(ctx context.Context) error {
		return west.offer(ctx, t, w, nil)
	}); err != nil {
		return err
	}
	if err := equal("the number of offers that the second cluster lost", west.lost.Load(), int64(t.events)); err != nil {
		return err
	}
	return t.check(ctx, w, east, west)
}

// each calls work for the numbers below events, together at a time, from that
// many goroutines.
func each(ctx context.Context, events, together, goroutines int, work func(ctx context.Context, from, to int) error) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range goroutines {
		group.Go(func() error {
			for {
				to := int(next.Add(int64(together)))
				from := to - together
				if from >= events {
					return nil
				}
				if err := work(ctx, from, min(to, events)); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}
