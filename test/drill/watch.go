package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/test/deployment"
)

// applied returns how often events have changed the counters.
func applied(ctx context.Context, pool *pgxpool.Pool) (n int64, err error) {
	err = pool.QueryRow(ctx, `select (select coalesce(sum(flights), 0)::bigint from airports) + (select coalesce(sum(transfers), 0)::bigint / 2 from accounts)`).Scan(&n)
	return n, err
}

// enter starts a phase.
func (d *drilling) enter(phase string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = phase
}

// note reports an action, and records it for the report.
func (d *drilling) note(format string, args ...any) {
	n := drill.Note{At: time.Since(d.begun), Text: fmt.Sprintf(format, args...)}
	d.mu.Lock()
	d.result.Notes = append(d.result.Notes, n)
	d.mu.Unlock()
	d.say("%6.1f s  %s", n.At.Seconds(), n.Text)
}

// watch shows the progress once a second.
func (d *drilling) watch(ctx context.Context) {
	var before int64
	for deployment.Wait(ctx, time.Second) {
		var n int64
		looking, cancel := context.WithTimeout(ctx, time.Second)
		err := d.deployment.Pool.QueryRow(looking, "select count(*) from tandem.ledger").Scan(&n)
		cancel()
		if ctx.Err() != nil {
			return
		}
		d.mu.Lock()
		phase := d.now
		d.mu.Unlock()
		if err != nil {
			d.say("%6.1f s  %-7s the database does not answer", time.Since(d.begun).Seconds(), phase)
			continue
		}
		if before > 0 {
			d.say("%6.1f s  %-7s %d events committed, %+d", time.Since(d.begun).Seconds(), phase, n, n-before)
		}
		before = n
	}
}
