package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/test/bench/e2e"
)

// e2eRows are rows of each kind.
const e2eRows = "^(e2e-by-hand|e2e|e2e-race|latency-50-by-hand|nap-50|freeze-50|slow-50|stall-alone|stop-alone|catch-up-.*|ordered-tight)$"

// programs are built once for all tests.
var programs = sync.OnceValues(func() (e2e.Programs, error) {
	dir, err := pgtest.ProcessDir()
	if err != nil {
		return e2e.Programs{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return e2e.Build(ctx, dir)
})

// Every trial compares database and stream with the expected state, so that a run without an
// error has processed every event correctly. Whether a rate is sustained, and how many events
// both clusters compute, depends on the machine and is not checked.
func TestRowsOfEachKindEndToEndAreMeasured(t *testing.T) {
	t.Parallel()

	var table strings.Builder
	file := filepath.Join(t.TempDir(), "table.json")
	b := newBench(t, &table, "--quick", "--events", "500", "--e2e-rate", "100", "--race-rate", "100", "--e2e-duration", "1500ms",
		"--json", file, "--only", e2eRows)
	lines := measured[e2e.Line](t, b, &table, file)
	var want, names []string
	for _, r := range e2e.Rows() {
		if regexp.MustCompile(e2eRows).MatchString(r.Name) {
			want = append(want, r.Name)
		}
	}
	for _, l := range lines {
		names = append(names, l.Row)
		if !strings.Contains(table.String(), l.Row) {
			t.Errorf("%s is not in the table", l.Row)
		}
		if l.Outputs != 1 || l.SyncInterval == "" || l.Rounds != 1 {
			t.Errorf("%s: %+v", l.Row, l)
		}
		if l.Row == e2e.RowCatchUpDeath {
			if l.Pause == nil || *l.Pause <= 0 {
				t.Errorf("%s: the pause is %v", l.Row, l.Pause)
			}
			continue
		}
		rate := strings.Contains(l.Row, "e2e") || strings.Contains(l.Row, "race") && !strings.HasPrefix(l.Row, "st") || strings.Contains(l.Row, "-up-") || strings.HasPrefix(l.Row, "ordered")
		if rate != (l.EventsPerSecond != nil) || rate && *l.EventsPerSecond < 1 {
			t.Errorf("%s: events per second %v; whether it has a rate: %v", l.Row, l.EventsPerSecond, rate)
		}
		if race := strings.HasPrefix(l.Row, "e2e-race"); race != (len(l.Probes) == 1) {
			t.Errorf("%s: attempts at a rate %v; whether it has one: %v", l.Row, l.Probes, race)
		}
		if open := !rate || strings.Contains(l.Row, "race"); open != (l.Latency != nil) {
			t.Errorf("%s: latencies %+v; whether it is an open loop: %v", l.Row, l.Latency, open)
			continue
		} else if !open {
			continue
		}
		if l.P50 <= 0 || l.P99 < l.P50 || l.P999 < l.P99 || l.Max < l.P999 || l.At == nil || *l.At <= 0 || l.Computed == nil {
			t.Errorf("%s: %+v", l.Row, l)
		}
		// Every event that is published during the stall takes at least until its
		// end.
		if strings.HasSuffix(l.Row, "-alone") && l.Max < 50 {
			t.Errorf("%s: the longest took %v ms, though the cluster was stopped for 200 ms", l.Row, l.Max)
		}
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// measured runs b, logs its table, and returns the rows that it wrote to a file.
func measured[T any](t *testing.T, b *bench, table *strings.Builder, file string) (rows []T) {
	t.Helper()

	var err error
	if b.programs, err = programs(); err != nil {
		t.Fatal(err)
	}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// Pending messages do not use memory in a source: make bench tests it with ten million
// messages (row pending).
func TestPendingMessagesDoNotGrowASource(t *testing.T) {
	t.Parallel()

	var table strings.Builder
	file := filepath.Join(t.TempDir(), "table.json")
	b := newBench(t, &table, "--quick", "--pending", "300000", "--json", file, "--only", "^pending$")
	reports := measured[e2e.PendingReport](t, b, &table, file)
	if len(reports) != 1 || reports[0].Pending != 300_000 || reports[0].Tries < 1 {
		t.Fatalf("%+v", reports)
	}
	r := reports[0]
	if r.Few == 0 {
		t.Fatal("the system does not say how much memory a process has")
	}
	// All of them would be more than 100 MiB. The collector causes differences of up to 23
	// MiB.
	if r.Many > r.Few+50 {
		t.Errorf("a source takes %.1f MiB with %d messages pending, and %.1f MiB with few", r.Many, r.Pending, r.Few)
	}
}

func TestGoodEventsBesideBadOnesAreMeasured(t *testing.T) {
	t.Parallel()

	var table strings.Builder
	file := filepath.Join(t.TempDir(), "table.json")
	b := newBench(t, &table, "--quick", "--e2e-rate", "100", "--beside-duration", "2s", "--json", file, "--only", "^beside-(unavailable|slow|unreadable)$")
	lines := measured[e2e.Line](t, b, &table, file)
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3", len(lines))
	}
	for _, l := range lines {
		if l.Latency == nil || l.P50 <= 0 || l.P999 < l.P50 || l.At == nil || *l.At != 100 || l.InTime == nil || *l.InTime < 0 || *l.InTime > 1 {
			t.Errorf("%s: %+v", l.Row, l)
		}
	}
}

// The cost of a mode is counted: computations of both clusters, transactions, WAL, and the
// bytes of one cluster's links.
func TestModesAreMeasuredBesideEachOther(t *testing.T) {
	t.Parallel()

	var table strings.Builder
	file, picture := filepath.Join(t.TempDir(), "table.json"), filepath.Join(t.TempDir(), "modes.svg")
	rows := "^(burn-share|burn-race-50|burn-standby-50|burn-hedge-nap|burn-share-kill"
	if _, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > 1 {
		rows += "|share-90-database"
	}
	rows += ")$"
	b := newBench(t, &table, "--quick", "--race-rate", "60", "--e2e-duration", "1500ms", "--json", file,
		"--modes-svg", picture, "--only", rows)
	lines := measured[e2e.Line](t, b, &table, file)
	if len(lines) != strings.Count(rows, "|")+1 {
		t.Fatalf("%d lines of %s", len(lines), rows)
	}
	if drawn, err := os.ReadFile(picture); err != nil || !strings.Contains(string(drawn), "p99.9 around the loss of a cluster") {
		t.Errorf("the picture: %s, %v", drawn, err)
	}
	for _, l := range lines {
		if settles := strings.HasPrefix(l.Row, "share-90"); settles != (l.Settled != nil && l.Foreign != nil) {
			t.Errorf("%s: settled after %v, foreign %v", l.Row, l.Settled, l.Foreign)
		}
		if strings.HasSuffix(l.Row, "-kill") {
			if l.Latency == nil || l.P50 <= 0 || l.P999 < l.P50 {
				t.Errorf("%s: %+v", l.Row, l)
			}
			continue
		}
		if l.Latency == nil || l.P50 <= 0 || l.Work == nil || l.Work.Transactions <= 0 || l.Work.WALBytes < 100 || l.Work.SiteBytes <= 0 {
			t.Errorf("%s: %+v, work %+v", l.Row, l, l.Work)
			continue
		}
		// On a busy machine a cluster that races skips events that the other one has committed,
		// and a cluster that does not race computes events that the other one did not commit in
		// time.
		if n := l.Work.Computations; n < 1 || n > 3 {
			t.Errorf("%s: %.2f computations per event, want 1 to 3", l.Row, n)
		}
		if cpu := l.CPU["function"]; cpu > 0 && cpu < 900 { // to 10 ms
			t.Errorf("%s: the functions took %.0f µs of processor time per event, though each computation takes 1 ms", l.Row, cpu)
		}
	}
}
