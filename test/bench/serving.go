package main

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
	"github.com/tandem-fn/tandem/test/bench/serving"
)

const (
	servingConnections = 64
	soakConnections    = 100
	servingStarts      = 11
	quickStarts        = 3
	servingDatabase    = "bench_serving"

	// An endpoint processes more events per second than a writer, so more rounds
	// with fewer events are more informative.
	mostServed    = 200_000
	servingRounds = 3 // for each of the others
	mostCommitted = 100_000
)

// aboutServing returns the rows of package serving with their descriptions.
func aboutServing() [][2]string {
	var list [][2]string
	for _, r := range serving.Rows() {
		list = append(list, [2]string{r.Name, r.About})
	}
	return append(list,
		[2]string{serving.RowInstance, "the real instance, with 64 connections and commits: start to ready, memory, size"},
		[2]string{serving.RowSoak, "--events events sent to it over 100 connections; only if selected by name"})
}

// selectedServing returns the rows of package serving that the flags select.
func (o options) selectedServing() map[string]bool {
	selected := map[string]bool{}
	for _, row := range aboutServing() {
		if o.only.MatchString(row[0]) && (row[0] != serving.RowSoak || o.only.String() != "") {
			selected[row[0]] = true
		}
	}
	return selected
}

// serve measures the rows of package serving and returns them as text and for
// JSON.
func (b *bench) serve(ctx context.Context) (text string, rows []any, err error) {
	selected := b.options.selectedServing()
	o := serving.Options{
		Events: min(b.options.events, mostServed), Rounds: servingRounds * b.options.rounds, Connections: servingConnections,
		Profile: b.options.cpuProfile, Now: b.now, Progress: b.progress, Stderr: b.stderr,
	}
	for _, r := range serving.Rows() {
		if selected[r.Name] {
			o.Rows = append(o.Rows, r)
		}
	}
	if len(o.Rows) > 0 {
		results, err := serving.Run(ctx, o)
		if err != nil {
			return "", nil, err
		}
		lines := serving.Summarise(results)
		text += serving.Format(lines, o)
		for _, l := range lines {
			rows = append(rows, l)
		}
	}
	if !selected[serving.RowInstance] && !selected[serving.RowSoak] {
		return text, rows, nil
	}

	dir, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return "", nil, fmt.Errorf("create a folder for the instance: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	program, stripped, symbols, err := serving.Program(ctx, dir)
	if err != nil {
		return "", nil, err
	}
	if selected[serving.RowInstance] {
		starts := servingStarts
		if b.options.quick {
			starts = quickStarts
		}
		r, err := b.instance(ctx, serving.InstanceOptions{
			Program: program, Starts: starts, Requests: min(b.options.events, mostCommitted), Connections: servingConnections,
		})
		if err != nil {
			return "", nil, fmt.Errorf("row %s: %w", serving.RowInstance, err)
		}
		r.Row, r.Stripped, r.Symbols = serving.RowInstance, float64(stripped*10>>20)/10, float64(symbols*10>>20)/10
		text += serving.FormatInstance(r)
		rows = append(rows, r)
	}
	if selected[serving.RowSoak] {
		r, err := b.instance(ctx, serving.InstanceOptions{Program: program, Starts: 1, Requests: b.options.events, Connections: soakConnections})
		if err != nil {
			return "", nil, fmt.Errorf("row %s: %w", serving.RowSoak, err)
		}
		r.Row = serving.RowSoak
		text += serving.FormatInstance(r)
		rows = append(rows, r)
	}
	return text, rows, nil
}

// instance measures an instance on a database of its own, and checks that every event
// that was sent is committed.
func (b *bench) instance(ctx context.Context, o serving.InstanceOptions) (serving.InstanceReport, error) {
	fail := func(err error) (serving.InstanceReport, error) { return serving.InstanceReport{}, err }
	if err := b.server.CopyDatabase(ctx, emptyTemplate, servingDatabase); err != nil {
		return fail(err)
	}
	url, err := b.server.URL(servingDatabase)
	if err != nil {
		return fail(err)
	}
	var sets []schema.MigrationSet
	for _, f := range tandem.Functions() {
		if f.Migrations != nil {
			sets = append(sets, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
		}
	}
	if err := schema.Migrate(ctx, url, sets...); err != nil {
		return fail(err)
	}
	o.DatabaseURL, o.Now, o.Progress = url, b.now, b.progress
	r, err := serving.Instance(ctx, o)
	if err != nil {
		return fail(err)
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fail(fmt.Errorf("connect to PostgreSQL: %w", err))
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var kept int64
	if err := conn.QueryRow(ctx, "select count(*) from flights").Scan(&kept); err != nil {
		return fail(fmt.Errorf("count the committed events: %w", err))
	}
	return r, equal("the number of flights", kept, int64(o.Requests))
}
