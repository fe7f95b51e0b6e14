package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

// ledger reads which events this run has committed, by the database's clock.
type ledger struct {
	pool    *pgxpool.Pool
	opened  time.Time     // by the database's clock
	elapsed time.Duration // of the run at that time
}

// committed summarises the commits of a run.
type committed struct {
	won         map[string]int64 // by cluster
	first, last time.Duration    // since the start of the run
}

func openLedger(ctx context.Context, pool *pgxpool.Pool, elapsed time.Duration) (ledger, error) {
	l := ledger{pool: pool, elapsed: elapsed}
	if err := pool.QueryRow(ctx, "select now()").Scan(&l.opened); err != nil {
		return ledger{}, fmt.Errorf("read the time of PostgreSQL: %w", err)
	}
	return l, nil
}

func (l ledger) read(ctx context.Context) (committed, error) {
	rows, err := l.pool.Query(ctx, `
		select coalesce(w.cluster, '?'), count(*), min(l.committed_at), max(l.committed_at)
		from tandem.ledger l left join tandem.writer w on w.writer = l.writer
		where l.committed_at >= $1
		group by 1`, l.opened)
	if err != nil {
		return committed{}, err
	}
	c := committed{won: make(map[string]int64)}
	var cluster string
	var n int64
	var first, last time.Time
	_, err = pgx.ForEachRow(rows, []any{&cluster, &n, &first, &last}, func() error {
		if at := l.since(first); len(c.won) == 0 || at < c.first {
			c.first = at
		}
		c.last = max(c.last, l.since(last))
		c.won[cluster] = n
		return nil
	})
	return c, err
}

func (l ledger) since(t time.Time) time.Duration { return l.elapsed + t.Sub(l.opened) }

func (c committed) events() int64 {
	var n int64
	for _, won := range c.won {
		n += won
	}
	return n
}

// memory records the peak memory of each process.
type memory struct {
	peak  map[string]int64 // in bytes
	looks int
}

// treeLooks is the number of observations between two measurements of the server
// with its many processes, because one takes some milliseconds.
const treeLooks = 5

func (m *memory) look(r *run) {
	if m.peak == nil {
		m.peak = make(map[string]int64)
	}
	note := func(p *supervisor.Process, measure func(int) int64) {
		if pid := p.Pid(); pid != 0 {
			m.peak[p.Name()] = max(m.peak[p.Name()], measure(pid))
		}
	}
	for _, c := range r.Clusters() {
		for _, p := range c.Processes() {
			note(p, peakMemory)
		}
	}
	for _, n := range r.NATS {
		note(n.Process(), peakMemory)
	}
	if p := r.Postgres(); p != nil && m.looks%treeLooks == 0 {
		note(p.Process(), treeMemory)
	}
	m.looks++
}

// conclude prints a summary of the run.
func (r *run) conclude(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	r.out.leave()
	r.memory.looks = 0
	r.memory.look(r)
	var c committed
	err := r.RetryDatabase(ctx, func(ctx context.Context) error {
		var err error
		c, err = r.ledger.read(ctx)
		return err
	})
	switch {
	case err != nil:
		r.out.say("the ledger cannot be read now: %v", err)
	case c.events() == 0:
		r.out.say("no event was committed in this run")
	default:
		r.out.say("%s", c.summary())
	}
	for i, cluster := range r.Clusters() {
		if c := r.watch.counters[i].total(); c.commit.count() > 0 {
			r.out.say("%s", latencies(cluster.Name(), c))
		}
	}
	r.out.say("%s", r.memory.summary())
}

func (c committed) summary() string {
	var won []string
	for _, cluster := range slices.Sorted(maps.Keys(c.won)) {
		won = append(won, fmt.Sprintf("%s won %s", cluster, count(float64(c.won[cluster]))))
	}
	rate := ""
	if took := (c.last - c.first).Seconds(); took >= 1 { // otherwise the rate is meaningless
		rate = fmt.Sprintf(" in %.1f s, %s events/s", took, count(float64(c.events())/took))
	}
	return fmt.Sprintf("%s events%s; %s; the first commit came %.1f s after the start",
		count(float64(c.events())), rate, strings.Join(won, ", "), c.first.Seconds())
}

func latencies(cluster string, c counts) string {
	var p50, p99 figure
	if v, ok := c.commit.quantile(0.5); ok {
		p50 = known(1_000 * v)
	}
	if v, ok := c.commit.quantile(0.99); ok {
		p99 = known(1_000 * v)
	}
	return fmt.Sprintf("%s: p50 %s ms, p99 %s ms from arrival to commit in the whole run", cluster, p50.millis(), p99.millis())
}

func (m *memory) summary() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m.peak)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, (m.peak[name]+1<<19)>>20))
	}
	return "memory at its peak, in MiB: " + strings.Join(parts, ", ")
}
