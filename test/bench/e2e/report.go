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

// Line is a line of the table, as JSON: medians over the rounds. A figure that was not
// measured is omitted.
type Line struct {
	Row             string   `json:"row"`
	EventsPerSecond *float64 `json:"events_per_second,omitempty"` // distinct events
	Lowest          *float64 `json:"lowest_events_per_second,omitempty"`
	Highest         *float64 `json:"highest_events_per_second,omitempty"`
	Workers         int      `json:"workers,omitempty"` // of each consumer by hand
	Seconds         *float64 `json:"seconds,omitempty"` // of a filled stream

	// Of is the median of the ratio, within a round, to row OfRow: of the rates,
	// or of the p99.9.
	Of    *float64 `json:"of,omitempty"`
	OfRow string   `json:"of_row,omitempty"`
	OfP50 *float64 `json:"of_p50,omitempty"` // the same for the p50

	// Divided is the time of two clusters divided by that of one.
	Divided *float64 `json:"time_of_two_of_one,omitempty"`

	// Pause is the longest time between two commits after a cluster has died, in milliseconds.
	Pause *float64 `json:"pause_ms,omitempty"`

	// In an open loop.
	At *float64 `json:"at_events_per_second,omitempty"`
	*Latency
	Lag      *float64 `json:"lag_ms,omitempty"`     // the highest
	EndLag   *float64 `json:"end_lag_ms,omitempty"` // in the last second
	Computed *float64 `json:"computed,omitempty"`   // share of the events, by the cluster that computed fewest, or that skips

	// Settled is the time after a strike, in milliseconds, from which on each cluster computes
	// its own events, except for one in twenty. Foreign is the highest share of others' events
	// in a second.
	Settled *float64 `json:"settled_ms,omitempty"`
	Foreign *float64 `json:"foreign,omitempty"`

	// Work is per event, in a row that measures a mode.
	Work *Work `json:"work_per_event,omitempty"`

	// InTime is the share of good events beside bad ones that were handled before the last one
	// was published.
	InTime *float64 `json:"in_time,omitempty"`

	// Around a strike against an instance of the function, within a second of it, and after it;
	// Latency has the events in between.
	Before *Latency `json:"before,omitempty"`
	Second *Latency `json:"first_second,omitempty"`
	Healed *Latency `json:"afterwards,omitempty"`

	Probes []Probe `json:"probes,omitempty"` // of all rounds

	// CPU is the processor time per event in microseconds, both clusters together.
	CPU map[string]float64 `json:"cpu_us_per_event,omitempty"`

	Outputs      int    `json:"outputs_per_event"`
	SyncInterval string `json:"sync_interval"`
	Rounds       int    `json:"rounds"` // number of rounds that were measured
	Error        string `json:"error,omitempty"`
}

func (o *Options) summarise(results []*result) []Line {
	samples := map[string][]sample{}
	for _, r := range results {
		samples[r.row.Name] = r.best()
	}
	lines := make([]Line, 0, len(results))
	for _, r := range results {
		best := samples[r.row.Name]
		line := Line{Row: r.row.Name, Outputs: 1, SyncInterval: o.SyncInterval, Rounds: len(best)}
		if r.err != nil {
			line.Error = r.err.Error()
		}
		if len(best) > 0 {
			line.fill(best)
			line.compare(r.row, best, samples[r.row.of])
		}
		line.Probes = append(line.Probes, r.tried...)
		lines = append(lines, line)
	}
	return lines
}

