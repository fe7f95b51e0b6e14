package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// runRetention measures race while the ledger forgets as many old rows as new
// ones are added, as it does permanently once it is as old as the retention.
func runRetention(ctx context.Context, t *trial) error {
	w, err := t.window(ctx)
	if err != nil {
		return err
	}
	defer w.pool.Close()
	t.beside = func(ctx context.Context) error { return w.forget(ctx, func() int64 { return int64(t.events) }) }
	return race(workload{})(ctx, t)
}

// runWindow adds as many events as the ledger has rows, and forgets old rows at
// the same pace: at the end all rows are new, and the table should not have
// grown.
func runWindow(ctx context.Context, t *trial) error {
	t.events = t.ledgerRows
	w, err := t.window(ctx)
	if err != nil {
		return err
	}
	defer w.pool.Close()
	before, err := w.size(ctx)
	if err != nil {
		return err
	}
	t.progress("the ledger has %s rows and %s MiB", thousands(t.ledgerRows), thousands(int(before>>20)))
	said := int64(0)
	t.beside = func(ctx context.Context) error {
		return w.forget(ctx, func() int64 {
			won := t.won()
			if step := int64(t.events / 10); won/step > said {
				said = won / step
				size, _ := w.size(ctx) // only shown
				t.progress("%s events were added, %s rows deleted: %s MiB", thousands(int(won)), thousands(int(t.forgotten)), thousands(int(size>>20)))
			}
			return won
		})
	}
	if err := race(workload{})(ctx, t); err != nil {
		return err
	}
	after, err := w.size(ctx)
	if err != nil {
		return err
	}
	t.progress("all rows are new: %s MiB, %.2f times the original size", thousands(int(after>>20)), float64(after)/float64(before))
	return nil
}

// window is a ledger whose rows are forgotten, oldest first.
type window struct {
	trial  *trial
	pool   *pgxpool.Pool // not counted as a cluster's
	oldest time.Time
}

func (t *trial) window(ctx context.Context) (*window, error) {
	pool, err := pgxpool.New(ctx, t.databaseURL)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	w := &window{trial: t, pool: pool}
	if err := pool.QueryRow(ctx, "select min(committed_at) from tandem.ledger").Scan(&w.oldest); err != nil {
		pool.Close()
		return nil, fmt.Errorf("find the oldest row of the ledger: %w", err)
	}
	return w, nil
}

func (w *window) size(ctx context.Context) (size int64, err error) {
	if err := w.pool.QueryRow(ctx, "select pg_total_relation_size('tandem.ledger')").Scan(&size); err != nil {
		return 0, fmt.Errorf("measure the ledger: %w", err)
	}
	return size, nil
}

// forget sweeps the ledger repeatedly, so that the number of deleted oldest
// rows follows rows, until the context ends.
func (w *window) forget(ctx context.Context, rows func() int64) error {
	for ctx.Err() == nil {
		// The rows from before the trial are 60 ms apart.
		cutoff := w.oldest.Add(time.Duration(rows()) * fillInterval)
		retention, err := ledger.NewRetention(w.pool, ledger.RetentionConfig{Keep: max(w.trial.now().Sub(cutoff), time.Minute)})
		if err != nil {
			return err
		}
		n, err := retention.Sweep(ctx)
		w.trial.forgotten += n
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		_ = sleep(ctx, time.Second) // the loop looks at ctx
	}
	return nil
}
