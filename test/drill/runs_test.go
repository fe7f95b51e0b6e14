package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/test/deployment"
)

// timeout bounds one run, on a machine with other load.
const timeout = 5 * time.Minute

var programs = sync.OnceValues(func() (devcluster.Programs, error) {
	dir, err := pgtest.ProcessDir()
	if err != nil {
		return devcluster.Programs{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return deployment.Build(ctx, dir, io.Discard)
})

// short runs a short form of a drill. The length of gaps, and the time to catch up, are
// meaningless here: other tests run at the same time.
func short(t *testing.T, scenario, plant string) drill.Result {
	t.Helper()

	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	r, err := run(ctx, options{
		scenario: scenario, plant: plant, seed: 1, rate: 150, dir: pgtest.Dir(t), witness: true,
		phase: 2 * time.Second, lag: time.Second, reaction: time.Second, maxGap: timeout, times: 3,
	}, built, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestShortDrillsKeepWhatIsPromised(t *testing.T) {
	t.Parallel()

	for _, scenario := range []string{"lose-cluster", "lose-half-database", "source-replicas"} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()

			r := short(t, scenario, "")
			for _, c := range r.Checks {
				if !c.OK && c.Name != "time to catch up" {
					t.Errorf("%s: %s, want %s", c.Name, c.Measured, c.Limit)
				}
			}
			if len(r.Checks) < 6 || r.Audit.Handled < 300 || r.Phases[1].Events == 0 || r.Phases[1].P99 == 0 || r.RTO == 0 || len(r.Notes) < 3 {
				t.Errorf("hardly anything happened: %+v", r)
			}
		})
	}
}

func TestADrillWithAPlantedFaultFails(t *testing.T) {
	t.Parallel()

	r := short(t, "lose-cluster", "random-ids")
	if r.Passed || r.Duplicates == 0 || r.LostOutputs == 0 {
		t.Errorf("passed %t, %d duplicates, %d outputs lost", r.Passed, r.Duplicates, r.LostOutputs)
	}
	var out bytes.Buffer
	say := func(format string, args ...any) { t.Logf(format, args...); out.WriteString(format) }
	if err := finish(r, options{report: t.TempDir()}, say); !errors.Is(err, errBroken) {
		t.Errorf("finish gave %v, which is no exit status 1", err)
	}
}
