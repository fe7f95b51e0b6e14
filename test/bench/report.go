package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is a line of the table, as JSON. An unknown figure is null.
type row struct {
	Row                 string   `json:"row"`
	EventsPerSecond     *float64 `json:"events_per_second"`
	OfFloor             *float64 `json:"of_floor"`
	OfByHand            *float64 `json:"of_by_hand"`
	Rollbacks           *int64   `json:"rollbacks"`
	Deadlocks           *int64   `json:"deadlocks"`
	WALBytesPerEvent    *float64 `json:"wal_bytes_per_event"`
	Connections         *int     `json:"connections"`
	AllocationsPerEvent *float64 `json:"allocations_per_event"`

	ClientMicroseconds *float64 `json:"client_us_per_event"`
	ServerMicroseconds *float64 `json:"server_us_per_event"`
	UniqueViolations   *int64   `json:"unique_violations"`
	Lowest             *float64 `json:"lowest_events_per_second"`
	Highest            *float64 `json:"highest_events_per_second"`
	Events             int      `json:"events"` // of a trial
	Rounds             int      `json:"rounds"`
}

// best returns the samples, one per round, of the number of connections with
// the highest median rate; nil if there are none.
func (r result) best() []sample {
	var best []sample
	for _, trials := range r.trials {
		if len(trials) > 0 && (best == nil || rate(trials) > rate(best)) {
			best = trials
		}
	}
	return best
}

func rate(trials []sample) float64 {
	return medianOf(trials, func(s sample) float64 { return s.eventsPerSecond })
}

// find returns the samples of another row; nil if it was not measured.
func find(results []result, name string) []sample {
	for _, r := range results {
		if r.scenario.name == name {
			return r.best()
		}
	}
	return nil
}

// ratio returns the median of the rates' ratio within each round; nil if one
// of the rows was not measured.
func ratio(a, b []sample) *float64 {
	if len(a) == 0 || len(a) != len(b) {
		return nil
	}
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i].eventsPerSecond / b[i].eventsPerSecond
	}
	return rounded(median(ratios), 3)
}

// ofLink returns the median of the ratio of the rate to the limit of the link; nil if the row
// was not measured.
func ofLink(trials []sample) *float64 {
	if len(trials) == 0 {
		return nil
	}
	return rounded(medianOf(trials, func(s sample) float64 { return s.eventsPerSecond / s.linkLimit }), 3)
}

func summarise(results []result) []row {
	floor, byHand := find(results, rowFloor), find(results, rowByHand)
	rows := make([]row, 0, len(results))
	for _, r := range results {
		line := row{Row: r.scenario.name}
		if trials := r.best(); len(trials) > 0 {
			line.fill(trials)
			line.OfFloor, line.OfByHand = ratio(trials, floor), ratio(trials, byHand)
		}
		rows = append(rows, line)
	}
	return rows
}

func (l *row) fill(trials []sample) {
	l.Events, l.Rounds = trials[0].events, len(trials)
	l.Connections = &trials[0].connections
	l.Rollbacks, l.Deadlocks, l.UniqueViolations = new(int64), new(int64), new(int64)
	lowest, highest := math.Inf(1), 0.0
	for i := range trials {
		t := &trials[i]
		*l.Rollbacks += t.rollbacks
		*l.Deadlocks += t.deadlocks
		*l.UniqueViolations += t.uniqueViolations
		lowest, highest = min(lowest, t.eventsPerSecond), max(highest, t.eventsPerSecond)
	}
	l.Lowest, l.Highest = rounded(lowest, 0), rounded(highest, 0)
	perEvent := func(figure func(sample) float64, digits int) *float64 {
		return rounded(medianOf(trials, func(s sample) float64 { return figure(s) / float64(s.events) }), digits)
	}
	l.EventsPerSecond = rounded(rate(trials), 0)
	l.WALBytesPerEvent = perEvent(func(s sample) float64 { return float64(s.walBytes) }, 0)
	l.AllocationsPerEvent = perEvent(func(s sample) float64 { return float64(s.allocations) }, 1)
	if trials[0].cpuKnown {
		l.ClientMicroseconds = perEvent(func(s sample) float64 { return float64(s.clientCPU) / float64(time.Microsecond) }, 1)
		l.ServerMicroseconds = perEvent(func(s sample) float64 { return float64(s.serverCPU) / float64(time.Microsecond) }, 1)
	}
}

