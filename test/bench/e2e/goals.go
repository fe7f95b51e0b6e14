package e2e

import (
	"fmt"
	"slices"
	"strings"
)

// goal is a figure that has to be reached.
type goal struct {
	row    string
	what   string
	bound  float64
	atMost bool
	of     func(l Line) *float64
}

func ratio(l Line) *float64  { return l.Of }
func rate(l Line) *float64   { return l.EventsPerSecond }
func endLag(l Line) *float64 { return l.EndLag }

func p50(l Line) *float64 {
	if l.Latency == nil {
		return nil
	}
	return &l.P50
}

func p999(l Line) *float64 {
	if l.Latency == nil {
		return nil
	}
	return &l.P999
}

// claimTimeout is the default of sinkwriter's Config.ClaimTimeout, in milliseconds.
const claimTimeout = 200

// goals returns all goals.
func goals() []goal {
	all := slices.Clone(goalsOfRows)
	for _, r := range besideRows() {
		all = append(all,
			goal{row: r.Name, what: "share of good events in time", bound: 0.9, of: func(l Line) *float64 { return l.InTime }},
			goal{row: r.Name, what: "p99.9, ms", bound: 5000, atMost: true, of: p999})
	}
	for _, r := range settleRows() {
		if r.settles {
			all = append(all,
				goal{row: r.Name, what: "until clusters compute their own events, ms", bound: 5000, atMost: true, of: func(l Line) *float64 { return l.Settled }},
				goal{row: r.Name, what: "lag at the end, ms", bound: 500, atMost: true, of: endLag})
		}
	}
	for _, r := range instanceRows() {
		all = append(all, goal{row: r.Name, what: "p99.9 a second later, × before", bound: 2, atMost: true, of: func(l Line) *float64 {
			if l.Before == nil {
				return nil
			}
			ratio := l.P999 / l.Before.P999
			return &ratio
		}})
	}
	return all
}

var goalsOfRows = []goal{
	{row: RowDefaults, what: "rate, × e2e-by-hand", bound: 8, of: ratio},
	{row: RowRace, what: "rate, × e2e-race-by-hand", bound: 6, of: ratio},
	{row: Row80, what: "p50, ms", bound: 10, atMost: true, of: p50},
	{row: Row80, what: "p99.9, ms", bound: 100, atMost: true, of: p999},
	{row: Row50, what: "p99.9, ms", bound: 40, atMost: true, of: p999},
	{row: RowNap50, what: "p99.9, × latency-50", bound: 1.5, atMost: true, of: ratio},
	{row: RowFreeze50, what: "p99.9, ms", bound: claimTimeout + 50, atMost: true, of: p999},
	{row: RowNap80, what: "lag at the end, ms", bound: 100, atMost: true, of: endLag},
	{row: RowFreeze80, what: "lag at the end, ms", bound: 100, atMost: true, of: endLag},
	{row: RowSlowRace, what: "rate, × e2e-race", bound: 0.9, of: ratio},
	{row: RowSlow50, what: "p99.9, × latency-50", bound: 1.5, atMost: true, of: ratio},
	{row: RowStallRace, what: "p99.9, × no-stall", bound: 1.5, atMost: true, of: ratio},
	{row: RowStopRace, what: "p99.9, ms", bound: claimTimeout, atMost: true, of: p999},
	{row: RowBurnShare, what: "rate, × burn-race", bound: 1.6, of: ratio},
	{row: RowBurnShare50, what: "p50, × burn-race-50", bound: 1.5, atMost: true, of: func(l Line) *float64 { return l.OfP50 }},
	{row: RowBurnShare50, what: "p99.9, × burn-race-50", bound: 1.5, atMost: true, of: ratio},
	{row: RowBurnShare + suffixKill, what: "p99.9, ms", bound: claimTimeout + 100, atMost: true, of: p999},
	{row: RowCatchUpSkip, what: "events skipped a second", bound: 10_000, of: rate},
	{row: RowCatchUpDivide, what: "time of two clusters, × of one", bound: 0.65, atMost: true, of: func(l Line) *float64 { return l.Divided }},
	{row: RowCatchUpDeath, what: "longest pause, ms", bound: claimTimeout + 100, atMost: true, of: func(l Line) *float64 { return l.Pause }},
	{row: RowOrderedTight, what: "seconds", bound: 5, atMost: true, of: func(l Line) *float64 { return l.Seconds }},
}

// formatGoals compares the measured figures with the goals.
func formatGoals(lines []Line) string {
	var text strings.Builder
	row, flush := newTable(&text)
	for _, g := range goals() {
		for _, l := range lines {
			if l.Row != g.row {
				continue
			}
			bound, word, measured := "at least", "reached", "–"
			if g.atMost {
				bound = "at most"
			}
			got := g.of(l)
			switch {
			case l.Error != "":
				word = "FAILED"
			case got == nil:
				word = "not measured"
			case g.atMost && *got > g.bound, !g.atMost && *got < g.bound:
				word = "NOT REACHED"
			}
			if got != nil {
				measured = fmt.Sprintf("%.2f", *got)
			}
			row(g.row, g.what, measured, fmt.Sprintf("%s %.2f", bound, g.bound), word)
		}
	}
	flush()
	if text.Len() == 0 {
		return ""
	}
	return "\ntargets\n" + text.String()
}
