package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/test/deployment"
)

const (
	// sourceReplicas is how many replicas the source of the only active cluster has.
	sourceReplicas = 2

	// takeoverLimit is how long a drill waits for another active replica.
	takeoverLimit = 30 * time.Second

	// frozenFor is how long a replica stays frozen after another one is active, and settled
	// the pause after each takeover.
	frozenFor = 500 * time.Millisecond
	settled   = 700 * time.Millisecond
)

// takeover is the fate of the active replica of a source, and the allowed longest gap.
type takeover struct {
	what     string
	from, to time.Time
	limit    time.Duration
}

// takeovers are the ways to end an active replica. Each returns when another replica is
// active and the first one is running again.
var takeovers = []struct {
	what   string
	limit  time.Duration
	strike func(ctx context.Context, c *devcluster.Cluster, active int) error
}{
	{"killed", drill.SourceTakeover, func(ctx context.Context, c *devcluster.Cluster, active int) error {
		c.Sources[active].Destroy()
		if err := awaitActive(ctx, c, other(active)); err != nil {
			return err
		}
		return c.StartSource(active)
	}},
	{"frozen", drill.SourceTakeover, func(ctx context.Context, c *devcluster.Cluster, active int) error {
		if err := c.Sources[active].Kill(syscall.SIGSTOP); err != nil {
			return err
		}
		err := awaitActive(ctx, c, other(active))
		deployment.Wait(ctx, frozenFor)
		return errors.Join(err, c.Sources[active].Kill(syscall.SIGCONT))
	}},
	{"rolled out", drill.SourceHandover, func(ctx context.Context, c *devcluster.Cluster, active int) error {
		c.Sources[active].Stop(ctx)
		if err := awaitActive(ctx, c, other(active)); err != nil {
			return err
		}
		return c.StartSource(active)
	}},
}

func other(replica int) int { return 1 - replica }

// replaceSources ends the active replica of a source repeatedly.
func replaceSources(ctx context.Context, d *drilling) error {
	c := d.deployment.Cluster(lost)
	for n := range d.options.times {
		active, err := findActive(ctx, c)
		if err != nil {
			return err
		}
		if err := c.WaitUntilReady(ctx); err != nil {
			return err
		}
		way := takeovers[n%len(takeovers)]
		t := takeover{what: way.what, limit: way.limit, from: time.Now()}
		if err := way.strike(ctx, c, active); err != nil {
			return fmt.Errorf("replica %d is %s: %w", active+1, way.what, err)
		}
		deployment.Wait(ctx, settled)
		t.to = time.Now()
		d.takeovers = append(d.takeovers, t)
		d.note("replica %d of the source is %s, and the other one took over", active+1, way.what)
	}
	return context.Cause(ctx)
}

// findActive returns the active replica, as soon as there is exactly one.
func findActive(ctx context.Context, c *devcluster.Cluster) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverLimit)
	defer cancel()
	for {
		if active := c.ActiveSource(ctx); active >= 0 {
			return active, nil
		}
		if !deployment.Wait(ctx, poll) {
			return 0, errors.New("no replica of the source is active")
		}
	}
}

// awaitActive returns when a replica is active.
func awaitActive(ctx context.Context, c *devcluster.Cluster, replica int) error {
	ctx, cancel := context.WithTimeout(ctx, takeoverLimit)
	defer cancel()
	for c.ActiveSource(ctx) != replica {
		if !deployment.Wait(ctx, poll) {
			return fmt.Errorf("replica %d did not take over within %s", replica+1, takeoverLimit)
		}
	}
	return nil
}

// checkTakeovers checks the longest gap of each kind of takeover.
func (d *drilling) checkTakeovers(rec *drill.Record) {
	for _, way := range takeovers {
		var longest time.Duration
		times := 0
		for _, t := range d.takeovers {
			if t.what == way.what {
				longest, times = max(longest, rec.Gap(t.from, t.to)), times+1
			}
		}
		limit := way.limit
		if d.options.maxGap > 0 {
			limit = d.options.maxGap
		}
		if times > 0 {
			d.result.Check(fmt.Sprintf("longest gap of %d times that a replica is %s", times, way.what), longest <= limit, longest, limit, "")
		}
	}
}
