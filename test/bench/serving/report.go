package serving

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Line is a line of the table, as JSON. An unknown figure is null.
type Line struct {
	Row                   string   `json:"row"`
	RequestsPerSecond     float64  `json:"requests_per_second"`
	EventsPerSecond       float64  `json:"events_per_second"`
	OfBare                *float64 `json:"of_bare"` // ratio of its events a second to the bare handler's requests a second
	AllocationsPerEvent   float64  `json:"allocations_per_event"`
	ServerMicroseconds    float64  `json:"server_us_per_request"`
	ServerOfBare          *float64 `json:"server_us_of_bare"`
	GeneratorMicroseconds float64  `json:"generator_us_per_request"`
	Busy                  float64  `json:"server_busy"`
	Resident              float64  `json:"resident_mib"`
	P99                   float64  `json:"p99_us"`
	Lowest                float64  `json:"lowest_requests_per_second"`
	Highest               float64  `json:"highest_requests_per_second"`
	Requests              int      `json:"requests"` // of a trial
	Rounds                int      `json:"rounds"`
}

// Summarise returns the table. Its figures are medians of the rounds, its ratios
// medians of the ratio within each round.
func Summarise(results []Result) []Line {
	var bareSamples []sample
	for _, r := range results {
		if r.Row.Name == RowBare {
			bareSamples = r.samples
		}
	}
	var lines []Line
	for _, r := range results {
		if len(r.samples) == 0 {
			continue
		}
		of := func(figure func(sample) float64) float64 { return medianOf(r.samples, figure) }
		perEvent := func(s sample) float64 { return float64(s.mallocs) / float64(s.events) }
		l := Line{
			Row: r.Row.Name, Requests: r.samples[0].requests, Rounds: len(r.samples),
			RequestsPerSecond: math.Round(of(sample.requestsPerSecond)), EventsPerSecond: math.Round(of(sample.eventsPerSecond)),
			AllocationsPerEvent: rounded(of(perEvent), 1),
			ServerMicroseconds:  rounded(of(func(s sample) float64 { return micros(s.serverCPU) / float64(s.requests) }), 2),

			GeneratorMicroseconds: rounded(of(func(s sample) float64 { return micros(s.clientCPU) / float64(s.requests) }), 2),
			Busy:                  rounded(of(func(s sample) float64 { return s.busy }), 2),
			Resident:              rounded(of(func(s sample) float64 { return float64(s.rss) / (1 << 20) }), 1),
			P99:                   of(func(s sample) float64 { return micros(s.latencies.quantile(0.99)) }),
			Lowest:                math.Inf(1),
		}
		for _, s := range r.samples {
			l.Lowest, l.Highest = math.Round(min(l.Lowest, s.requestsPerSecond())), math.Round(max(l.Highest, s.requestsPerSecond()))
		}
		if len(bareSamples) == len(r.samples) {
			l.OfBare = ratio(r.samples, bareSamples, sample.eventsPerSecond)
			l.ServerOfBare = ratio(r.samples, bareSamples, func(s sample) float64 { return micros(s.serverCPU) / float64(s.requests) })
		}
		lines = append(lines, l)
	}
	return lines
}

// ratio returns the median of the figures' ratio within each round.
func ratio(a, b []sample, figure func(sample) float64) *float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = figure(a[i]) / figure(b[i])
	}
	r := rounded(median(ratios), 3)
	return &r
}

// least is the goal for binary mode, as a fraction of the bare handler's rate.
const least = 0.6

// Format formats the table for people.
func Format(lines []Line, o Options) string {
	var text strings.Builder
	server, generator := cores()
	fmt.Fprintf(&text, "serving: %d connections, an event's data are %d bytes of JSON; server with GOMAXPROCS %d, generator %d, %s\n",
		o.Connections, len(data), server, generator, runtime.Version())
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(table, format+"\n", args...) }
	line("row\trequests_per_second\tevents_per_second\tof_bare\tallocations_per_event\tserver_us\tgenerator_us\tserver_busy\tresident_mib\tp99_us\t")
	for _, l := range lines {
		line("%s\t%.0f\t%.0f\t%s\t%.1f\t%.1f\t%.1f\t%.2f\t%.1f\t%.0f\t", l.Row, l.RequestsPerSecond, l.EventsPerSecond,
			show(l.OfBare), l.AllocationsPerEvent, l.ServerMicroseconds, l.GeneratorMicroseconds, l.Busy, l.Resident, l.P99)
	}
	_ = table.Flush() // into memory
	for _, l := range lines {
		if l.Row == RowBinary && l.OfBare != nil {
			text.WriteString(goal("serve-binary of bare", *l.OfBare, least, *l.OfBare >= least, "at least"))
		}
		if l.Busy < 0.9 {
			fmt.Fprintf(&text, "%s: the server was only %.0f %% busy: something else was the limit\n", l.Row, 100*l.Busy)
		}
	}
	return text.String()
}

func goal(what string, got, want float64, reached bool, bound string) string {
	word := "reached"
	if !reached {
		word = "NOT REACHED"
	}
	return fmt.Sprintf("%-37s %6.2f, %s %.2f: %s\n", what, got, bound, want, word)
}

func show(f *float64) string {
	if f == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", *f)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func rounded(f float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(f*p) / p
}

func median[T cmp.Ordered](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func medianOf(samples []sample, figure func(sample) float64) float64 {
	list := make([]float64, len(samples))
	for i, s := range samples {
		list[i] = figure(s)
	}
	return median(list)
}
