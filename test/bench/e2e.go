package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/test/bench/e2e"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

const (
	e2eDatabase = "bench_e2e"

	// A trial of a few seconds is sufficient for a rate, and a p99.9 latency needs
	// tens of thousands of events.
	mostEndToEnd     = 100_000
	e2eDuration      = 30 * time.Second
	quickE2EDuration = 3 * time.Second

	// A probe is long enough for a lag to grow, and short enough to make many of
	// them.
	e2eProbe        = 6 * time.Second
	quickE2EProbe   = 2 * time.Second
	e2ePrecision    = 1.06
	quickPrecision  = 1.2
	e2eLimit        = 4 * time.Minute
	quickE2ELimit   = time.Minute
	besideDuration  = 2 * time.Minute
	pendingDuration = 2 * time.Minute // for a source to nak messages several times

	// The rate that a single stalling cluster sustains on two cores.
	defaultE2ERate = 1000
	defaultE2ESync = "2m"

	defaultPending = 10_000_000
	quickPending   = 100_000
)

// selectedE2E returns the rows of package e2e that the flags select.
func (o options) selectedE2E() []e2e.Row {
	var list []e2e.Row
	for _, r := range e2e.Rows() {
		if o.only.MatchString(r.Name) && (!r.Long() || o.only.String() != "") {
			list = append(list, r)
		}
	}
	return list
}

// e2e measures the rows of package e2e and returns them as text and for JSON, together with
// the errors of rows that failed.
func (b *bench) e2e(ctx context.Context) (text string, rows []any, err error) {
	selected := b.options.selectedE2E()
	if len(selected) == 0 {
		return "", nil, nil
	}
	programs := b.programs
	if programs == (e2e.Programs{}) {
		dir, err := os.MkdirTemp("", "tandem-bench-")
		if err != nil {
			return "", nil, fmt.Errorf("create a folder for the programs: %w", err)
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
		if programs, err = e2e.Build(ctx, dir); err != nil {
			return "", nil, err
		}
	}
	o := e2e.Options{
		Programs: programs, Events: min(b.options.events, mostEndToEnd), Rounds: b.options.rounds,
		Rate: b.options.e2eRate, RaceRate: b.options.raceRate, Duration: e2eDuration, Probe: e2eProbe, Precision: e2ePrecision,
		Beside: besideDuration, Limit: e2eLimit, SyncInterval: b.options.e2eSync, Env: b.options.e2eEnv,
		Dir: b.options.dir, NewDatabase: b.newE2EDatabase, Pending: b.options.pending, Workers: b.byHand,
		Now: b.now, Progress: b.progress,
	}
	if b.options.quick {
		o.Duration, o.Probe, o.Precision, o.Limit = quickE2EDuration, quickE2EProbe, quickPrecision, quickE2ELimit
	}
	if b.options.quick {
		o.Beside = quickE2EDuration
	}
	o.Limit = cmp.Or(b.limit, o.Limit)
	if b.options.beside > 0 {
		o.Beside = b.options.beside
	}
	o.Duration = cmp.Or(b.options.e2eDuration, o.Duration)
	o.Probe = min(cmp.Or(b.options.e2eProbe, o.Probe), o.Duration)
	var failures error // of single rows: the others are in the table
	for _, r := range selected {
		if !r.Long() {
			o.Rows = append(o.Rows, r)
		}
	}
	if len(o.Rows) > 0 {
		var lines []e2e.Line
		lines, failures = e2e.Run(ctx, o)
		if ctx.Err() != nil {
			return "", nil, failures
		}
		text += e2e.Format(lines, o)
		for _, l := range lines {
			rows = append(rows, l)
		}
		if b.options.modesSVG != "" {
			if err := os.WriteFile(b.options.modesSVG, []byte(e2e.ModesPicture(lines)), 0o644); err != nil {
				failures = errors.Join(failures, fmt.Errorf("draw the modes: %w", err))
			}
		}
	}
	for _, r := range selected {
		if !r.Long() {
			continue
		}
		if o.Duration = pendingDuration; b.options.quick {
			o.Duration = quickE2EDuration
		}
		report, err := e2e.Pending(ctx, o)
		if err != nil {
			return "", nil, err
		}
		text += e2e.FormatPending(report)
		rows = append(rows, report)
	}
	return text, rows, failures
}

// newE2EDatabase creates a database for a trial end to end.
func (b *bench) newE2EDatabase(ctx context.Context) (e2e.Database, error) {
	if err := b.server.CopyDatabase(ctx, emptyTemplate, e2eDatabase); err != nil {
		return e2e.Database{}, err
	}
	url, err := b.server.URL(e2eDatabase)
	if err != nil {
		return e2e.Database{}, err
	}
	return e2e.Database{
		URL:     url,
		CPU:     func() time.Duration { used, _ := b.server.ProcessorTime(); return used },
		Freeze:  b.server.Freeze,
		Settle:  func(ctx context.Context) error { return b.server.Exec(ctx, "checkpoint") },
		Check:   b.checkE2E,
		Work:    b.work,
		Applied: b.checkApplied, Commits: b.commits,
		SetHedge: func(ctx context.Context, cluster, hedge string) error { return b.setHedge(ctx, url, cluster, hedge) },
		Pause:    b.pause,
	}, nil
}

// work returns how many transactions have ended in the database of a trial, and how many
// bytes of WAL the server has written so far.
func (b *bench) work(ctx context.Context) (transactions, walBytes float64, err error) {
	err = b.server.Admin.QueryRow(ctx, `select (xact_commit + xact_rollback)::float8, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8
from pg_stat_database where datname = $1`, e2eDatabase).Scan(&transactions, &walBytes)
	if err != nil {
		return 0, 0, fmt.Errorf("read the work of the database: %w", err)
	}
	return transactions, walBytes, nil
}

// pause returns the longest time between two commits of events after since.
func (b *bench) pause(ctx context.Context, since time.Time) (longest time.Duration, err error) {
	conn, err := pgx.Connect(ctx, b.server.Postgres().AdminURL(e2eDatabase))
	if err != nil {
		return 0, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = conn.QueryRow(ctx, `select coalesce(max(pause), '0') from (
select committed_at - greatest(lag(committed_at) over (order by committed_at), $1) as pause from tandem.ledger) as pauses`, since).Scan(&longest)
	if err != nil {
		return 0, fmt.Errorf("read when events were committed: %w", err)
	}
	return longest, nil
}

// commits returns when each event was committed. That is when the server logged the commit,
// because the row has the time at which its transaction began.
func (b *bench) commits(ctx context.Context) (map[ledger.Key]time.Time, error) {
	conn, err := pgx.Connect(ctx, b.server.Postgres().AdminURL(e2eDatabase))
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "select key, pg_xact_commit_timestamp(xmin) from tandem.ledger")
	if err != nil {
		return nil, fmt.Errorf("read when events were committed: %w", err)
	}
	times := map[ledger.Key]time.Time{}
	var key ledger.Key
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&key), &at}, func() error {
		times[key] = at
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read when events were committed: %w", err)
	}
	return times, nil
}

