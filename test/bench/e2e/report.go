package e2e

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Line is a line of the table, as JSON. A figure that was not measured is null.
type Line struct {
	Row             string   `json:"row"`
	EventsPerSecond *float64 `json:"events_per_second"` // distinct events, at the most
	Lowest          *float64 `json:"lowest_events_per_second"`
	Highest         *float64 `json:"highest_events_per_second"`
	OfByHand        *float64 `json:"of_by_hand"`
	Workers         int      `json:"workers,omitempty"` // of each consumer by hand

	Rate float64 `json:"latencies_at_events_per_second"`
	Latency

	Outputs      int    `json:"outputs_per_event"`
	SyncInterval string `json:"sync_interval"`
	Rounds       int    `json:"rounds"`

	// CPU is the processor time of an event in microseconds, both clusters together.
	CPU map[string]float64 `json:"cpu_us_per_event,omitempty"`
}

func (o *Options) summarise(results []result) []Line {
	var byHand []speed
	for _, r := range results {
		if r.row.Name == RowByHand {
			byHand = r.speeds[r.best()]
		}
	}
	lines := make([]Line, 0, len(results))
	for _, r := range results {
		line := Line{Row: r.row.Name, Rate: float64(o.Rate), Outputs: 1, SyncInterval: o.SyncInterval, Rounds: o.Rounds}
		if r.row.rate {
			speeds := r.speeds[r.best()]
			line.fill(speeds, byHand)
			line.Workers = r.row.variants()[r.best()]
		}
		line.Latency = Latency{
			P50:  rounded(medianOf(r.latencies, func(l Latency) float64 { return l.P50 }), 1),
			P99:  rounded(medianOf(r.latencies, func(l Latency) float64 { return l.P99 }), 1),
			P999: rounded(medianOf(r.latencies, func(l Latency) float64 { return l.P999 }), 1),
			Max:  rounded(medianOf(r.latencies, func(l Latency) float64 { return l.Max }), 1),
		}
		lines = append(lines, line)
	}
	return lines
}

func (l *Line) fill(speeds, byHand []speed) {
	rate := func(s speed) float64 { return s.rate }
	median := medianOf(speeds, rate)
	lowest, highest := math.Inf(1), 0.0
	ratios := make([]float64, 0, len(speeds))
	l.CPU = map[string]float64{}
	for i, s := range speeds {
		lowest, highest = min(lowest, s.rate), max(highest, s.rate)
		if len(byHand) == len(speeds) {
			ratios = append(ratios, s.rate/byHand[i].rate)
		}
		for kind := range s.cpu {
			l.CPU[kind] = rounded(medianOf(speeds, func(s speed) float64 { return micros(s.cpu[kind]) }), 1)
		}
	}
	l.Rate = rounded(median/2, 0)
	for _, f := range []struct {
		to    **float64
		value float64
	}{{&l.EventsPerSecond, median}, {&l.Lowest, lowest}, {&l.Highest, highest}} {
		value := rounded(f.value, 0)
		*f.to = &value
	}
	if len(ratios) > 0 {
		ratio := rounded(medianOf(ratios, func(f float64) float64 { return f }), 2)
		l.OfByHand = &ratio
	}
}

func rounded(f float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(f*p) / p
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func formatCPU(cpu map[string]time.Duration) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(cpu)) {
		parts = append(parts, fmt.Sprintf("%s %.0f", kind, micros(cpu[kind])))
	}
	return "cpu µs an event: " + strings.Join(parts, ", ")
}

// What is to be reached.
const (
	backlogAtLeast = 8   // times by hand
	stallAtMost    = 1.5 // times the p99.9 of two healthy clusters
	stopAtMost     = 200 // ms, the claim timeout
)

// Format writes the table for people, and how the figures compare with those that are to
// be reached.
func Format(lines []Line, o Options) string {
	var text strings.Builder
	text.WriteString(o.Describe() + "\n")
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { _, _ = fmt.Fprintln(table, strings.Join(cells, "\t")+"\t") } // into memory
	row("row", "events_per_second", "of_by_hand", "latencies at", "p50_ms", "p99_ms", "p999_ms", "max_ms", "outputs", "sync_interval")
	figure := func(f *float64, digits int) string {
		if f == nil {
			return "–"
		}
		return fmt.Sprintf("%.*f", digits, *f)
	}
	known := map[string]Line{}
	for _, l := range lines {
		known[l.Row] = l
		row(l.Row, figure(l.EventsPerSecond, 0), figure(l.OfByHand, 2), fmt.Sprintf("%.0f/s", l.Rate),
			figure(&l.P50, 1), figure(&l.P99, 1), figure(&l.P999, 1), figure(&l.Max, 1), fmt.Sprint(l.Outputs), l.SyncInterval)
	}
	_ = table.Flush() // into memory
	for _, l := range lines {
		if len(l.CPU) > 0 {
			var parts []string
			for _, kind := range slices.Sorted(maps.Keys(l.CPU)) {
				parts = append(parts, fmt.Sprintf("%s %.0f", kind, l.CPU[kind]))
			}
			fmt.Fprintf(&text, "%s: processor time of an event, µs, both clusters together: %s\n", l.Row, strings.Join(parts, ", "))
		}
	}
	goal := func(what string, got, want float64, reached bool, bound string) {
		word := "reached"
		if !reached {
			word = "NOT REACHED"
		}
		fmt.Fprintf(&text, "%-52s %7.2f, %s %.2f: %s\n", what, got, bound, want, word)
	}
	if of := known[RowDefaults].OfByHand; of != nil {
		goal("e2e of e2e-by-hand", *of, backlogAtLeast, *of >= backlogAtLeast, "at least")
	}
	if healthy := known[RowNoStall]; healthy.P999 > 0 && known[RowStallRace].Rounds > 0 {
		got := known[RowStallRace].P999 / healthy.P999
		goal("p99.9 of stall-race, of two healthy clusters", got, stallAtMost, got <= stallAtMost, "at most")
	}
	if stopped, ok := known[RowStopRace]; ok {
		goal("p99.9 of stop-race, ms, of a claim timeout", stopped.P999, stopAtMost, stopped.P999 <= stopAtMost, "at most")
	}
	return text.String()
}
