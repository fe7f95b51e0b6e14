package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Options configure the measurement.
type Options struct {
	Rows     []Row
	Programs Programs

	Events   int           // of a filled stream, at most
	Rounds   int           // trials of each row
	Rate     int           // events a second in the rows about stalls, and where searches start
	Duration time.Duration // of an open loop

	// RaceRate is the rate of e2e-race and e2e-race-by-hand. 0 searches for the highest
	// rate, with probes of length Probe, until it is known up to the factor Precision.
	RaceRate  int
	Probe     time.Duration
	Precision float64

	// Limit bounds a trial that is not an open loop.
	Limit time.Duration

	// SyncInterval is how often NATS syncs its files to the disk: a duration, or
	// always.
	SyncInterval string

	// Env are further variables for sources and functions.
	Env []string

	// Dir is the folder for streams and logs; empty for the system's temporary
	// folder.
	Dir string

	// Beside is how long good events are published beside bad ones.
	Beside time.Duration

	// Pending is the number of messages in row pending.
	Pending int

	// Workers are the numbers of workers that are tried for a consumer by hand. Defaults to
	// 8 to 64.
	Workers []int

	// NewDatabase creates a new database for a trial.
	NewDatabase func(ctx context.Context) (Database, error)

	Now      func() time.Time
	Progress func(format string, args ...any)
}

// byHandEvents returns how many events a filled stream by hand has: enough for a rate, on
// tables that stay small, which favours it.
func (o *Options) byHandEvents() int { return max(min(o.Events, 1000), o.Events/5) }

// result holds the measurements of a row.
type result struct {
	row Row

	// variants has a sample per round for each number of workers, or for the single
	// variant 0.
	variants [][]sample

	err   error   // ends the measurement of the row
	tried []Probe // by a failed search
}

// tries returns the numbers of workers that are measured in a round; 0 for
// clusters, and if the number is chosen.
func (r *run) tries(row Row) []int {
	if row.byHand && row.measure == measureBacklog {
		return r.Workers
	}
	return []int{0}
}

// best returns the samples of the variant with the highest median rate, one per round.
func (r *result) best() []sample {
	var best []sample
	for _, samples := range r.variants {
		if len(samples) > 0 && (best == nil || medianOf(samples, rateOf) > medianOf(best, rateOf)) {
			best = samples
		}
	}
	return best
}

func rateOf(s sample) float64 { return s.rate }

// run is one run over all rows.
type run struct {
	*Options

	results []*result
	round   int
}

// Run measures the rows, and those whose rates they need, round robin. A row that fails is
// not measured further; its line contains the error.
func Run(ctx context.Context, o Options) ([]Line, error) {
	if o.Workers == nil {
		o.Workers = []int{8, 16, 32, 64}
	}
	r := &run{Options: &o}
	rows := o.Rows
	if o.RaceRate == 0 {
		rows = withRaces(rows)
	}
	for _, row := range rows {
		r.results = append(r.results, &result{row: row, variants: make([][]sample, len(r.tries(row)))})
	}
	for r.round = range o.Rounds {
		for _, result := range r.results {
			if result.err != nil {
				continue
			}
			if result.err = r.measureRow(ctx, result); ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if result.err != nil {
				o.Progress("round %d/%d  %-22s FAILED: %v", r.round+1, o.Rounds, result.row.Name, result.err)
			}
		}
	}
	var errs []error
	for _, result := range r.results {
		if result.err != nil && !errors.Is(result.err, errNotMeasured) {
			errs = append(errs, fmt.Errorf("row %s: %w", result.row.Name, result.err))
		}
	}
	return o.summarise(r.results), errors.Join(errs...)
}

func (r *run) measureRow(ctx context.Context, result *result) error {
	for v, workers := range r.tries(result.row) {
		s, err := r.measure(ctx, result, workers)
		if err != nil {
			result.tried = s.probes
			return err
		}
		result.variants[v] = append(result.variants[v], s)
		r.Progress("round %d/%d  %-22s %s", r.round+1, r.Rounds, result.row.title(s.workers), s)
	}
	return nil
}

