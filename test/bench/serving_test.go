package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/test/bench/serving"
)

func TestMain(m *testing.M) {
	if !serving.Child() {
		os.Exit(m.Run())
	}
}

func TestEveryRowAboutServingIsMeasured(t *testing.T) {
	t.Parallel()

	var table strings.Builder
	file := filepath.Join(t.TempDir(), "table.json")
	b := newBench(t, &table, "--quick", "--events", "1000", "--json", file, "--only", "^(bare|serve-.*|instance|soak)$")
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Row        string   `json:"row"`
		Requests   int      `json:"requests"`
		Rate       float64  `json:"requests_per_second"`
		EventRate  float64  `json:"events_per_second"`
		OfBare     *float64 `json:"of_bare"`
		Allocs     float64  `json:"allocations_per_event"`
		ServerTime float64  `json:"server_us_per_request"`
		Ready      float64  `json:"start_to_ready_ms"`
		Idle       float64  `json:"idle_mib"`
		Highest    float64  `json:"under_load_mib"`
		Binary     float64  `json:"binary_mib"`
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.Row)
		if r.Rate < 1 {
			t.Errorf("%s: %v requests a second", r.Row, r.Rate)
		}
		switch r.Row {
		case serving.RowInstance, serving.RowSoak:
			if r.Ready <= 0 || r.Idle < 5 || r.Highest < r.Idle || r.Requests != 1000 {
				t.Errorf("%s: %+v", r.Row, r)
			}
			if r.Row == serving.RowInstance && (r.Binary < 5 || r.Binary > 50) {
				t.Errorf("the binary has %v MiB", r.Binary)
			}
			continue
		case serving.RowBatch:
			if r.Requests != 10 || r.EventRate < 90*r.Rate {
				t.Errorf("%s: %+v", r.Row, r)
			}
		default:
			if r.Requests != 1000 {
				t.Errorf("%s: %+v", r.Row, r)
			}
		}
		if r.OfBare == nil || *r.OfBare <= 0 || r.Allocs < 1 || r.Allocs > 300 || r.ServerTime <= 0 {
			t.Errorf("%s: %+v", r.Row, r)
		}
	}
	if diff := cmp.Diff([]string{"bare", "serve-binary", "serve-batch", "serve-flights", "instance", "soak"}, names); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	for _, name := range names {
		if !strings.Contains(table.String(), name) {
			t.Errorf("%s is not in the table", name)
		}
	}
}
