package harness

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

// requestTimeout bounds a request to NATS whose context has no deadline. It is long because a
// benchmark ends after a failed request, and a busy machine must not cause one.
const requestTimeout = 30 * time.Second

// Servers are the servers of a benchmark and connections to them.
type Servers struct {
	*devcluster.Deployment

	Admin *pgxpool.Pool    // the superuser's; nil without PostgreSQL
	JS    natsjs.JetStream // nil without NATS

	temporary string // folder that Stop removes
}

// Start starts the servers of a deployment and waits until they answer. Stop must be called
// in the end. Dir defaults to a temporary folder, which Stop removes. JS publishes up to
// ahead messages before the stream has answered.
func Start(ctx context.Context, cfg devcluster.Config, ahead int) (_ *Servers, err error) {
	s := &Servers{}
	if cfg.Dir == "" {
		if cfg.Dir, err = devcluster.TempDir("", "tandem-bench-"); err != nil {
			return nil, err
		}
		s.temporary = cfg.Dir
	}
	defer func() {
		if err != nil {
			s.Stop(ctx)
		}
	}()
	if s.Deployment, err = devcluster.New(cfg); err != nil {
		return nil, err
	}
	if err = s.Start(ctx); err != nil {
		return nil, err
	}
	if s.NC != nil {
		if s.JS, err = natsjs.New(s.NC, natsjs.WithPublishAsyncMaxPending(ahead), natsjs.WithDefaultTimeout(requestTimeout)); err != nil {
			return nil, fmt.Errorf("set up JetStream: %w", err)
		}
	}
	if p := s.Postgres(); p != nil {
		if s.Admin, err = pgxpool.New(ctx, p.AdminURL("postgres")); err != nil {
			return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
		}
	}
	return s, nil
}

// Stop ends all processes.
func (s *Servers) Stop(ctx context.Context) {
	if s.Admin != nil {
		s.Admin.Close()
	}
	if s.Deployment != nil {
		s.Deployment.Stop(ctx)
	}
	if s.temporary != "" {
		_ = devcluster.RemoveDir(s.temporary) // temporary: an error changes no result
	}
}

// URL returns the URL of a database for its owner.
func (s *Servers) URL(database string) (string, error) {
	u, err := url.Parse(s.DatabaseURL())
	if err != nil {
		return "", fmt.Errorf("parse the server's URL: %w", err)
	}
	u.Path = "/" + database
	return u.String(), nil
}

// Exec executes a statement as the superuser.
func (s *Servers) Exec(ctx context.Context, sql string) error {
	if _, err := s.Admin.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// CopyDatabase creates a database as a copy, and replaces the one with its name. The
// files are copied and not logged, so that their content is on the disk before a trial
// begins.
func (s *Servers) CopyDatabase(ctx context.Context, from, to string) error {
	if err := s.Exec(ctx, "drop database if exists "+to+" with (force)"); err != nil {
		return err
	}
	return s.Exec(ctx, "create database "+to+" template "+from+" owner tandem strategy file_copy")
}

// CommitTime returns the median duration of a small transaction, which indicates whether
// commits reach a disk.
func (s *Servers) CommitTime(ctx context.Context, now func() time.Time) (time.Duration, error) {
	conn, err := s.Admin.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer conn.Release()
	var times []time.Duration
	for range 200 {
		start := now()
		if _, err := conn.Exec(ctx, "select pg_logical_emit_message(true, 'bench', '')"); err != nil {
			return 0, fmt.Errorf("time a commit: %w", err)
		}
		times = append(times, now().Sub(start))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
