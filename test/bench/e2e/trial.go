package e2e

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// warmUp is for how long events are published before latencies count.
const warmUp = 2 * time.Second

// speed is what a trial for the rate has measured.
type speed struct {
	rate float64                  // distinct events a second
	cpu  map[string]time.Duration // of an event, by kind of process, both clusters together
}

// measureRate has a row handle a stream that is full already, as fast as it can.
func (o *Options) measureRate(ctx context.Context, r Row, workers int) (speed, error) {
	d, err := o.deploy(ctx)
	if err != nil {
		return speed{}, err
	}
	defer d.close(ctx)
	events := o.Events
	if workers > 0 {
		events = o.byHandEvents()
	}
	if err := d.fill(ctx, events); err != nil {
		return speed{}, err
	}
	if err := d.database.Settle(ctx); err != nil {
		return speed{}, err
	}
	before := d.spend()
	if workers > 0 {
		err = d.startByHand(workers)
	} else {
		err = d.startClusters(ctx, r)
	}
	if err != nil {
		return speed{}, err
	}
	state, err := d.awaitOutputs(ctx, events)
	if err != nil {
		return speed{}, err
	}
	s := speed{rate: float64(events-1) / state.LastTime.Sub(state.FirstTime).Seconds(), cpu: d.spend()}
	for kind := range s.cpu {
		s.cpu[kind] = (s.cpu[kind] - before[kind]) / time.Duration(events)
	}
	return s, d.check(ctx, events, workers > 0)
}

// check ends the processes, and looks whether the outcome is right.
func (d *deployment) check(ctx context.Context, events int, byHand bool) error {
	for _, p := range slices.Backward(d.processes) {
		p.Stop(ctx)
	}
	if _, err := d.awaitOutputs(ctx, events); err != nil { // no more than these
		return err
	}
	return d.database.Check(ctx, events, orders.Total(events), byHand)
}

// Latency is how long events took, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
}

// measureLatency has a row handle events that come at a steady rate.
func (o *Options) measureLatency(ctx context.Context, r Row, workers int, rate float64) (Latency, error) {
	d, err := o.deploy(ctx)
	if err != nil {
		return Latency{}, err
	}
	defer d.close(ctx)
	if err := d.database.Settle(ctx); err != nil {
		return Latency{}, err
	}
	if workers > 0 {
		err = d.startByHand(workers)
	} else {
		err = d.startClusters(ctx, r)
	}
	if err != nil {
		return Latency{}, err
	}
	if err := d.fill(ctx, 1); err != nil {
		return Latency{}, err
	}
	if _, err := d.awaitOutputs(ctx, 1); err != nil { // all is up
		return Latency{}, err
	}
	warm, events := max(int(rate*warmUp.Seconds()), 1), max(int(rate*o.Duration.Seconds()), 1)
	if _, err := d.publish(ctx, 1, warm, rate); err != nil {
		return Latency{}, err
	}
	freezing, thaw := context.WithCancel(ctx)
	defer thaw()
	frozen := make(chan struct{})
	go func() {
		defer close(frozen)
		if r.stops {
			d.freeze(freezing, o.Now)
		}
	}()
	published, err := d.publish(ctx, 1+warm, events, rate)
	thaw()
	<-frozen
	if err != nil {
		return Latency{}, err
	}
	all := 1 + warm + events
	if _, err := d.awaitOutputs(ctx, all); err != nil {
		return Latency{}, err
	}
	stored, err := d.stored(ctx, 1+warm, events)
	if err != nil {
		return Latency{}, err
	}
	if err := d.check(ctx, all, workers > 0); err != nil {
		return Latency{}, err
	}
	return latencyOf(published, stored)
}

func latencyOf(published, stored []time.Time) (Latency, error) {
	took := make([]time.Duration, len(published))
	for i := range took {
		if took[i] = stored[i].Sub(published[i].Round(0)); took[i] < 0 {
			return Latency{}, fmt.Errorf("an output was stored %s before its event was published: was the clock set?", -took[i])
		}
	}
	slices.Sort(took)
	at := func(quantile float64) float64 {
		return float64(took[min(int(quantile*float64(len(took))), len(took)-1)]) / float64(time.Millisecond)
	}
	return Latency{P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1)}, nil
}
