package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
)

func newBench(t *testing.T, stdout io.Writer, args ...string) *bench {
	t.Helper()
	o, err := parseOptions(append([]string{"--dir", pgtest.Dir(t)}, args...), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return &bench{options: o, stdout: stdout, stderr: t.Output(), now: time.Now, limit: 5 * time.Minute, byHand: []int{4, 16}}
}

// Every trial compares the database with the expected state, so that a run
// without an error has written exactly the right rows.
func TestEveryRowIsMeasuredAndItsOutcomeIsRight(t *testing.T) {
	t.Parallel()

	var table strings.Builder
	file := filepath.Join(t.TempDir(), "table.json")
	const events = 500
	// The rows about serving have a test of their own.
	b := newBench(t, &table, "--quick", "--events", "500", "--ledger", "5000", "--json", file,
		"--only", "^(floor|by-hand.*|one|race|single|late|lost|hot.*|ledger.*|retention|no-digest)$")
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.Row)
		if r.EventsPerSecond == nil || r.OfFloor == nil || r.OfByHand == nil {
			t.Errorf("%s: a rate or ratio is missing", r.Row)
			continue
		}
		if r.Events != events || r.Rounds != 1 {
			t.Errorf("%s: %d events and %d rounds, want %d and 1", r.Row, r.Events, r.Rounds, events)
		}
		// A slow machine has any rate.
		if *r.EventsPerSecond <= 0 || *r.EventsPerSecond > 1e6 {
			t.Errorf("%s: %.0f events a second, want 1,000,000 at most", r.Row, *r.EventsPerSecond)
		}
		if *r.AllocationsPerEvent < 1 || *r.AllocationsPerEvent > 1000 {
			t.Errorf("%s: %.1f allocations an event, want 1 to 1000", r.Row, *r.AllocationsPerEvent)
		}
		// Rows and output have 400 bytes; a cluster that loses writes none of
		// them.
		if *r.WALBytesPerEvent > 10_000 || (r.Row != rowLost && *r.WALBytesPerEvent < 100) {
			t.Errorf("%s: %.0f bytes of WAL an event, want 100 to 10,000", r.Row, *r.WALBytesPerEvent)
		}
		if *r.Deadlocks != 0 {
			t.Errorf("%s: %d deadlocks, want none", r.Row, *r.Deadlocks)
		}
		if *r.UniqueViolations > *r.Rollbacks {
			t.Errorf("%s: %d rollbacks, want at least one for each of %d unique violations", r.Row, *r.Rollbacks, *r.UniqueViolations)
		}
		// A slow machine does not need all of them.
		if most, ok := map[string]int{rowFloor: 1, rowOne: 4, rowRace: 8}[r.Row]; ok && (*r.Connections < 1 || *r.Connections > most) {
			t.Errorf("%s: %d connections, want 1 to %d", r.Row, *r.Connections, most)
		}
	}
	want := []string{
		"floor", "by-hand", "by-hand-pipelined", "by-hand-merge", "one", "race", "single", "late", "lost", "hot", "hot-numeric",
		"ledger-10m", "ledger-10m-random", "retention", "no-digest",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	for _, r := range rows {
		if !strings.Contains(table.String(), " "+r.Row+" ") {
			t.Errorf("%s is not in the table", r.Row)
		}
	}
}

func TestATrialThatLosesAnEventIsAnError(t *testing.T) {
	t.Parallel()

	b := newBench(t, io.Discard, "--events", "200")
	var err error
	if b.server, err = startServer(t.Context(), b.options.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.server.Stop(context.WithoutCancel(t.Context())) })

	for want, spoil := range map[string]string{
		"the number of orders is 199": "delete from orders where order_id = 'order-00000007'",
		"the sum of amounts is":       "update orders set amount = amount + 1 where order_id = 'order-00000007'",
	} {
		_, err := b.trial(t.Context(), scenario{run: func(ctx context.Context, t *trial) error {
			if err := runFloor(ctx, t); err != nil {
				return err
			}
			if _, err := t.admin.Exec(ctx, spoil); err != nil {
				return err
			}
			return t.expectOrders(ctx, workload{})
		}}, 0)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", spoil, err, want)
		}
	}
}

