package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// sweepInterval is the time between two sweeps of the whole ledger. All sources sweep,
// one at a time.
const sweepInterval = 10 * time.Minute

// forget deletes old rows of the ledger until ctx ends.
func forget(ctx context.Context, retention *ledger.Retention, logger *slog.Logger) {
	ticks := time.NewTicker(sweepInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
		rows, err := retention.Sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			logger.LogAttrs(ctx, slog.LevelWarn, "deleting old rows of the ledger failed; it is retried in ten minutes, and the ledger grows until then", slog.Any("err", err))
		case rows > 0:
			logger.LogAttrs(ctx, slog.LevelInfo, "ledger retention deleted old rows", slog.Int64("rows", rows))
		}
	}
}
