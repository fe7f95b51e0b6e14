package devcluster

import (
	"context"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

const (
	// retryTimeout bounds the retries while a server is killed repeatedly: each start
	// takes a second, and recovery.
	retryTimeout = 30 * time.Second

	// maxAttempts bounds the attempts on a server that stays up: its clients need a
	// moment to reconnect.
	maxAttempts    = 5
	retryDelay     = 200 * time.Millisecond
	attemptTimeout = 20 * time.Second
)

// server is a process that may be killed at any moment.
type server interface {
	Process() *supervisor.Process
	WaitUntilReady(ctx context.Context) error
}

// RetryDatabase calls do, which needs the database, and calls it again if it failed because
// the server was killed meanwhile. Five failures on a server that stays up, or that the
// deployment did not start, are final; all attempts together take at most 30 s.
func (d *Deployment) RetryDatabase(ctx context.Context, do func(context.Context) error) error {
	if p := d.Postgres(); p != nil {
		return retry(ctx, []server{p}, do)
	}
	return retry(ctx, nil, do)
}

// RetryStreams is [Deployment.RetryDatabase] for NATS. If several servers share the streams,
// only the time bounds the attempts, because electing a leader takes several.
func (d *Deployment) RetryStreams(ctx context.Context, do func(context.Context) error) error {
	servers := make([]server, len(d.NATS))
	for i, n := range d.NATS {
		servers[i] = n
	}
	return retry(ctx, servers, do)
}

func retry(ctx context.Context, servers []server, do func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, retryTimeout)
	defer cancel()
	for failed := 0; ; {
		restarts := 0
		for _, s := range servers {
			if err := s.WaitUntilReady(limit); err != nil {
				return err
			}
			restarts += s.Process().Restarts()
		}
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := do(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(retryDelay):
		case <-limit.Done():
			return err
		}
		if len(servers) < 2 && stayedUp(servers, restarts) {
			failed++
		}
		if failed == maxAttempts {
			return err
		}
	}
}

// stayedUp reports whether all servers run and have not been restarted since.
func stayedUp(servers []server, restarts int) bool {
	for _, s := range servers {
		if s.Process().Pid() == 0 {
			return false
		}
		restarts -= s.Process().Restarts()
	}
	return restarts == 0
}
