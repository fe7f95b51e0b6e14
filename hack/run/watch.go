package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/hack/expected"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const (
	inputStream = "EVENTS"

	lookTimeout = 900 * time.Millisecond

	// rateLooks is the number of observations for the current rate of events.
	rateLooks = 4
)

// watch observes a run from outside: its metrics, tables and streams.
type watch struct {
	clusters  []*devcluster.Cluster
	pool      *pgxpool.Pool
	outbox    *sinkwriter.Outbox
	nc        *nats.Conn
	js        natsjs.JetStream
	feed      *feed.Feed // nil if there is none
	fedBefore int        // by earlier runs
	feedTotal int64      // 0 if unknown
	now       func() time.Time
	start     time.Time

	counters []counter
	won      []sample // of the last observations
	rows     slowCount
}

// sample is a number at a time.
type sample struct {
	at    time.Time
	value float64
}

// look reads everything concurrently. A value that cannot be read is unknown.
func (w *watch) look(ctx context.Context) status {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s := status{elapsed: w.now().Sub(w.start), feedTotal: w.feedTotal, clusters: make([]clusterStatus, len(w.clusters))}
	if w.feed != nil {
		s.published = int64(w.fedBefore) + w.feed.Published()
		s.skipped = w.feed.Skipped()
		s.complete = w.feed.Complete()
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.rows = w.rows.look(ctx, w.now, w.countRows) })
	wg.Go(func() { s.outputs = figureOf(w.countOutputs(ctx)) })
	wg.Go(func() { s.backlog = figureOf(w.outbox.Backlog(ctx)) })
	for i, c := range w.clusters {
		wg.Go(func() { s.clusters[i] = w.lookAt(ctx, c, &w.counters[i]) })
	}
	wg.Wait()
	s.eventsPerSecond = w.rate(s)
	return s
}

func (w *watch) lookAt(ctx context.Context, c *devcluster.Cluster, counter *counter) clusterStatus {
	s := clusterStatus{name: c.Name()}
	for _, p := range c.Processes() {
		s.restarts += p.Restarts()
	}
	generation := c.Source.Restarts()
	if now, err := scrape(ctx, c.MetricsURL()); err == nil && c.Source.Restarts() == generation {
		counter.read(generation, now)
	}
	counter.tick()
	s.counts = counter.total()
	recent := counter.recent()
	if v, ok := recent.quantile(0.5); ok {
		s.p50 = known(1_000 * v)
	}
	if v, ok := recent.quantile(0.99); ok {
		s.p99 = known(1_000 * v)
	}
	if info, err := w.consumer(ctx, c); err == nil {
		s.lag = known(float64(info.NumPending) + float64(info.NumAckPending))
	}
	return s
}

// rate returns how many events per second were won recently, by any cluster.
func (w *watch) rate(s status) float64 {
	var won float64
	for _, c := range s.clusters {
		won += c.counts.won
	}
	w.won = append(w.won, sample{at: w.now(), value: won})
	if n := len(w.won) - rateLooks; n > 0 {
		w.won = w.won[n:]
	}
	first, last := w.won[0], w.won[len(w.won)-1]
	if last.at.Equal(first.at) {
		return 0
	}
	return (last.value - first.value) / last.at.Sub(first.at).Seconds()
}

func (w *watch) consumer(ctx context.Context, c *devcluster.Cluster) (*natsjs.ConsumerInfo, error) {
	consumer, err := w.js.Consumer(ctx, inputStream, "tandem-"+c.Name()+"-"+c.FunctionName())
	if err != nil {
		return nil, err
	}
	return consumer.CachedInfo(), nil // requested a moment ago
}

func (w *watch) countRows(ctx context.Context) (int64, error) {
	var n int64
	err := w.pool.QueryRow(ctx, "select count(*) from flights").Scan(&n)
	return n, err
}

func (w *watch) countOutputs(ctx context.Context) (int64, error) {
	stream, err := w.js.Stream(ctx, expected.OutputStream)
	if err != nil {
		return 0, err
	}
	return int64(stream.CachedInfo().State.Msgs), nil
}

func figureOf[T int | int64](n T, err error) figure {
	if err != nil {
		return figure{}
	}
	return known(float64(n))
}

// slowCount reads a count that takes longer the larger it is, so rarely that it
// does not matter.
type slowCount struct {
	next time.Time
	last figure
}

func (c *slowCount) look(ctx context.Context, now func() time.Time, count func(context.Context) (int64, error)) figure {
	began := now()
	if began.Before(c.next) {
		return c.last
	}
	c.last = figureOf(count(ctx))
	c.next = now().Add(10 * now().Sub(began))
	return c.last
}

// through reports whether at least one cluster has acknowledged every event of
// the stream, and if so how many outputs are not published yet: with none,
// everything is processed.
func (w *watch) through(ctx context.Context) (handled bool, backlog int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stream, err := w.js.Stream(ctx, inputStream)
	if err != nil {
		return false, 0, fmt.Errorf("look at stream %s: %w", inputStream, err)
	}
	last := stream.CachedInfo().State.LastSeq
	behind := true
	for _, c := range w.clusters {
		info, err := w.consumer(ctx, c)
		if err == nil && info.AckFloor.Stream >= last {
			behind = false
		}
	}
	if behind {
		return false, 0, nil
	}
	// Read last: an event is acknowledged after its outputs are in the outbox.
	backlog, err = w.outbox.Backlog(ctx)
	return err == nil, backlog, err
}
