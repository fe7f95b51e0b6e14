package main

import (
	"context"

	"github.com/tandem-fn/tandem/sinkwriter"
)

// migrate makes the tables of Tandem and of its functions.
func migrate(ctx context.Context, databaseURL string) error {
	return sinkwriter.Migrate(ctx, databaseURL)
}
