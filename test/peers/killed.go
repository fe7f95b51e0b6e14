package main

import (
	"context"
	"errors"
	"time"
)

// killAt is which part of the events has been applied when a cluster is killed.
const killAt = 0.3

// killed is what became of the events when a cluster was killed with SIGKILL in the
// midst of its work.
type killed struct {
	// Alone is how things stood with the other cluster alone, once all was done
	// or nothing happened any more. What is missing there was in the dead one's
	// hands, and the survivor did not take it over by itself.
	Alone result `json:"alone"`

	// CaughtUp is how long after the kill the survivor had done everything, in
	// seconds; 0 if it did not.
	CaughtUp float64 `json:"caught_up_s,omitempty"`

	// Back is how it was after the dead cluster had come back; as Alone if there
	// was nothing left to do.
	Back result `json:"back"`

	// Recovered is how long after it came back all was done; 0 if it was before,
	// or never.
	Recovered float64 `json:"recovered_s,omitempty"`
}

// killed kills a cluster in the midst of a backlog.
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