func TestRollbacksOfATrialAreCounted(t *testing.T) {
	t.Parallel()

	b := newBench(t, io.Discard, "--events", "200")
	var err error
	if b.server, err = startServer(t.Context(), b.options.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.server.Stop(context.WithoutCancel(t.Context())) })

	const rollbacks = 7
	got, err := b.trial(t.Context(), scenario{run: func(ctx context.Context, t *trial) error {
		pool, err := t.pool(ctx, 1)
		if err != nil {
			return err
		}
		return t.measure(ctx, func(ctx context.Context) error {
			for range rollbacks {
				if _, err := pool.Exec(ctx, "select 1/0"); err == nil {
					return errors.New("a division by zero went well")
				}
			}
			return nil
		})
	}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got.rollbacks != rollbacks || got.deadlocks != 0 {
		t.Errorf("%d rollbacks and %d deadlocks, want %d and 0", got.rollbacks, got.deadlocks, rollbacks)
	}
}

func TestRatiosAreMediansWithinRounds(t *testing.T) {
	t.Parallel()

	samples := func(rates ...float64) []sample {
		var list []sample
		for _, r := range rates {
			list = append(list, sample{events: 1, eventsPerSecond: r})
		}
		return list
	}
	// The machine is slow in the second and fast in the third round.
	rows := summarise([]result{
		{scenario: scenario{name: rowFloor}, trials: [][]sample{samples(100, 10, 300)}},
		{scenario: scenario{name: rowByHand}, trials: [][]sample{samples(1, 1, 1), samples(5, 0.5, 15), samples(2, 2, 2)}},
		{scenario: scenario{name: rowRace}, trials: [][]sample{samples(50, 6, 150)}},
	})
	for i, want := range []struct{ rate, ofFloor, ofByHand float64 }{{100, 1, 20}, {5, 0.05, 1}, {50, 0.5, 10}} {
		got := rows[i]
		if *got.EventsPerSecond != want.rate || *got.OfFloor != want.ofFloor || *got.OfByHand != want.ofByHand {
			t.Errorf("%s: %v events/s, %v of floor, %v of by hand, want %+v",
				got.Row, *got.EventsPerSecond, *got.OfFloor, *got.OfByHand, want)
		}
	}
}

func TestWrongFlagsAreRefusedWithAReason(t *testing.T) {
	t.Parallel()

	for want, args := range map[string][]string{
		"--rounds -1: want 1 to 1000": {"--rounds", "-1"},
		"--only: error parsing":       {"--only", "("},
		`unexpected argument "race"`:  {"race"},
		"--batch 10001":               {"--batch", "10001"},
	} {
		var output strings.Builder
		if _, err := parseOptions(args, &output); !errors.Is(err, errUsage) || !strings.Contains(output.String(), want) {
			t.Errorf("%v: error %v and output %q, want %v and %q in it", args, err, output.String(), errUsage, want)
		}
	}
	var output strings.Builder
	if _, err := parseOptions([]string{"--help"}, &output); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: error %v, want %v", err, flag.ErrHelp)
	}
	for _, s := range scenarios() {
		if !strings.Contains(output.String(), "\n  "+s.name+" ") {
			t.Errorf("--help does not explain row %s", s.name)
		}
	}
}

func TestALedgerWhoseWindowSlidesEndsWithNewRows(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	b := newBench(t, &table, "--quick", "--only", "^window$", "--ledger", "5000", "--rounds", "1")
	if err := b.run(t.Context()); err != nil { // it compares the number of rows with those won and forgotten
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), " window ") {
		t.Errorf("the table is\n%s", table.String())
	}
}
