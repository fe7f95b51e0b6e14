package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// sweepInterval is the time between two looks at the whole ledger. All sources do
// it, one at a time.
const sweepInterval = 10 * time.Minute

// forget lets the ledger forget what is old, until ctx ends.
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
			logger.LogAttrs(ctx, slog.LevelWarn, "ledger retention failed; retrying later", slog.Any("err", err))
		case rows > 0:
			logger.LogAttrs(ctx, slog.LevelInfo, "ledger retention deleted old rows", slog.Int64("rows", rows))
		}
	}
}
