package main

import (
	"context"
	"fmt"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
)

const (
	// farTrip is the round trip of row far.
	farTrip = 80 * time.Millisecond

	// farEvents is the maximum number of events of a trial of it.
	farEvents = 200_000
)

// runFar measures one cluster that is far from the database. Each of its connections commits a
// batch in two round trips.
func runFar(ctx context.Context, t *trial) error {
	l := link.New()
	defer l.Close()
	url, err := l.URL(t.databaseURL)
	if err != nil {
		return fmt.Errorf("row far: %w", err)
	}
	l.Set(link.Condition{Delay: farTrip / 2})
	t.databaseURL = url
	t.events = min(t.events, farEvents)
	// Enough offers are waiting to fill the next batch of each connection.
	t.options.callers = max(t.options.callers, 3*t.options.connections*t.options.batch)
	west, err := t.cluster(ctx, "west")
	if err != nil {
		return err
	}
	var w workload
	if err := t.measure(ctx, func(ctx context.Context) error {
		return west.offer(ctx, t, w, nil)
	}); err != nil {
		return err
	}
	t.sample.linkLimit = float64(t.options.connections*t.options.batch) / (2 * farTrip).Seconds()
	if err := t.check(ctx, w, west); err != nil {
		return err
	}
	for _, pool := range t.pools { // they end before the link
		pool.Close()
	}
	return nil
}