// fill sets the medians of the samples.
func (l *Line) fill(samples []sample) {
	median := func(digits int, figure func(s sample) float64) *float64 {
		value := rounded(medianOf(samples, figure), digits)
		return &value
	}
	latency := func(of func(s sample) Latency) *Latency {
		return &Latency{
			P50:  *median(1, func(s sample) float64 { return of(s).P50 }),
			P99:  *median(1, func(s sample) float64 { return of(s).P99 }),
			P999: *median(1, func(s sample) float64 { return of(s).P999 }),
			Max:  *median(1, func(s sample) float64 { return of(s).Max }),
		}
	}
	first := samples[0]
	l.Workers = samples[len(samples)-1].workers
	for _, s := range samples {
		l.Probes = append(l.Probes, s.probes...)
	}
	if first.rate > 0 {
		l.EventsPerSecond = median(0, rateOf)
		lowest, highest := math.Inf(1), 0.0
		for _, s := range samples {
			lowest, highest = min(lowest, s.rate), max(highest, s.rate)
		}
		lowest, highest = rounded(lowest, 0), rounded(highest, 0)
		l.Lowest, l.Highest = &lowest, &highest
	}
	if first.seconds > 0 {
		l.Seconds = median(2, func(s sample) float64 { return s.seconds })
	}
	if first.divided > 0 {
		l.Divided = median(2, func(s sample) float64 { return s.divided })
	}
	if first.pause > 0 {
		l.Pause = median(1, func(s sample) float64 { return millis(s.pause) })
	}
	if len(first.cpu) > 0 {
		l.CPU = map[string]float64{}
		for kind := range first.cpu {
			l.CPU[kind] = *median(1, func(s sample) float64 { return micros(s.cpu[kind]) })
		}
	}
	if first.open != nil {
		l.At = median(0, func(s sample) float64 { return s.open.at })
		l.Latency = latency(func(s sample) Latency { return s.open.Latency })
		l.Lag = median(0, func(s sample) float64 { return millis(s.open.lag) })
		l.EndLag = median(0, func(s sample) float64 { return millis(s.open.endLag) })
		l.Computed = median(3, func(s sample) float64 { return s.open.computed })
		if first.open.settled != nil {
			l.Settled = median(0, func(s sample) float64 { return millis(s.open.settled.after) })
			l.Foreign = median(3, func(s sample) float64 { return s.open.settled.highest })
		}
		if first.open.work != nil {
			l.Work = &Work{
				Computations: *median(3, func(s sample) float64 { return s.open.work.Computations }),
				Transactions: *median(3, func(s sample) float64 { return s.open.work.Transactions }),
				WALBytes:     *median(0, func(s sample) float64 { return s.open.work.WALBytes }),
				SiteBytes:    *median(0, func(s sample) float64 { return s.open.work.SiteBytes }),
			}
		}
	}
	if first.beside != nil {
		l.At = median(0, func(s sample) float64 { return s.beside.at })
		l.InTime = median(4, func(s sample) float64 { return s.beside.inTime })
		l.Latency = latency(func(s sample) Latency { return s.beside.Latency })
	}
	if first.kill != nil {
		l.At = median(0, func(s sample) float64 { return s.kill.at })
		l.Latency = latency(func(s sample) Latency { return s.kill.Latency })
	}
	if first.instances != nil {
		l.At = median(0, func(s sample) float64 { return s.instances.at })
		l.Before = latency(func(s sample) Latency { return s.instances.before })
		l.Second = latency(func(s sample) Latency { return s.instances.first })
		l.Latency = latency(func(s sample) Latency { return s.instances.then })
		l.Healed = latency(func(s sample) Latency { return s.instances.after })
	}
	if first.computed != nil {
		l.Computed = median(3, func(s sample) float64 { return *s.computed })
	}
}

// compare sets the median of the ratios within a round.
func (l *Line) compare(r Row, samples, others []sample) {
	if min(len(samples), len(others)) == 0 {
		return
	}
	ratio := func(figure func(sample) float64) *float64 {
		var ratios []float64
		for i := range min(len(samples), len(others)) {
			ratios = append(ratios, figure(samples[i])/figure(others[i]))
		}
		median := rounded(medianOf(ratios, func(f float64) float64 { return f }), 2)
		return &median
	}
	l.OfRow = r.of
	if r.measure != measureLatency {
		l.Of = ratio(rateOf)
		return
	}
	l.Of = ratio(func(s sample) float64 { return s.open.P999 })
	l.OfP50 = ratio(func(s sample) float64 { return s.open.P50 })
}

