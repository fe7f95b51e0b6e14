//go:build chaos

package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
)

// timeout bounds one run, on a machine with other load.
const timeout = 8 * time.Minute

var parts = sync.OnceValues(func() (programs, error) {
	dir, err := pgtest.ProcessDir()
	if err != nil {
		return programs{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return build(ctx, dir, io.Discard)
})

func chaos(t *testing.T, o options) report {
	t.Helper()

	built, err := parts()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	o.dir = pgtest.Dir(t)
	r, err := run(ctx, o, built, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// These tests do not run in parallel: each needs the machine for itself.

func TestNothingIsLostNorDoubledWhateverIsStruck(t *testing.T) {
	// The schedule of seed 292 has every kind of strike.
	r := chaos(t, options{seed: 292, duration: 15 * time.Second, rate: 300})
	for _, v := range r.Violations {
		t.Error(v)
	}
	if r.Events < 500 || r.Audit.Handled != r.Events || r.Audit.Repeated == 0 || r.Audit.Dead == 0 || r.Audit.Outputs < 50 || len(r.Samples) < 5 {
		t.Errorf("hardly anything happened: %+v", r.Audit)
	}
	dir, err := r.write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "report.md"))
	if err != nil || !strings.Contains(string(text), "No violation.") {
		t.Errorf("report: %v\n%s", err, text)
	}
	chart, err := os.Open(filepath.Join(dir, "chart.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = chart.Close() }()
	for d := xml.NewDecoder(chart); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("chart: %v", err)
		}
	}
}

func TestPlantedFaultsAreFound(t *testing.T) {
	for _, tt := range []struct{ plant, want string }{
		{"early-ack", "missing event"},
		{"loose-claim", "missing row of "},
		{"random-ids", "extra output"},
	} {
		t.Run(tt.plant, func(t *testing.T) {
			// Whether a strike hits anything depends on the moment.
			for seed := range uint64(3) {
				r := chaos(t, options{seed: seed + 1, duration: 6 * time.Second, rate: 300, plant: tt.plant})
				if strings.Contains(strings.Join(r.Violations, "\n"), tt.want) {
					return
				}
				t.Logf("seed %d: violations %q, want one with %q", r.Seed, r.Violations, tt.want)
			}
			t.Error("the fault was not found")
		})
	}
}
