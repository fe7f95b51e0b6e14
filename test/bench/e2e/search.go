package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	lagAtMost     = time.Second // at most this for a sustained rate
	wholeTime     = 30 * time.Second
	computedShare = 0.95 // minimum for each cluster to count as computing everything

	lowestRate = 10
)

// Probe is an attempt at a rate.
type Probe struct {
	Rate    float64 `json:"events_per_second"`
	Seconds float64 `json:"seconds"`
	Workers int     `json:"workers,omitempty"` // of each consumer by hand
	Failure string  `json:"failure,omitempty"` // why the rate was not sustained
}

func (p Probe) String() string {
	rate := fmt.Sprintf("%.0f/s", p.Rate)
	if p.Workers > 0 {
		rate += fmt.Sprintf(" at %d", p.Workers)
	}
	if p.Failure == "" {
		return fmt.Sprintf("%s held for %.0f s", rate, p.Seconds)
	}
	return fmt.Sprintf("%s not held (%s)", rate, p.Failure)
}

// search searches the highest rate that is sustained: from start up or down by a factor,
// then by bisection, in short probes. If a probe does not sustain a rate, it is probed
// once more. The result has to be sustained for the whole time. If it is not, lower
// rates are tried, with increasing steps, and at last one between.
type search struct {
	start, factor float64
	precision     float64 // the ratio of the lowest rate that failed to the highest that was sustained
	probes        int     // at most
	confirmations int     // at most

	// try attempts a rate, in a probe or for the whole time.
	try func(ctx context.Context, rate float64, whole bool) (*openResult, Probe, error)

	tried []Probe
}

func (s *search) run(ctx context.Context) (*openResult, error) {
	low, high, rate := 0.0, math.Inf(1), s.start
	for n := 0; n < s.probes && high > low*s.precision; n++ {
		held, err := s.probe(ctx, rate)
		if err != nil {
			return nil, err
		}
		if held {
			low = rate
		} else {
			high = rate
		}
		switch {
		case low == 0:
			rate = high / s.factor
		case math.IsInf(high, 1):
			rate = low * s.factor
		default:
			rate = math.Sqrt(low * high)
		}
		if rate < lowestRate {
			return nil, fmt.Errorf("not even %.0f events/s are sustained", high)
		}
	}
	if low == 0 {
		return nil, errors.New("no rate is sustained")
	}
	return s.confirm(ctx, low)
}

// confirm searches a rate that is sustained for the whole time, close to the one that
// probes sustained and not above it.
func (s *search) confirm(ctx context.Context, rate float64) (*openResult, error) {
	var best *openResult
	high, step := math.Inf(1), s.precision
	for range s.confirmations {
		result, probe, err := s.try(ctx, rate, true)
		if err != nil {
			return nil, err
		}
		s.tried = append(s.tried, probe)
		if probe.Failure == "" {
			best = result
		} else {
			high = rate
		}
		switch {
		case best == nil:
			rate /= step
			step *= step
		case math.IsInf(high, 1) || high <= best.at*s.precision*s.precision:
			return best, nil
		default:
			rate = math.Sqrt(best.at * high)
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no rate is sustained for the whole time, not even %.0f/s", high)
	}
	return best, nil
}

func (s *search) probe(ctx context.Context, rate float64) (held bool, err error) {
	for range 2 {
		_, probe, err := s.try(ctx, rate, false)
		if err != nil {
			return false, err
		}
		s.tried = append(s.tried, probe)
		if probe.Failure == "" {
			return true, nil
		}
	}
	return false, nil
}

// failure returns why a rate was not sustained, or "".
func (r *openResult) failure() string {
	switch {
	case r.gaveUp || r.lag > lagAtMost:
		return fmt.Sprintf("lag %.1f s", r.lag.Seconds())
	case r.endLag > endLagAtMost(r.duration):
		return fmt.Sprintf("lag %.0f ms at the end", millis(r.endLag))
	case !r.once && r.computed < computedShare:
		return fmt.Sprintf("a cluster computed %.0f %%", 100*r.computed)
	}
	return ""
}

// endLagAtMost returns the highest lag at the end of a trial that would not exceed
// lagAtMost in the whole time.
func endLagAtMost(duration time.Duration) time.Duration {
	share := min(duration.Seconds()/wholeTime.Seconds(), 1)
	return max(200*time.Millisecond, time.Duration(share*float64(lagAtMost)))
}

// measureRace searches the highest rate that a row sustains, starting at start.
func (o *Options) measureRace(ctx context.Context, r Row, workers int, start, factor float64) (sample, error) {
	if o.RaceRate > 0 {
		return o.measureRaceRate(ctx, r, workers)
	}
	s := search{
		start: start, factor: factor, precision: o.Precision, probes: 12, confirmations: 7,
		try: func(ctx context.Context, rate float64, whole bool) (*openResult, Probe, error) {
			l := openLoop{row: r, workers: workers, rate: math.Round(rate), duration: o.Probe, giveUp: lagAtMost}
			if whole {
				l.duration = o.Duration
			}
			return o.probeRate(ctx, l)
		},
	}
	result, err := s.run(ctx)
	if err != nil {
		return sample{probes: s.tried}, err
	}
	return sample{rate: result.at, cpu: result.cpu, open: result, probes: s.tried, workers: workers}, nil
}

// measureRaceRate measures a row at o.RaceRate. If the rate is not sustained, its probe
// contains the reason, and all other figures are measured nevertheless.
func (o *Options) measureRaceRate(ctx context.Context, r Row, workers int) (sample, error) {
	result, probe, err := o.probeRate(ctx, openLoop{row: r, workers: workers, rate: float64(o.RaceRate), duration: o.Duration})
	if err != nil {
		return sample{}, err
	}
	return sample{rate: result.at, cpu: result.cpu, open: result, probes: []Probe{probe}, workers: workers}, nil
}

// probeRate measures an open loop, and whether it sustains its rate.
func (o *Options) probeRate(ctx context.Context, l openLoop) (*openResult, Probe, error) {
	result, err := o.measureOpenLoop(ctx, l)
	if err != nil {
		return nil, Probe{}, fmt.Errorf("%.0f events/s: %w", l.rate, err)
	}
	probe := Probe{Rate: l.rate, Seconds: l.duration.Seconds(), Workers: l.workers, Failure: result.failure()}
	o.Progress("         %-22s %s; lag at most %.0f ms", l.row.Name, probe, millis(result.lag))
	return result, probe, nil
}

var errNotMeasured = errors.New("the rate that this row needs was not measured")
