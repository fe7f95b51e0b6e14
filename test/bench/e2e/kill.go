package e2e

import (
	"context"
	"fmt"
	"time"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// The events that count are published from killBefore before a cluster is killed until
// killAfter after it; less in a short trial. Clusters that share detect the loss after
// 3 to 4 s.
const (
	killBefore = time.Second
	killAfter  = 6 * time.Second
)

// killResult holds the latencies around the loss of a cluster, each until the commit.
type killResult struct {
	Latency

	at float64 // events a second
}

// String formats the result for the progress.
func (r *killResult) String() string {
	return fmt.Sprintf("at %.0f/s, until the commit p50 %.1f ms, p99 %.1f, p99.9 %.1f, longest %.1f", r.at, r.P50, r.P99, r.P999, r.Max)
}

// measureKill makes a row process events at a steady rate, and kills cluster west during
// it. With standby, east is switched at that moment, as an operator would.
//
// A latency is until the commit. The relay publishes the last outputs of west after a
// longer time, for which measureKill does not wait.
func (o *Options) measureKill(ctx context.Context, r Row, rate float64) (*killResult, error) {
	d, err := o.deployHandling(ctx, r, func(d *deployment) error { return d.startRow(ctx, r, 0) })
	if err != nil {
		return nil, err
	}
	defer d.close(ctx)
	before, after := min(killBefore, o.Duration/6), min(killAfter, o.Duration)
	count := func(d time.Duration) int { return max(int(rate*d.Seconds()), 1) }
	warm := count(o.warmUp(o.Duration))
	s := schedule{begin: o.Now(), rate: rate, first: 1, events: warm + count(before+after), warm: warm}
	killed := make(chan error, 1)
	go func() { killed <- d.lose(ctx, r, s.at(warm).Add(before)) }()
	published, err := d.publish(ctx, r, s)
	if err != nil {
		return nil, err
	}
	if err := <-killed; err != nil {
		return nil, err
	}
	committed, err := d.awaitCommits(ctx, s)
	if err != nil {
		return nil, err
	}
	all := s.first + s.events
	if err := d.database.Applied(ctx, all, orders.Total(all), false); err != nil {
		return nil, err
	}
	result := &killResult{at: rate}
	result.Latency, err = latencyOf(published[warm:], committed[warm:], func(int) bool { return true })
	return result, err
}

// lose kills the processes of cluster west at that time.
func (d *deployment) lose(ctx context.Context, r Row, at time.Time) error {
	if !sleep(ctx, at.Sub(d.o.Now())) {
		return context.Cause(ctx)
	}
	for _, p := range d.processes {
		if p.cluster == west {
			p.Destroy()
		}
	}
	if r.mode != modeStandby {
		return nil
	}
	return d.database.SetHedge(ctx, east, "0")
}

// awaitCommits waits until all events of a schedule are committed, and returns the time
// of each commit.
func (d *deployment) awaitCommits(ctx context.Context, s schedule) ([]time.Time, error) {
	times := make([]time.Time, s.events)
	err := d.await(ctx, "all events to be committed", func(ctx context.Context) error {
		commits, err := d.database.Commits(ctx)
		if err != nil {
			return err
		}
		if all := s.first + s.events; len(commits) < all {
			return fmt.Errorf("%d of %d are", len(commits), all)
		}
		for i := range times {
			var known bool
			if times[i], known = commits[ledger.NewKey(orders.Name, orders.Source, orders.ID(s.first+i))]; !known {
				return fmt.Errorf("event %d is not", s.first+i)
			}
		}
		return nil
	})
	return times, err
}
