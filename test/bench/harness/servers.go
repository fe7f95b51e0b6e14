package harness

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

// stopTimeout bounds [Servers.Stop].
const stopTimeout = 20 * time.Second

// Config sets up [Servers]. A field left at zero takes the default named beside it.
type Config struct {
	// Dir is the folder of data and logs (Dir/log), which is kept. PostgreSQL must be able to
	// enter it. Defaults to a temporary one, which Stop removes.
	Dir string

	// Settings are added to PostgreSQL's.
	Settings map[string]string

	// OnExit is that of [supervisor.Config].
	OnExit func(supervisor.Exit)
}

// Servers are a PostgreSQL server and the supervisor of all processes of a benchmark.
type Servers struct {
	Supervisor *supervisor.Supervisor
	Postgres   *devcluster.Postgres
	Admin      *pgxpool.Pool // as the superuser

	temporary string // folder to remove in the end
}

// Start starts PostgreSQL and waits until it answers. Stop must be called in the end.
func Start(ctx context.Context, cfg Config) (_ *Servers, err error) {
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
	if s.Supervisor, err = supervisor.New(supervisor.Config{LogDir: filepath.Join(cfg.Dir, "log"), OnExit: cfg.OnExit}); err != nil {
		return nil, err
	}
	if s.Postgres, err = devcluster.StartPostgres(ctx, s.Supervisor, devcluster.PostgresConfig{
		Dir: cfg.Dir, Settings: cfg.Settings,
	}); err != nil {
		return nil, err
	}
	if s.Admin, err = pgxpool.New(ctx, s.Postgres.AdminURL("postgres")); err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return s, nil
}

// Stop ends all processes.
func (s *Servers) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if s.Admin != nil {
		s.Admin.Close()
	}
	if s.Supervisor != nil {
		s.Supervisor.Stop(ctx)
	}
	if s.temporary != "" {
		_ = devcluster.RemoveDir(s.temporary) // temporary: an error changes no result
	}
}

// URL connects to a database as its owner.
func (s *Servers) URL(database string) (string, error) {
	u, err := url.Parse(s.Postgres.URL())
	if err != nil {
		return "", fmt.Errorf("parse the server's URL: %w", err)
	}
	u.Path = "/" + database
	return u.String(), nil
}

// Exec runs a statement as the superuser.
func (s *Servers) Exec(ctx context.Context, sql string) error {
	if _, err := s.Admin.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// CopyDatabase makes a database as a copy, and replaces the one that has its name. The
// files are copied rather than logged: what they hold is on the disk before a trial
// begins.
func (s *Servers) CopyDatabase(ctx context.Context, from, to string) error {
	if err := s.Exec(ctx, "drop database if exists "+to+" with (force)"); err != nil {
		return err
	}
	return s.Exec(ctx, "create database "+to+" template "+from+" owner tandem strategy file_copy")
}

// CommitTime returns the median time that a small transaction takes, which shows whether
// the disk is one.
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
