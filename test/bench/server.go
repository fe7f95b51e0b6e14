package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/sinkwriter"
)

//go:embed tables.sql
var tables embed.FS

// settings are what differs from PostgreSQL's defaults: enough memory and room
// in the log that no trial waits for a checkpoint that another one brought up.
var settings = map[string]string{
	"shared_buffers":  "256MB",
	"max_wal_size":    "4GB",
	"max_connections": "200",
}

// Databases that trials start as copies of.
const (
	emptyTemplate  = "bench_empty"
	ledgerTemplate = "bench_ledger"
	randomTemplate = "bench_ledger_random"

	trialDatabase = "bench_trial"
)

// server is the PostgreSQL that everything is measured on.
type server struct {
	sup      *supervisor.Supervisor
	postgres *devcluster.Postgres
	admin    *pgxpool.Pool
	dir      string // to be removed in the end; empty if it is the user's
	made     map[string]bool
}

func startServer(ctx context.Context, dir string) (*server, error) {
	s := &server{made: map[string]bool{}}
	if dir == "" {
		made, err := os.MkdirTemp("", "tandem-bench-")
		if err != nil {
			return nil, fmt.Errorf("make a folder for the server: %w", err)
		}
		dir, s.dir = made, made
		if err := os.Chmod(dir, 0o755); err != nil { // whoever the server runs as must enter
			return nil, fmt.Errorf("make a folder for the server: %w", err)
		}
	}
	var err error
	if s.sup, err = supervisor.New(supervisor.Config{LogDir: dir}); err != nil {
		return nil, err
	}
	config := devcluster.PostgresConfig{Dir: dir, Settings: settings}
	if s.postgres, err = devcluster.StartPostgres(ctx, s.sup, config); err != nil {
		s.stop(ctx)
		return nil, err
	}
	if s.admin, err = pgxpool.New(ctx, s.postgres.AdminURL("postgres")); err != nil {
		s.stop(ctx)
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	if err := s.makeEmpty(ctx); err != nil {
		s.stop(ctx)
		return nil, err
	}
	return s, nil
}

func (s *server) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if s.admin != nil {
		s.admin.Close()
	}
	s.sup.Stop(ctx)
	if s.dir != "" {
		data := s.dir
		if s.postgres != nil {
			data = s.postgres.DataDir() // elsewhere, if root's folder is closed to the server
		}
		_ = errors.Join(os.RemoveAll(data), os.RemoveAll(s.dir)) // a temporary folder: not worth a word
	}
}

// url connects to a database as its owner.
func (s *server) url(database string) (string, error) {
	u, err := url.Parse(s.postgres.URL())
	if err != nil {
		return "", fmt.Errorf("the server's URL: %w", err)
	}
	u.Path = "/" + database
	return u.String(), nil
}

func (s *server) exec(ctx context.Context, sql string) error {
	if _, err := s.admin.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// makeEmpty makes the template with all tables, and nothing in them.
func (s *server) makeEmpty(ctx context.Context) error {
	if err := s.copyDatabase(ctx, "template0", emptyTemplate); err != nil {
		return err
	}
	databaseURL, err := s.url(emptyTemplate)
	if err != nil {
		return err
	}
	return sinkwriter.Migrate(ctx, databaseURL, sinkwriter.MigrationSet{Name: functionName, Files: tables})
}

// copyDatabase makes a database as a copy. The files are copied rather than
// logged: what they hold is on the disk before the trial begins.
func (s *server) copyDatabase(ctx context.Context, from, to string) error {
	if err := s.exec(ctx, "drop database if exists "+to+" with (force)"); err != nil {
		return err
	}
	return s.exec(ctx, "create database "+to+" template "+from+" owner tandem strategy file_copy")
}

// fillInterval is the time between two rows that are in the ledger beforehand.
const fillInterval = 60 * time.Millisecond

// fillSQL puts rows into the ledger as a week of events would have left them.
const (
	fillOrderedSQL = `insert into tandem.ledger (committed_at, writer, key, digest)
select now() - ($1::bigint - n) * interval '60 ms', 1,
	(lpad(to_hex(n), 12, '0') || left(md5(n::text), 20))::uuid, decode(md5('d' || n), 'hex')
from generate_series(1, $1::bigint) as n`

	// In the order of the keys, and with as much room in the pages as insertions
	// at random leave.
	fillRandomSQL = `insert into tandem.ledger (committed_at, writer, key, digest)
select now() - ($1::bigint - n) * interval '60 ms', 1, md5(n::text)::uuid, decode(md5('d' || n), 'hex')
from generate_series(1, $1::bigint) as n order by 3`
	roomSQL   = `alter index tandem.ledger_pkey set (fillfactor = 70)`
	noRoomSQL = `alter index tandem.ledger_pkey reset (fillfactor)`
)

// makeLedger makes a template with a ledger of so many rows, once.
func (s *server) makeLedger(ctx context.Context, template string, rows int) error {
	if template == emptyTemplate || s.made[template] {
		return nil
	}
	if err := s.copyDatabase(ctx, emptyTemplate, template); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.postgres.AdminURL(template))
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	fill, before, after := fillOrderedSQL, "", ""
	if template == randomTemplate {
		fill, before, after = fillRandomSQL, roomSQL, noRoomSQL
	}
	if _, err := conn.Exec(ctx, before); err != nil {
		return fmt.Errorf("fill the ledger: %w", err)
	}
	if _, err := conn.Exec(ctx, fill, rows); err != nil {
		return fmt.Errorf("fill the ledger: %w", err)
	}
	for _, sql := range []string{after, "vacuum (freeze, analyze) tandem.ledger", "checkpoint"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("fill the ledger: %w", err)
		}
	}
	s.made[template] = true
	return conn.Close(ctx)
}

// describe says what the server is and how long it takes to commit.
func (s *server) describe(ctx context.Context, now func() time.Time) ([]string, error) {
	var version string
	if err := s.admin.QueryRow(ctx, "select version()").Scan(&version); err != nil {
		return nil, fmt.Errorf("ask the server for its version: %w", err)
	}
	short, _, _ := strings.Cut(version, " on ")
	// Without lz4 the outbox is not compressed with it, which was 1,096 bytes of WAL
	// per event instead of 655.
	rows, err := s.admin.Query(ctx, `select name || ' = ' || current_setting(name) from pg_settings
where name = any($1)
union all
select 'lz4 = ' || case when 'lz4' = any(enumvals) then 'on' else 'off' end from pg_settings
where name = 'default_toast_compression'
order by 1`, []string{
		"shared_buffers", "max_wal_size", "max_connections", "fsync", "synchronous_commit", "full_page_writes",
		"wal_level", "checkpoint_timeout", "data_checksums", "autovacuum", "wal_compression",
	})
	if err != nil {
		return nil, fmt.Errorf("ask the server for its settings: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("ask the server for its settings: %w", err)
	}
	commit, err := s.commitTime(ctx, now)
	if err != nil {
		return nil, err
	}
	return []string{
		fmt.Sprintf("%s, %s; a commit takes %s", short, cores(), commit.Round(time.Microsecond)),
		strings.Join(list, ", "),
	}, nil
}

// commitTime is the median time that a small transaction takes, which shows
// whether the disk is one.
func (s *server) commitTime(ctx context.Context, now func() time.Time) (time.Duration, error) {
	conn, err := s.admin.Acquire(ctx)
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
	return median(times), nil
}
