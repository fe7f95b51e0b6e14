package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// mode is the redundancy of two clusters. In each mode, west is active.
type mode struct {
	name       string
	east, west string // TANDEM_HEDGE
	about      string

	// ready are parts of the line that the source of east logs once the mode is in force; with
	// share the source of west logs it, too. None for a mode that is in force from the start.
	ready []string
}

// The modes. A hedge delay is longer than an event normally takes, so that east computes
// nothing then.
var (
	modeRace    = &mode{name: "race", east: "0", west: "0", about: "both clusters compute everything"}
	modeHedge   = &mode{name: "hedge", east: "300ms", west: "0", about: "east computes what west has not committed after 300 ms", ready: []string{`"msg":"hedge switched"`, `"hedge":"300ms"`}}
	modeShare   = &mode{name: "share", east: "share", west: "share", about: "each event has one cluster that processes it first", ready: []string{`"msg":"clusters that share the events changed"`, `"members":"east, west"`}}
	modeStandby = &mode{name: "standby", east: "standby", west: "0", about: "east computes nothing until it is switched", ready: []string{`"msg":"hedge switched"`, `"hedge":"standby"`}}
)

func modes() []*mode { return []*mode{modeRace, modeHedge, modeShare, modeStandby} }

// Names of the rows with a function that uses burnTime of processor time per event.
const (
	RowBurnRace    = "burn-race"
	RowBurnShare   = "burn-share"
	RowShare       = "e2e-share"
	RowBurnRace50  = RowBurnRace + suffix50
	RowBurnShare50 = RowBurnShare + suffix50

	suffix50     = "-50"
	suffixNap    = "-nap"
	suffixFreeze = "-freeze"
	suffixKill   = "-kill"
)

const burnTime = time.Millisecond

// onceExpected is the expected rate of two clusters that compute each event once, relative
// to two that race.
const onceExpected = 1.7

// modeRows are the rows that compare the modes.
func modeRows() []Row {
	burn := []string{"TANDEM_BENCH_BURN=" + burnTime.String()}
	var rows []Row
	for _, m := range modes() {
		name := "burn-" + m.name
		highest := Row{
			Name: name, measure: measureRace, mode: m, function: burn, of: RowBurnRace, expected: onceExpected,
			About: fmt.Sprintf("the highest rate that is sustained when an event takes %s of processor time: %s", burnTime, m.about),
		}
		if m == modeRace {
			highest.of, highest.expected = "", 0
		}
		latency := Row{
			Name: name + suffix50, measure: measureLatency, mode: m, function: burn, share: 0.5, of: RowBurnRace50,
			About: "its latencies at 50 % of the rate of burn-race",
		}
		if m == modeRace {
			latency.of = ""
		}
		nap, freeze := latency, latency
		nap.Name, nap.strike, nap.of = name+suffixNap, strikeNap, latency.Name
		nap.About = "the same while one computation in west sleeps 300 ms every 10 s"
		freeze.Name, freeze.strike, freeze.of = name+suffixFreeze, strikeFreeze, latency.Name
		freeze.About = "the same while one process of west is stopped for 300 ms every 10 s, function and source in turn"
		kill := Row{
			Name: name + suffixKill, measure: measureKill, mode: m, function: burn, share: 0.5,
			About: "the same when west is killed: latencies until the commit of events published from 1 s before it to 6 s after it",
		}
		if m == modeStandby {
			kill.About += "; east is switched at that moment"
		}
		rows = append(rows, highest, latency, nap, freeze, kill)
	}
	return append(rows, Row{
		Name: RowShare, measure: measureRace, mode: modeShare, of: RowRace, expected: 1.2,
		About: "e2e-race with TANDEM_HEDGE=share: a function that costs less than its delivery",
	})
}

// once reports whether an event is supposed to be computed by one cluster only.
func (r Row) once() bool { return r.mode != nil && r.mode != modeRace }

// sourceEnv returns the variables of the source of a cluster.
func (m *mode) sourceEnv(cluster string) []string {
	switch {
	case m == nil:
		return nil
	case cluster == east:
		return []string{"TANDEM_HEDGE=" + m.east}
	default:
		return []string{"TANDEM_HEDGE=" + m.west}
	}
}

// waits returns the clusters whose acknowledgements wait for the other cluster even without
// a lag: with share they wait for events that the other one processes first.
func (r Row) waits() []string {
	switch r.mode {
	case modeHedge, modeStandby:
		return []string{east}
	case modeShare:
		return []string{east, west}
	default:
		return nil
	}
}

// awaitMode returns when the mode of a row is in force.
func (d *deployment) awaitMode(ctx context.Context, r Row) error {
	if r.mode == nil || r.mode.ready == nil {
		return nil
	}
	for _, p := range d.processes {
		if p.kind != "source" || p.cluster == west && r.mode != modeShare {
			continue
		}
		if err := d.await(ctx, "mode "+r.mode.name+" in "+p.Name(), func(context.Context) error {
			text, err := os.ReadFile(p.LogFile())
			if err != nil {
				return fmt.Errorf("read its log: %w", err)
			}
			for line := range strings.Lines(string(text)) {
				if !slices.ContainsFunc(r.mode.ready, func(part string) bool { return !strings.Contains(line, part) }) {
					return nil
				}
			}
			return fmt.Errorf("it has not logged %s", r.mode.ready)
		}); err != nil {
			return err
		}
	}
	return nil
}
