package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/test/bench/e2e"
)

// Every trial compares what is in database and stream with what has to be, so that a run
// without an error has done exactly what was to be done.
func TestEveryRowEndToEndIsMeasured(t *testing.T) {
	t.Parallel()

	var table strings.Builder
	file := filepath.Join(t.TempDir(), "table.json")
	b := newBench(t, &table, "--quick", "--events", "500", "--e2e-rate", "100", "--json", file, "--only", "^(e2e|stall-|stop-|no-stall)")
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var lines []e2e.Line
	if err := json.Unmarshal(text, &lines); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range lines {
		names = append(names, l.Row)
		if l.P50 <= 0 || l.P99 < l.P50 || l.P999 < l.P99 || l.Max < l.P999 || l.Rate <= 0 || l.Outputs != 1 || l.SyncInterval == "" {
			t.Errorf("%s: %+v", l.Row, l)
		}
		if strings.HasPrefix(l.Row, "e2e") && (l.EventsPerSecond == nil || *l.EventsPerSecond < 1 || l.OfByHand == nil || *l.OfByHand <= 0) {
			t.Errorf("%s: %+v", l.Row, l)
		}
		if !strings.Contains(table.String(), l.Row) {
			t.Errorf("%s is not in the table", l.Row)
		}
		// No event that falls into the time is quicker than its end.
		if strings.HasSuffix(l.Row, "-alone") && l.Max < 50 {
			t.Errorf("%s: the longest took %v ms, though the cluster stood still for 200 ms", l.Row, l.Max)
		}
	}
	want := []string{
		e2e.RowByHand, e2e.RowDefaults, e2e.RowSingle, e2e.RowNoStall,
		e2e.RowStallAlone, e2e.RowStallRace, e2e.RowStopAlone, e2e.RowStopRace,
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// What is pending does not take memory in a source: `make bench` has it with ten million
// messages (row pending).
func TestPendingMessagesDoNotGrowASource(t *testing.T) {
	t.Parallel()

	var table strings.Builder
	file := filepath.Join(t.TempDir(), "table.json")
	b := newBench(t, &table, "--quick", "--pending", "300000", "--json", file, "--only", "^pending$")
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var reports []e2e.PendingReport
	if err := json.Unmarshal(text, &reports); err != nil {
		t.Fatal(err)
	}
	if len(reports) != 1 || reports[0].Pending != 300_000 || reports[0].Tries < 1 {
		t.Fatalf("%+v", reports)
	}
	r := reports[0]
	if r.Few == 0 {
		t.Fatal("the system does not say how much memory a process has")
	}
	// All of them would be more than 100 MiB.
	if r.Many > r.Few+30 {
		t.Errorf("a source takes %.1f MiB with %d messages pending, and %.1f MiB with few", r.Many, r.Pending, r.Few)
	}
}
