package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

const (
	// patience is how long something may fail since a server is killed again and
	// again: each start takes a second, and recovery.
	patience = 30 * time.Second

	// tries is how often something may fail on a server that stays up: its
	// clients need a moment to find it again.
	tries      = 5
	tryPause   = 200 * time.Millisecond
	dialPause  = 10 * time.Millisecond
	dialLimit  = 10 * time.Second
	tryTimeout = 20 * time.Second
)

// server is one of those that a run starts and that may be killed at any moment.
type server interface {
	Process() *supervisor.Process
	WaitUntilReady(ctx context.Context) error
}

var (
	_ server = (*devcluster.Postgres)(nil)
	_ server = (*devcluster.NATS)(nil)
)

// patiently does something that a server must be up for, and again if it was killed
// meanwhile. The server is nil if it is not ours.
func patiently(ctx context.Context, s server, do func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for failed := 0; ; {
		restarts := 0
		if s != nil {
			if err := s.WaitUntilReady(limit); err != nil {
				return err
			}
			restarts = s.Process().Restarts()
		}
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		err := do(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(tryPause):
		case <-limit.Done():
			return err
		}
		if s == nil || s.Process().Pid() != 0 && s.Process().Restarts() == restarts {
			failed++
		}
		if failed == tries {
			return err
		}
	}
}

// awaitConnection waits until a connection that is made beside us is there.
func awaitConnection(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(dialPause):
		case <-ctx.Done():
			return errors.Join(err, fmt.Errorf("waited %s", dialLimit))
		}
	}
}