func formatTable(rows []row) string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	say(table, "row\tevents_per_second\tof_floor\tof_by_hand\trollbacks\tdeadlocks\twal_bytes_per_event\tconnections\tallocations_per_event\tclient_us\tserver_us\t")
	var notes []string
	for _, r := range rows {
		if *r.UniqueViolations > 0 {
			notes = append(notes, fmt.Sprintf("%s: %s unique violations in %s events, each a rollback",
				r.Row, thousands(int(*r.UniqueViolations)), thousands(r.Events*r.Rounds)))
		}
		say(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t", r.Row,
			thousands(int(*r.EventsPerSecond)), show(r.OfFloor, 2), show(r.OfByHand, 1),
			thousands(int(*r.Rollbacks)), thousands(int(*r.Deadlocks)), show(r.WALBytesPerEvent, 0), *r.Connections,
			show(r.AllocationsPerEvent, 1), show(r.ClientMicroseconds, 1), show(r.ServerMicroseconds, 1))
	}
	_ = table.Flush() // into memory
	for _, note := range notes {
		say(&text, "%s", note)
	}
	return text.String()
}

// formatGoals compares the figures with the goals of sinkwriter.
func formatGoals(results []result) string {
	var text strings.Builder
	samples := func(name string) []sample { return find(results, name) }
	goals := []struct {
		what  string
		got   *float64
		want  float64
		below bool
	}{
		{"race of the floor", ratio(samples(rowRace), samples(rowFloor)), 0.6, false},
		{"race of the best by hand", ratio(samples(rowRace), samples(rowByHand)), 10, false},
		{"race of by hand in one round trip", ratio(samples(rowRace), samples(rowPipelined)), 4, false},
		{"race of one cluster alone", ratio(samples(rowRace), samples(rowOne)), 1 / 1.45, false},
		{"a full ledger of an empty one", ratio(samples(rowLedger), samples(rowRace)), 0.9, false},
		{"retention running of not running", ratio(samples(rowRetention), samples(rowLedger)), 0.9, false},
		{"with divergence check of without", ratio(samples(rowRace), samples(rowNoDigest)), 0.9, false},
		{"a far cluster of what its link allows", ofLink(samples(rowFar)), 0.6, false},
		{"cost of a lost event relative to a won one", ratio(samples(rowOne), samples(rowLost)), 0.3, true},
	}
	for _, g := range goals {
		if g.got == nil {
			continue
		}
		bound, reached := "at least", *g.got >= g.want
		if g.below {
			bound, reached = "at most", *g.got <= g.want
		}
		word := "reached"
		if !reached {
			word = "NOT REACHED"
		}
		say(&text, "%-37s %6.2f, %s %.2f: %s", g.what, *g.got, bound, g.want, word)
	}
	return text.String()
}

func writeJSON(file string, rows []any) error {
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("write the table as JSON: %w", err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the table as JSON: %w", err)
	}
	return nil
}

func show(f *float64, digits int) string {
	switch {
	case f == nil:
		return "–"
	case digits == 0:
		return thousands(int(*f))
	}
	return fmt.Sprintf("%.*f", digits, *f)
}

func rounded(f float64, digits int) *float64 {
	p := math.Pow10(digits)
	f = math.Round(f*p) / p
	return &f
}

func median[T cmp.Ordered](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func medianOf(trials []sample, figure func(sample) float64) float64 {
	list := make([]float64, len(trials))
	for i, t := range trials {
		list[i] = figure(t)
	}
	return median(list)
}
