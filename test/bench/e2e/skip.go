package e2e

import (
	"context"
	"fmt"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
)

const (
	// linkDelay is the delay of each direction between a rejoining cluster and the
	// database.
	linkDelay = 30 * time.Millisecond

	// leastToCatchUp is the minimum number of events of a backlog: with fewer, a cluster
	// does not lag, or finishes before another one dies.
	leastToCatchUp = 5000
)

// measureSkip makes a cluster that is far from the database rejoin after the other one has
// committed everything. The time is from the first events that it acknowledges to the last;
// events that it computes do not count.
func (o *Options) measureSkip(ctx context.Context, r Row) (sample, error) {
	events := o.eventsOf(r)
	d, err := o.deploy(ctx)
	if err != nil {
		return sample{}, err
	}
	defer d.close(ctx)
	if err := d.startRow(ctx, r, 0); err != nil {
		return sample{}, err
	}
	if err := d.fill(ctx, r, 0, 1); err != nil {
		return sample{}, err
	}
	if err := d.awaitHandled(ctx, 1, 2); err != nil {
		return sample{}, err
	}
	d.stop(ctx, west)
	if err := d.fill(ctx, r, 1, events); err != nil {
		return sample{}, err
	}
	if _, err := d.awaitOutputs(ctx, 1+events); err != nil {
		return sample{}, err
	}
	if err := d.database.Settle(ctx); err != nil {
		return sample{}, err
	}

	far := link.New()
	defer far.Close()
	far.Set(link.Condition{Delay: linkDelay})
	database, err := far.URL(d.database.URL)
	if err != nil {
		return sample{}, err
	}
	if err := d.startFunction(r, west, "DATABASE_URL="+database); err != nil {
		return sample{}, err
	}
	if err := d.awaitFunction(ctx, west); err != nil {
		return sample{}, err
	}
	if err := d.startSource(r, west, "DATABASE_URL="+database); err != nil {
		return sample{}, err
	}
	s, err := d.timeSkipping(ctx, 1+events)
	if err != nil {
		return sample{}, err
	}
	counts, err := d.computed(ctx)
	if err != nil {
		return sample{}, err
	}
	computed := float64(counts[west]) / float64(events)
	s.computed = &computed
	if s.rate *= 1 - computed; s.rate <= 0 {
		return sample{}, fmt.Errorf("the cluster computed all %d events, although they were committed", events)
	}
	return s, d.check(ctx, 1+events, false)
}

// timeSkipping returns how fast the slowest consumer acknowledges events, until it has
// acknowledged all.
func (d *deployment) timeSkipping(ctx context.Context, all int) (sample, error) {
	start := d.o.Now()
	first, begin, begun := 0, start, false
	for {
		handled, _, err := d.handled(ctx)
		if err != nil {
			return sample{}, err
		}
		now := d.o.Now()
		if !begun {
			if begun = first > 0 && handled > first; !begun {
				first, begin = handled, now
			}
		}
		if handled == all {
			seconds := now.Sub(begin).Seconds()
			d.o.Progress("         %-22s %d events in %.2f s, %.2f s after the source started", RowCatchUpSkip, all-first, seconds, now.Sub(start).Seconds())
			return sample{rate: float64(all-first) / seconds, seconds: seconds}, nil
		}
		if err := d.deaths(); err != nil {
			return sample{}, err
		}
		if !sleep(ctx, 10*time.Millisecond) {
			return sample{}, fmt.Errorf("the cluster has skipped %d of %d events: %w", handled, all, context.Cause(ctx))
		}
	}
}
