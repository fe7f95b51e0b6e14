package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// sample is the measurement of one trial.
type sample struct {
	events            int // distinct
	eventsPerSecond   float64
	walBytes          int64
	allocations       uint64
	clientCPU         time.Duration // of this process
	serverCPU         time.Duration // of all of the server's
	cpuKnown          bool
	connections       int
	rollbacks         int64
	deadlocks         int64
	uniqueViolations  int64
	secondsOfWholeRun float64
	linkLimit         float64 // events a second that the link allows; 0 for no limit
}

// trial is one measurement of a row, on a database of its own.
type trial struct {
	options     options
	server      *server
	logger      *slog.Logger
	progress    func(format string, args ...any)
	now         func() time.Time
	databaseURL string
	admin       *pgx.Conn // in the trial's database, as superuser

	events      int
	ledgerRows  int // before the trial
	connections int // a cluster's
	single      bool
	checks      bool // whether clusters detect divergence

	beside func(context.Context) error // runs while two clusters are measured, until its context ends

	forgotten int64 // rows of the ledger

	clusters []*cluster
	pools    []*pgxpool.Pool
	sample   sample
}

// trial measures a row once.
func (b *bench) trial(ctx context.Context, s scenario, connections int) (sample, error) {
	t := &trial{
		options: b.options, server: b.server, logger: b.logger(), progress: b.progress, now: b.now,
		events: b.options.events, connections: connections, single: s.single, checks: !s.noDivergence,
	}
	if s.byHand {
		t.events = byHandEvents(t.events)
	}
	template := emptyTemplate
	if s.template != "" {
		template, t.ledgerRows = s.template, b.options.ledgerRows
		if !b.server.made[template] {
			b.progress("%s rows for the ledger of %s …", thousands(t.ledgerRows), s.name)
		}
		if err := b.server.makeLedger(ctx, template, t.ledgerRows); err != nil {
			return sample{}, err
		}
	}
	if err := b.server.CopyDatabase(ctx, template, trialDatabase); err != nil {
		return sample{}, err
	}
	var err error
	if t.databaseURL, err = b.server.URL(trialDatabase); err != nil {
		return sample{}, err
	}
	if t.admin, err = pgx.Connect(ctx, b.server.Postgres().AdminURL(trialDatabase)); err != nil {
		return sample{}, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = t.admin.Close(context.WithoutCancel(ctx)) }()

	err = s.run(ctx, t)
	for _, pool := range t.pools {
		pool.Close()
	}
	if err != nil {
		return sample{}, err
	}
	if err := t.counters(ctx); err != nil {
		return sample{}, err
	}
	return t.sample, nil
}

// pool opens connections of one cluster, all at once.
func (t *trial) pool(ctx context.Context, connections int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(t.databaseURL)
	if err != nil {
		return nil, fmt.Errorf("the trial's database: %w", err)
	}
	config.MaxConns = int32(connections)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	t.pools = append(t.pools, pool)
	for range connections {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
		}
		defer conn.Release()
	}
	return pool, nil
}

// measure measures the duration of work. It first executes a checkpoint and
// collects garbage of earlier trials. It may be called once per trial.
func (t *trial) measure(ctx context.Context, work func(context.Context) error) error {
	if _, err := t.admin.Exec(ctx, "checkpoint"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	runtime.GC()
	walBefore, err := t.walPosition(ctx)
	if err != nil {
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	client, server, known := t.cpu()
	start := t.now()

	if err := work(ctx); err != nil {
		return err
	}

	elapsed := t.now().Sub(start)
	runtime.ReadMemStats(&after)
	clientAfter, serverAfter, knownAfter := t.cpu()
	walAfter, err := t.walPosition(ctx)
	if err != nil {
		return err
	}
	for _, pool := range t.pools {
		t.sample.connections += int(pool.Stat().TotalConns())
	}
	t.sample.events = t.events
	t.sample.secondsOfWholeRun = elapsed.Seconds()
	t.sample.eventsPerSecond = float64(t.events) / elapsed.Seconds()
	t.sample.walBytes = walAfter - walBefore
	t.sample.allocations = after.Mallocs - before.Mallocs
	t.sample.clientCPU, t.sample.serverCPU = clientAfter-client, serverAfter-server
	t.sample.cpuKnown = known && knownAfter
	return nil
}

func (t *trial) walPosition(ctx context.Context) (int64, error) {
	var position int64
	if err := t.admin.QueryRow(ctx, "select (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&position); err != nil {
		return 0, fmt.Errorf("read the WAL position: %w", err)
	}
	return position, nil
}

// counters reads the server's counters of the trial's database. Sessions
// report their counts at the latest when they end, so all of them must have
// ended.
func (t *trial) counters(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := t.admin.Close(ctx); err != nil {
		return fmt.Errorf("close the trial's connection: %w", err)
	}
	for {
		var sessions int
		if err := t.server.Admin.QueryRow(ctx,
			"select count(*) from pg_stat_activity where datname = $1 and backend_type = 'client backend'", trialDatabase).Scan(&sessions); err != nil {
			return fmt.Errorf("wait for the end of sessions: %w", err)
		}
		if sessions == 0 {
			break
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the end of %d sessions: %w", sessions, err)
		}
	}
	if err := t.server.Admin.QueryRow(ctx,
		"select xact_rollback, deadlocks from pg_stat_database where datname = $1", trialDatabase).
		Scan(&t.sample.rollbacks, &t.sample.deadlocks); err != nil {
		return fmt.Errorf("read the database's counters: %w", err)
	}
	return nil
}

// expect compares a figure of the trial's database.
func (t *trial) expect(ctx context.Context, what, sql string, want int64) error {
	var got int64
	if err := t.admin.QueryRow(ctx, sql).Scan(&got); err != nil {
		return fmt.Errorf("check %s: %w", what, err)
	}
	return equal(what, got, want)
}

func equal(what string, got, want int64) error {
	if got != want {
		return fmt.Errorf("the outcome is wrong: %s is %d, want %d", what, got, want)
	}
	return nil
}

// expectOrders checks that the orders of all events exist, each once.
func (t *trial) expectOrders(ctx context.Context, w workload) error {
	if err := t.expect(ctx, "the number of orders", "select count(*) from orders", int64(t.events)); err != nil {
		return err
	}
	return t.expect(ctx, "the sum of amounts", "select sum(amount)::bigint from orders", w.total(t.events))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