func (r *run) measure(ctx context.Context, result *result, workers int) (sample, error) {
	row := result.row
	if row.measure != measureRace && row.measure != measureLatency && row.measure != measureBeside && row.measure != measureInstances {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Limit, fmt.Errorf("it did not finish in %s", r.Limit))
		defer cancel()
	}
	switch row.measure {
	case measureBacklog:
		return r.measureBacklog(ctx, row, workers)
	case measureSkip:
		return r.measureSkip(ctx, row)
	case measureDivide:
		return r.measureDivide(ctx, row)
	case measureDeath:
		return r.measureDeath(ctx, row)
	case measureRace:
		start, factor := float64(r.Rate), 2.0
		if known := result.variants[0]; len(known) > 0 { // from an earlier round
			start, factor = medianOf(known, rateOf), 1.15
		} else if row.race() != "" {
			race, err := r.current(row.race())
			if err != nil {
				return sample{}, err
			}
			start, factor = race.rate*cmp.Or(row.expected, 1), 1.15
		}
		if row.byHand {
			return r.measureRaceByHand(ctx, row, start, factor)
		}
		return r.measureRace(ctx, row, 0, start, factor)
	case measureLatency:
		rate := float64(r.Rate)
		if row.share > 0 {
			race, err := r.current(row.race())
			if err != nil {
				return sample{}, err
			}
			rate, workers = row.share*race.rate, race.workers
		}
		result, err := r.measureOpenLoop(ctx, openLoop{row: row, workers: workers, rate: rate, duration: r.Duration})
		if err != nil {
			return sample{}, err
		}
		return sample{workers: workers, cpu: result.cpu, open: result}, nil
	case measureBeside:
		result, err := r.measureBeside(ctx, row)
		if err != nil {
			return sample{}, err
		}
		return sample{beside: result}, nil
	case measureKill:
		race, err := r.current(row.race())
		if err != nil {
			return sample{}, err
		}
		result, err := r.measureKill(ctx, row, row.share*race.rate)
		if err != nil {
			return sample{}, err
		}
		return sample{kill: result}, nil
	case measureInstances:
		result, err := r.measureInstances(ctx, row)
		if err != nil {
			return sample{}, err
		}
		return sample{instances: result}, nil
	default:
		return sample{}, fmt.Errorf("row %s has no measurement", row.Name)
	}
}

// current returns the sample of this round of a row with a highest rate.
func (r *run) current(name string) (sample, error) {
	if r.RaceRate > 0 {
		s := sample{rate: float64(r.RaceRate)}
		if name == RowRaceByHand {
			s.workers = r.bestWorkers()
		}
		return s, nil
	}
	for _, result := range r.results {
		if samples := result.variants[0]; result.row.Name == name && len(samples) > r.round {
			return samples[r.round], nil
		}
	}
	return sample{}, fmt.Errorf("%w: %s", errNotMeasured, name)
}

// measureRaceByHand searches the highest rate with the number of workers that was best
// so far, and checks whether another number sustains more.
func (r *run) measureRaceByHand(ctx context.Context, row Row, start, factor float64) (sample, error) {
	best, err := r.measureRace(ctx, row, r.bestWorkers(), start, factor)
	if err != nil || r.RaceRate > 0 || factor < 2 {
		return best, err
	}
	probes := slices.Clone(best.probes)
	for _, workers := range r.Workers {
		if workers == best.workers {
			continue
		}
		more := math.Round(best.rate * otherWorkersGain)
		l := openLoop{row: row, workers: workers, rate: more, duration: r.Probe, giveUp: lagAtMost}
		result, err := r.measureOpenLoop(ctx, l)
		if err != nil {
			return sample{}, err
		}
		failure := result.failure()
		probes = append(probes, Probe{Rate: more, Workers: workers, Seconds: r.Probe.Seconds(), Failure: failure})
		if failure != "" {
			continue
		}
		other, err := r.measureRace(ctx, row, workers, more, 1.15)
		if err != nil {
			return sample{}, err
		}
		probes = append(probes, other.probes...)
		if other.rate > best.rate {
			best = other
		}
	}
	best.probes = probes
	return best, nil
}

// otherWorkersGain is the minimum improvement for which another number of workers
// is searched for its highest rate.
const otherWorkersGain = 1.1

// bestWorkers returns the number of workers with the highest rate so far: in e2e-race-by-hand,
// or in e2e-by-hand.
func (r *run) bestWorkers() int {
	for _, name := range []string{RowRaceByHand, RowByHand} {
		for _, result := range r.results {
			if samples := result.best(); result.row.Name == name && len(samples) > 0 {
				return samples[len(samples)-1].workers
			}
		}
	}
	return 16
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
