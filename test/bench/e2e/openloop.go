package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// openLoop is a trial in which events are published at a steady rate, whatever the
// outcome of each.
type openLoop struct {
	row      Row
	workers  int // by hand
	rate     float64
	duration time.Duration
	giveUp   time.Duration // the lag at which the trial ends; 0 for none
}

// openResult is the measurement of an open loop.
type openResult struct {
	Latency

	at       float64       // events a second
	duration time.Duration // of the trial
	lag      time.Duration // the highest
	endLag   time.Duration // the median in the last second
	computed float64       // share of the events that the cluster with the fewest computed; 1 by hand
	once     bool          // an event is computed by one cluster only
	work     *Work         // per event, in a row that measures a mode
	settled  *settled      // in a row that settles
	gaveUp   bool          // the lag was too high: only at and lag are set
	cpu      map[string]time.Duration
}

// Latency holds the latencies of events, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
}

// schedule determines when events are published: event first+i at begin + i/rate.
type schedule struct {
	begin         time.Time
	rate          float64
	first, events int
	warm          int // number of the first events that do not count
}

// at returns when event first+i is due.
func (s schedule) at(i int) time.Time {
	return s.begin.Add(time.Duration(float64(i) / s.rate * float64(time.Second)))
}

var errLag = errors.New("the lag is too high")

// measureOpenLoop makes a row process events at a steady rate.
func (o *Options) measureOpenLoop(ctx context.Context, l openLoop) (_ *openResult, err error) {
	d, err := o.deployHandling(ctx, l.row, func(d *deployment) error { return d.startRow(ctx, l.row, l.workers) })
	if err != nil {
		return nil, err
	}
	defer d.close(ctx)
	warm := max(int(l.rate*o.warmUp(l.duration).Seconds()), 1)
	s := schedule{begin: o.Now(), rate: l.rate, first: 1, events: warm + max(int(l.rate*l.duration.Seconds()), 1), warm: warm}
	before := d.spend()
	working, err := d.work(ctx, l.row)
	if err != nil {
		return nil, err
	}
	working, err = d.databaseWork(ctx, l.row, working)
	if err != nil {
		return nil, err
	}
	settle := newSettleMeter(l.rate, min(settleWindow, l.duration/4))
	published, lags, err := d.runOpenLoop(ctx, l, s, settle)
	result := &openResult{at: l.rate, duration: l.duration, once: l.row.once(), lag: lags.highest(), endLag: lags.last(min(time.Second, l.duration/8))}
	if errors.Is(err, errLag) {
		d.destroy()
		result.gaveUp = true
		return result, nil
	}
	if err != nil {
		return nil, err
	}
	if l.row.settles {
		if result.settled, err = settle.result(); err != nil {
			return nil, err
		}
	}
	all := s.first + s.events
	if _, err := d.awaitOutputs(ctx, all); err != nil {
		return nil, err
	}
	if err := d.awaitHandled(ctx, all, len(l.row.clusters())); err != nil {
		return nil, err
	}
	result.cpu = d.spent(before, s.events)
	if result.computed, err = d.computedShare(ctx, all); err != nil {
		return nil, err
	}
	worked, err := d.work(ctx, l.row)
	if err != nil {
		return nil, err
	}
	stored, err := d.stored(ctx, s.first+warm, s.events-warm)
	if err != nil {
		return nil, err
	}
	if err := d.check(ctx, all, l.row.byHand); err != nil {
		return nil, err
	}
	if worked, err = d.databaseWork(ctx, l.row, worked); err != nil {
		return nil, err
	}
	if l.row.mode != nil {
		worked = worked.perEvent(working, s.events)
		result.work = &worked
	}
	counts := func(int) bool { return true }
	if l.row.slow {
		counts = func(i int) bool { return !orders.Slow(s.first + warm + i) }
	}
	result.Latency, err = latencyOf(published[warm:], stored, counts)
	return result, err
}

// warmUp returns how long events are published before latencies count.
func (o *Options) warmUp(duration time.Duration) time.Duration {
	return min(2*time.Second, duration/4)
}

// runOpenLoop publishes the events of a schedule while it observes the lag and strikes. The
// error is errLag if the lag exceeds its limit.
func (d *deployment) runOpenLoop(ctx context.Context, l openLoop, s schedule, settle *settleMeter) ([]time.Time, *lagMeter, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	meter := &lagMeter{schedule: s}
	observed, struck, settled := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		err := d.observeLag(ctx, meter, l.row.waits(), l.giveUp)
		if err != nil {
			end(err)
		}
		observed <- err
	}()
	go func() {
		err := d.strike(ctx, l, s, settle)
		if err != nil {
			end(err)
		}
		struck <- err
	}()
	go func() {
		if !l.row.settles {
			settled <- nil
			return
		}
		settled <- d.observeForeign(ctx, settle)
	}()
	published, err := d.publish(ctx, l.row, s)
	if l.row.settles && err == nil { // a short trial on a busy machine may end before
		select {
		case <-settle.enough:
		case <-ctx.Done():
		}
	}
	end(errDone)
	return published, meter, errors.Join(without(<-observed, errDone), without(<-struck, errDone), without(<-settled, errDone), without(err, errDone))
}

// errDone ends the goroutines that run during publishing.
var errDone = errors.New("all events are published")

func without(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// computedShare returns the share of the events that the cluster with the fewest has
// computed.
func (d *deployment) computedShare(ctx context.Context, events int) (float64, error) {
	counts, err := d.computed(ctx)
	if err != nil {
		return 0, err
	}
	share := 1.0
	for _, n := range counts {
		share = min(share, float64(n)/float64(events))
	}
	return share, nil
}

// latencyOf returns the latencies of the events that count.
func latencyOf(published, stored []time.Time, counts func(i int) bool) (Latency, error) {
	took := make([]time.Duration, 0, len(published))
	for i := range published {
		t := stored[i].Sub(published[i].Round(0))
		if t < 0 {
			return Latency{}, fmt.Errorf("an output was stored %s before its event was published: was the clock set?", -t)
		}
		if counts(i) {
			took = append(took, t)
		}
	}
	if len(took) == 0 {
		return Latency{}, errors.New("no event counts: the trial is too short")
	}
	slices.Sort(took)
	at := func(quantile float64) float64 {
		return millis(took[min(int(quantile*float64(len(took))), len(took)-1)])
	}
	return Latency{P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1)}, nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
