package e2e

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Options say what is measured, and how.
type Options struct {
	Rows     []Row
	Programs Programs

	Events   int           // of a trial for a rate
	Rounds   int           // trials of each row
	Rate     int           // events a second, of the rows about stalls
	Duration time.Duration // of a trial for latencies

	// SyncInterval is how often NATS forces to the disk what it has stored: a duration,
	// or always.
	SyncInterval string

	// Env are further variables for sources and functions.
	Env []string

	// Dir is the folder for streams and logs; empty for the system's.
	Dir string

	// Pending is how many messages row pending has.
	Pending int

	// NewDatabase makes a new database for a trial.
	NewDatabase func(ctx context.Context) (Database, error)

	Now      func() time.Time
	Progress func(format string, args ...any)
}

// byHandEvents is how many events a trial by hand has: enough to know the rate, on
// tables that stay small, which favours it.
func (o *Options) byHandEvents() int { return max(min(o.Events, 1000), o.Events/5) }

// result is all that was measured of a row.
type result struct {
	row       Row
	speeds    [][]speed // for each number of workers, or one, a sample a round
	latencies []Latency // one a round
}

// variants are the numbers of workers that are tried; 0 for clusters.
func (r Row) variants() []int {
	if len(r.byHand) > 0 {
		return r.byHand
	}
	return []int{0}
}

// best gives the number of the variant with the highest median rate.
func (r result) best() int {
	best := 0
	for i := range r.speeds {
		if r.rate(i) > r.rate(best) {
			best = i
		}
	}
	return best
}

func (r result) rate(variant int) float64 {
	return medianOf(r.speeds[variant], func(s speed) float64 { return s.rate })
}

// Run measures the rows, round robin, so that all see the same weather.
func Run(ctx context.Context, o Options) ([]Line, error) {
	results := make([]result, len(o.Rows))
	for i, row := range o.Rows {
		results[i] = result{row: row, speeds: make([][]speed, len(row.variants()))}
	}
	for round := range o.Rounds {
		for i := range results {
			r := &results[i]
			for v, workers := range r.row.variants() {
				if !r.row.rate {
					continue
				}
				s, err := o.measureRate(ctx, r.row, workers)
				if err != nil {
					return nil, fmt.Errorf("row %s, round %d: %w", r.row.Name, round+1, err)
				}
				r.speeds[v] = append(r.speeds[v], s)
				o.Progress("round %d/%d  %-22s %7.0f events/s; %s", round+1, o.Rounds, r.row.title(workers), s.rate, formatCPU(s.cpu))
			}
		}
	}
	for round := range o.Rounds {
		for i := range results {
			r := &results[i]
			workers, rate := 0, float64(o.Rate)
			if r.row.rate {
				workers, rate = r.row.variants()[r.best()], r.rate(r.best())/2
			}
			l, err := o.measureLatency(ctx, r.row, workers, rate)
			if err != nil {
				return nil, fmt.Errorf("row %s, round %d: %w", r.row.Name, round+1, err)
			}
			r.latencies = append(r.latencies, l)
			o.Progress("round %d/%d  %-22s %7.0f events/s: p50 %.1f ms, p99 %.1f, p99.9 %.1f, longest %.1f",
				round+1, o.Rounds, r.row.title(workers), rate, l.P50, l.P99, l.P999, l.Max)
		}
	}
	return o.summarise(results), nil
}

func (r Row) title(workers int) string {
	if workers == 0 {
		return r.Name
	}
	return fmt.Sprintf("%s at %d", r.Name, workers)
}

func medianOf[T any](list []T, figure func(T) float64) float64 {
	values := make([]float64, len(list))
	for i, t := range list {
		values[i] = figure(t)
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}
