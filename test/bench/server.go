package main

import (
	"context"
	"embed"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
	"github.com/tandem-fn/tandem/test/bench/harness"
)

//go:embed tables.sql
var tables embed.FS

// settings are the differences from PostgreSQL's defaults: enough memory and
// WAL space that no trial waits for a checkpoint that another one caused.
var settings = map[string]string{
	"shared_buffers":  "256MB",
	"max_wal_size":    "4GB",
	"max_connections": "200",

	// Records when a transaction was committed, a few bytes for each.
	"track_commit_timestamp": "on",
}

// Databases that are templates for trials.
const (
	emptyTemplate  = "bench_empty"
	ledgerTemplate = "bench_ledger"
	randomTemplate = "bench_ledger_random"

	trialDatabase = "bench_trial"
)

// server is the PostgreSQL server of all measurements.
type server struct {
	*harness.Servers
	made map[string]bool
}

func startServer(ctx context.Context, dir string) (*server, error) {
	servers, err := harness.Start(ctx, devcluster.Config{Dir: dir, Postgres: &devcluster.PostgresConfig{Settings: settings}}, 0)
	if err != nil {
		return nil, err
	}
	s := &server{Servers: servers, made: map[string]bool{}}
	if err := s.makeEmpty(ctx); err != nil {
		s.Stop(ctx)
		return nil, err
	}
	return s, nil
}

// makeEmpty creates the template with all tables, without rows.
func (s *server) makeEmpty(ctx context.Context) error {
	if err := s.CopyDatabase(ctx, "template0", emptyTemplate); err != nil {
		return err
	}
	databaseURL, err := s.URL(emptyTemplate)
	if err != nil {
		return err
	}
	return schema.Migrate(ctx, databaseURL, schema.MigrationSet{Name: functionName, Files: tables})
}

// fillInterval is the time between two rows that are in the ledger beforehand.
const fillInterval = 60 * time.Millisecond

// fillSQL inserts rows into the ledger as a week of events would have.
const (
	fillOrderedSQL = `insert into tandem.ledger (committed_at, writer, key, digest)
select now() - ($1::bigint - n) * interval '60 ms', 1,
	(lpad(to_hex(n), 12, '0') || left(md5(n::text), 20))::uuid, decode(md5('d' || n), 'hex')
from generate_series(1, $1::bigint) as n`

	// In key order, and with as much free space in the pages as random
	// insertions leave.
	fillRandomSQL = `insert into tandem.ledger (committed_at, writer, key, digest)
select now() - ($1::bigint - n) * interval '60 ms', 1, md5(n::text)::uuid, decode(md5('d' || n), 'hex')
from generate_series(1, $1::bigint) as n order by 3`
	roomSQL   = `alter index tandem.ledger_pkey set (fillfactor = 70)`
	noRoomSQL = `alter index tandem.ledger_pkey reset (fillfactor)`
)

// makeLedger creates a template with a ledger of that many rows, once.
func (s *server) makeLedger(ctx context.Context, template string, rows int) error {
	if template == emptyTemplate || s.made[template] {
		return nil
	}
	if err := s.CopyDatabase(ctx, emptyTemplate, template); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.Postgres().AdminURL(template))
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

// describe returns the server's properties and the duration of a commit.
func (s *server) describe(ctx context.Context, now func() time.Time) ([]string, error) {
	var version string
	if err := s.Admin.QueryRow(ctx, "select version()").Scan(&version); err != nil {
		return nil, fmt.Errorf("read the server's version: %w", err)
	}
	short, _, _ := strings.Cut(version, " on ")
	// Without lz4 the outbox is not compressed with it, which increased the WAL per
	// event from 655 bytes to 1,096.
	rows, err := s.Admin.Query(ctx, `select name || ' = ' || current_setting(name) from pg_settings
where name = any($1)
union all
select 'lz4 = ' || case when 'lz4' = any(enumvals) then 'on' else 'off' end from pg_settings
where name = 'default_toast_compression'
order by 1`, []string{
		"shared_buffers", "max_wal_size", "max_connections", "fsync", "synchronous_commit", "full_page_writes",
		"wal_level", "checkpoint_timeout", "data_checksums", "autovacuum", "wal_compression",
	})
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	commit, err := s.CommitTime(ctx, now)
	if err != nil {
		return nil, err
	}
	return []string{
		fmt.Sprintf("%s, %s; a commit takes %s; load average before %s", short, harness.Cores(), commit.Round(time.Microsecond), harness.LoadAverage()),
		strings.Join(list, ", "),
	}, nil
}
