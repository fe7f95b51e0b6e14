package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Names of the rows in which clusters that share the events run at 90 % of their capacity.
const (
	RowShareCores       = "share-cores"
	RowShare90Freeze    = "share-90-freeze"
	RowShare90FreezeFor = "share-90-freeze-5s"
	RowShare90Database  = "share-90-database"
)

// settleRows returns the rows about a strike at 90 % of the capacity: does each cluster
// return to computing its own events? Each cluster has a core of its own, because otherwise
// the healthy one could use the core of the other one, too.
func settleRows() []Row {
	burn := []string{"TANDEM_BENCH_BURN=" + burnTime.String()}
	rows := []Row{{
		Name: RowShareCores, measure: measureRace, mode: modeShare, function: burn, pinned: true, of: RowBurnRace, expected: onceExpected,
		About: "burn-share with one core for each cluster's function and source (Linux, 2 cores or more, taskset)",
	}}
	for _, r := range []struct {
		name, about string
		strike      strike
	}{
		{RowShare90Freeze, "function and source of west are stopped for 300 ms, once", strikeFreezeBoth},
		{RowShare90FreezeFor, "the same for 5 s", strikeFreezeLong},
		{RowShare90Database, "PostgreSQL is stopped for 2 s, once", strikeDatabase},
	} {
		rows = append(rows, Row{
			Name: r.name, measure: measureLatency, mode: modeShare, function: burn, pinned: true, share: 0.9, strike: r.strike, settles: true,
			About: "90 % of the rate of share-cores, while " + r.about + ": settled_ms is until each cluster computes its own events again",
		})
	}
	return rows
}

// The share of foreign events below which a strike is over, and the time over which it is
// observed. Foreign events are those that a cluster computes although another one is
// responsible first.
const (
	settledBelow   = 0.05
	settleWindow   = time.Second
	settleInterval = 250 * time.Millisecond
)

// settleMeter observes how many foreign events the clusters compute.
type settleMeter struct {
	rate     float64
	window   time.Duration
	struck   time.Time // the end of the strike; over is closed then
	over     chan struct{}
	enough   chan struct{} // closed when the observations after the strike are sufficient for result
	observed []observedForeign
}

func newSettleMeter(rate float64, window time.Duration) *settleMeter {
	return &settleMeter{rate: rate, window: window, over: make(chan struct{}), enough: make(chan struct{})}
}

type observedForeign struct {
	at      time.Time
	foreign float64 // number of foreign events so far
}

// observeForeign observes all clusters until ctx ends. A stopped process does not answer:
// it is asked again.
func (d *deployment) observeForeign(ctx context.Context, m *settleMeter) error {
	enough := sync.OnceFunc(func() { close(m.enough) })
	for sleep(ctx, settleInterval) {
		at, sum, known := d.o.Now(), 0.0, true
		for _, addresses := range d.metrics {
			n, err := readMetric(ctx, addresses[len(addresses)-1], "tandem_source_helped_total") // the source is started last
			sum, known = sum+n, known && err == nil
		}
		if known {
			m.observed = append(m.observed, observedForeign{at: at, foreign: sum})
		}
		select {
		case <-m.over:
			if _, err := m.result(); err == nil {
				enough()
			}
		default:
		}
	}
	return context.Cause(ctx)
}

// settled is the result of a [settleMeter].
type settled struct {
	after   time.Duration // the time after the strike from which on the share stays below settledBelow
	highest float64       // share in a window, of the whole trial
	last    float64       // share in the last window
}

// result returns the observed shares. It fails if the strike has not ended, or if too little
// was observed since.
func (m *settleMeter) result() (*settled, error) {
	var s settled
	known := false
	for i, from := range m.observed {
		end := slices.IndexFunc(m.observed[i:], func(o observedForeign) bool { return o.at.Sub(from.at) >= m.window })
		if end < 0 {
			break
		}
		to := m.observed[i+end]
		s.last = (to.foreign - from.foreign) / (m.rate * to.at.Sub(from.at).Seconds())
		s.highest = max(s.highest, s.last)
		if m.struck.IsZero() || from.at.Before(m.struck) {
			continue
		}
		known = true
		if s.last > settledBelow {
			s.after = to.at.Sub(m.struck)
		}
	}
	if !known {
		return nil, fmt.Errorf("nothing was observed for %s after the strike: the trial is too short", m.window)
	}
	return &s, nil
}

// String formats it for the progress.
func (s *settled) String() string {
	return fmt.Sprintf("settled %.0f ms after the strike; share of others' events: %.1f %% at most, %.1f at the end", millis(s.after), 100*s.highest, 100*s.last)
}

// pin returns the command that runs a program of a cluster on the cores that the row assigns
// to it.
func (r Row) pin(cluster, program string) (command string, args []string, err error) {
	if !r.pinned {
		return program, nil, nil
	}
	if runtime.NumCPU() < 2 {
		return "", nil, fmt.Errorf("row %s needs two cores", r.Name)
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return "", nil, fmt.Errorf("row %s runs each cluster on a core of its own: %w", r.Name, err)
	}
	return taskset, []string{"--cpu-list", strconv.Itoa(slices.Index([]string{east, west}, cluster)), program}, nil
}
