// Package schema brings a database up to what this version of Tandem and all of
// its functions need.
package schema

import (
	"context"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// Migrate applies what is missing, as [sinkwriter.Migrate] says.
func Migrate(ctx context.Context, databaseURL string) error {
	return sinkwriter.Migrate(ctx, databaseURL, Sets()...)
}

// Sets are the migrations of all functions that have some.
func Sets() []sinkwriter.MigrationSet {
	var sets []sinkwriter.MigrationSet
	for _, f := range tandem.Functions() {
		if f.Migrations != nil {
			sets = append(sets, sinkwriter.MigrationSet{Name: f.Name, Files: f.Migrations})
		}
	}
	return sets
}