func (b *bench) setHedge(ctx context.Context, databaseURL, cluster, hedge string) error {
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer pool.Close()
	return ledger.NewCheckpoints(pool, "").SetHedge(ctx, orders.Name, cluster, hedge)
}

// checkE2E compares the results of a trial with the expected ones, once.
func (b *bench) checkE2E(ctx context.Context, events int, total int64, byHand bool) error {
	left := "select count(*) from tandem.outbox"
	if byHand {
		left = "select count(*) from outbound"
	}
	return errors.Join(
		b.checkApplied(ctx, events, total, byHand),
		b.expectE2E(ctx, expectation{"the number of rows left in the outbox", left, 0}),
	)
}

// checkApplied compares the events that were applied with the expected ones.
func (b *bench) checkApplied(ctx context.Context, events int, total int64, byHand bool) error {
	known := "select count(*) from tandem.ledger"
	if byHand {
		known = "select count(*) from processed"
	}
	return b.expectE2E(ctx,
		expectation{"the number of orders", "select count(*) from orders", int64(events)},
		expectation{"the sum of amounts", "select coalesce(sum(amount), 0)::bigint from orders", total},
		expectation{"the number of recorded events", known, int64(events)},
	)
}

// expectation is the expected result of a query.
type expectation struct {
	what, sql string
	want      int64
}

// expectE2E executes queries in the database of a trial, and compares their
// results.
func (b *bench) expectE2E(ctx context.Context, expectations ...expectation) error {
	conn, err := pgx.Connect(ctx, b.server.Postgres().AdminURL(e2eDatabase))
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var errs []error
	for _, e := range expectations {
		var got int64
		if err := conn.QueryRow(ctx, e.sql).Scan(&got); err != nil {
			errs = append(errs, fmt.Errorf("check %s: %w", e.what, err))
			continue
		}
		errs = append(errs, equal(e.what, got, e.want))
	}
	return errors.Join(errs...)
}
