package main

import (
	"context"
	"errors"
	"time"
)

// killAt is the share of the events that has been applied when a cluster is
// killed.
const killAt = 0.3

// killed is the outcome of a trial in which a cluster was killed with SIGKILL
// during its work.
type killed struct {
	// Alone is the state with only the other cluster, when everything was
	// processed or nothing progressed any more. Missing events were held by the
	// dead cluster, and the survivor did not take them over by itself.
	Alone result `json:"alone"`

	// CaughtUp is the time from the kill until the survivor had processed
	// everything, in seconds; 0 if it did not.
	CaughtUp float64 `json:"caught_up_s,omitempty"`

	// Back is the state after the dead cluster had returned; the same as Alone
	// if nothing was left to do.
	Back result `json:"back"`

	// Recovered is the time from its return until everything was processed; 0 if
	// it was before, or never.
	Recovered float64 `json:"recovered_s,omitempty"`
}

// killed kills a cluster during a backlog.
func (d *deployment) killed(ctx context.Context, p peer, concurrency int, load workload) (killed, error) {
	t, err := d.begin(ctx, p, concurrency, load)
	if err != nil {
		return killed{}, err
	}
	defer t.end()
	if err := publish(ctx, d.JS, load.messages, 0); err != nil {
		return killed{}, err
	}
	for _, cluster := range []string{west, east} {
		if err := t.start(ctx, cluster); err != nil {
			return killed{}, err
		}
	}
	partly := func(s state) bool { return s.added >= int64(killAt*float64(load.distinct)) }
	if err := t.await(ctx, partly); err != nil {
		return killed{}, err
	}
	t.kill(west)
	at := time.Now()

	var k killed
	err = t.await(ctx, t.applied)
	if err != nil && !errors.Is(err, errStalled) {
		return killed{}, err
	}
	if err == nil {
		k.CaughtUp = time.Since(at).Seconds()
	}
	if k.Alone, err = t.outcome(ctx); err != nil {
		return killed{}, err
	}
	if err := t.start(ctx, west); err != nil {
		return killed{}, err
	}
	at = time.Now()
	err = t.await(ctx, t.through)
	if err != nil && !errors.Is(err, errStalled) {
		return killed{}, err
	}
	if err == nil && k.CaughtUp == 0 {
		k.Recovered = time.Since(at).Seconds()
	}
	k.Back, err = t.outcome(ctx)
	return k, err
}
