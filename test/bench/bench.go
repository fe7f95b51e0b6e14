package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/test/bench/e2e"
)

const (
	defaultEvents = 1_000_000
	quickEvents   = 30_000
	defaultRounds = 5
	defaultLedger = 10_000_000
	quickLedger   = 500_000

	// Callers, connections and batch are the values with which race was fastest
	// on two cores. Fewer callers leave batches short. With more, a batch that
	// has its claims waits in Go's run queue: with 4096 on a busy machine, some
	// waited longer than the claim timeout.
	defaultCallers     = 2048
	defaultTogether    = 64
	defaultConnections = 4
	defaultBatch       = 512

	// Little memory is live. With Go's default of 100 % the collector runs all
	// the time and scans the stacks of all callers, which takes a quarter of the
	// processor time. The rows by hand and the floor benefit too, but less.
	defaultGC = 400
)

// bench is one run of the command.
type bench struct {
	options options
	stdout  io.Writer
	stderr  io.Writer
	now     func() time.Time

	// limit bounds a trial end to end, in place of the usual limit. Tests set another one:
	// they measure nothing, and run next to others.
	limit time.Duration

	// byHand are the numbers of connections and workers that are tried by hand. Defaults
	// to those of the rows.
	byHand []int

	// programs are the programs of rows end to end. By default they are built for
	// each run.
	programs e2e.Programs

	server *server
}

// logger returns the logger of the writers. Retries are worth reporting,
// because nothing is made to fail here.
func (b *bench) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (b *bench) progress(format string, args ...any) {
	say(b.stderr, format, args...)
}

// say writes a line of progress. It ignores an error, because the output may be
// closed.
func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...)
}

// run measures the selected rows and writes the table.
func (b *bench) run(ctx context.Context) (err error) {
	selected := b.options.selected()
	if len(selected)+len(b.options.selectedServing())+len(b.options.selectedE2E()) == 0 {
		return errors.New("no row matches --only: see --help for their names")
	}
	if b.server, err = startServer(ctx, b.options.dir); err != nil {
		return err
	}
	defer b.server.Stop(ctx)

	setup, err := b.server.describe(ctx, b.now)
	if err != nil {
		return err
	}
	setup = append(setup, b.describe()...)
	if _, err := fmt.Fprintln(b.stdout, strings.Join(setup, "\n")); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if b.options.cpuProfile != "" {
		stop, err := profile(b.options.cpuProfile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}

	results, err := b.measure(ctx, selected)
	if err != nil {
		return err
	}
	rows := summarise(results)
	if len(rows) > 0 {
		if _, err := fmt.Fprintf(b.stdout, "\n%s\n%s", formatTable(rows), formatGoals(results)); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
	}
	served, servedRows, err := b.serve(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(b.stdout, "\n%s", served); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	whole, wholeRows, failures := b.e2e(ctx)
	if _, err := fmt.Fprintf(b.stdout, "\n%s", whole); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	servedRows = append(servedRows, wholeRows...)
	if b.options.jsonFile != "" {
		all := make([]any, 0, len(rows)+len(servedRows))
		for _, r := range rows {
			all = append(all, r)
		}
		return errors.Join(failures, writeJSON(b.options.jsonFile, append(all, servedRows...)))
	}
	return failures
}

// describe returns lines that describe how it is measured.
func (b *bench) describe() []string {
	o := b.options
	return []string{
		fmt.Sprintf("%s events a trial, %d round(s); by hand %s", thousands(o.events), o.rounds, thousands(byHandEvents(o.events))),
		fmt.Sprintf("each cluster: %s offers under way, %d together, Connections %d, BatchEvents %d; %s, GOMAXPROCS %d, GOGC %d",
			thousands(o.callers), o.together, o.connections, o.batch, runtime.Version(), runtime.GOMAXPROCS(0), gcPercent()),
	}
}

func gcPercent() uint64 {
	setting := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(setting)
	return setting[0].Value.Uint64()
}

// result holds the measurements of a row: for each of its numbers of
// connections, one sample per round.
type result struct {
	scenario scenario
	trials   [][]sample
}

// measure goes round robin through the rows, so that changes of the machine's
// load affect all of them.
func (b *bench) measure(ctx context.Context, selected []scenario) ([]result, error) {
	results := make([]result, len(selected))
	for i, s := range selected {
		if s.byHand && b.byHand != nil {
			s.connections = b.byHand
			selected[i] = s
		}
		results[i] = result{scenario: s, trials: make([][]sample, len(s.connections))}
	}
	for round := range b.options.rounds {
		for i, s := range selected {
			for v, connections := range s.connections {
				sample, err := b.trial(ctx, s, connections)
				if err != nil {
					return nil, fmt.Errorf("row %s, round %d: %w", s.name, round+1, err)
				}
				results[i].trials[v] = append(results[i].trials[v], sample)
				name := s.name
				if connections > 0 {
					name = fmt.Sprintf("%s at %d", s.name, connections)
				}
				b.progress("round %d/%d  %-22s %9s events/s", round+1, b.options.rounds, name, thousands(int(sample.eventsPerSecond)))
			}
		}
	}
	return results, nil
}

func profile(file string) (stop func() error, err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, fmt.Errorf("write the CPU profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("write the CPU profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