func rounded(f float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(f*p) / p
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// String formats the sample for the progress.
func (s sample) String() string {
	var parts []string
	if s.rate > 0 {
		parts = append(parts, fmt.Sprintf("%7.0f events/s", s.rate))
	}
	if s.divided > 0 {
		parts = append(parts, fmt.Sprintf("time of two relative to one %.2f", s.divided))
	}
	if s.pause > 0 {
		parts = append(parts, fmt.Sprintf("no commit for %.1f ms at most", millis(s.pause)))
	}
	if s.computed != nil {
		parts = append(parts, fmt.Sprintf("computed %.1f %%", 100**s.computed))
	}
	if s.open != nil {
		parts = append(parts, s.open.String())
	}
	if s.kill != nil {
		parts = append(parts, s.kill.String())
	}
	if s.instances != nil {
		parts = append(parts, s.instances.String())
	}
	if s.beside != nil {
		parts = append(parts, s.beside.String())
	}
	if len(s.cpu) > 0 {
		var kinds []string
		for _, kind := range slices.Sorted(maps.Keys(s.cpu)) {
			kinds = append(kinds, fmt.Sprintf("%s %.0f", kind, micros(s.cpu[kind])))
		}
		parts = append(parts, "cpu µs per event: "+strings.Join(kinds, ", "))
	}
	return strings.Join(parts, "; ")
}

func (r *openResult) String() string {
	text := fmt.Sprintf("at %.0f/s p50 %.1f ms, p99 %.1f, p99.9 %.1f, longest %.1f, lag at most %.0f ms, %.0f in the end, computed %.0f %%",
		r.at, r.P50, r.P99, r.P999, r.Max, millis(r.lag), millis(r.endLag), 100*r.computed)
	if r.settled != nil {
		text += "; " + r.settled.String()
	}
	return text
}

// Format formats the tables for people, and compares the figures with the goals.
func Format(lines []Line, o Options) string {
	var text strings.Builder
	text.WriteString(o.Describe() + "\n")
	formatFigures(&text, lines)
	formatInstances(&text, lines)
	formatCPU(&text, lines)
	formatModes(&text, lines)
	for _, l := range lines {
		if len(l.Probes) > 0 {
			fmt.Fprintf(&text, "%s tried: %s\n", l.Row, join(l.Probes))
		}
	}
	for _, l := range lines {
		if l.Error != "" {
			fmt.Fprintf(&text, "%s FAILED: %s\n", l.Row, l.Error)
		}
	}
	text.WriteString(formatGoals(lines))
	return text.String()
}

func join(probes []Probe) string {
	parts := make([]string, 0, len(probes))
	for _, p := range probes {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, ", ")
}

func newTable(text *strings.Builder) (row func(cells ...string), flush func()) {
	table := tabwriter.NewWriter(text, 0, 0, 2, ' ', tabwriter.AlignRight)
	return func(cells ...string) { _, _ = fmt.Fprintln(table, strings.Join(cells, "\t")+"\t") }, // into memory
		func() { _ = table.Flush() }
}

func formatFigures(text *strings.Builder, lines []Line) {
	row, flush := newTable(text)
	defer flush()
	row("row", "events/s", "seconds", "of", "at", "p50_ms", "p99_ms", "p99.9_ms", "max_ms", "lag_ms", "end_lag_ms", "computed", "in_time", "pause_ms", "settled_ms")
	figure := func(f *float64, format string) string {
		if f == nil {
			return "–"
		}
		return fmt.Sprintf(format, *f)
	}
	for _, l := range lines {
		name, latency := Row{Name: l.Row}.title(l.Workers), [4]string{"–", "–", "–", "–"}
		if l.Latency != nil {
			for i, f := range []float64{l.P50, l.P99, l.P999, l.Max} {
				latency[i] = fmt.Sprintf("%.1f", f)
			}
		}
		of := figure(l.Of, "%.2f × "+l.OfRow)
		if l.Divided != nil {
			of = figure(l.Divided, "%.2f × one cluster")
		}
		row(name, figure(l.EventsPerSecond, "%.0f"), figure(l.Seconds, "%.2f"), of, figure(l.At, "%.0f/s"),
			latency[0], latency[1], latency[2], latency[3], figure(l.Lag, "%.0f"), figure(l.EndLag, "%.0f"), figure(l.Computed, "%.2f"), figure(l.InTime, "%.3f"), figure(l.Pause, "%.1f"), figure(l.Settled, "%.0f"))
	}
}

// formatInstances formats the latencies around strikes against instances.
func formatInstances(text *strings.Builder, lines []Line) {
	row, flush := newTable(text)
	defer flush()
	headed := false
	for _, l := range lines {
		if l.Before == nil {
			continue
		}
		if !headed {
			text.WriteString("\np50 / p99.9 / longest in ms around a strike against one instance of each three\n")
			row("row", "before", "first second", "then", "afterwards")
			headed = true
		}
		cells := []string{l.Row}
		for _, f := range []*Latency{l.Before, l.Second, l.Latency, l.Healed} {
			cells = append(cells, fmt.Sprintf("%.1f / %.1f / %.1f", f.P50, f.P999, f.Max))
		}
		row(cells...)
	}
}

func formatCPU(text *strings.Builder, lines []Line) {
	kinds := map[string]bool{}
	for _, l := range lines {
		for kind := range l.CPU {
			kinds[kind] = true
		}
	}
	if len(kinds) == 0 {
		return
	}
	text.WriteString("\nprocessor time per event in µs, both clusters together\n")
	row, flush := newTable(text)
	defer flush()
	columns := slices.Sorted(maps.Keys(kinds))
	row(slices.Concat([]string{"row"}, columns, []string{"sum"})...)
	for _, l := range lines {
		if len(l.CPU) == 0 {
			continue
		}
		cells, sum := []string{l.Row}, 0.0
		for _, kind := range columns {
			cell := "–"
			if used, ok := l.CPU[kind]; ok {
				cell = fmt.Sprintf("%.0f", used)
				sum += used
			}
			cells = append(cells, cell)
		}
		row(append(cells, fmt.Sprintf("%.0f", sum))...)
	}
}
