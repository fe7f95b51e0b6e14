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
	w, err := o.newWorld(ctx)
	if err != nil {
		return speed{}, err
	}
	defer w.close(ctx)
	events := o.Events
	if workers > 0 {
		events = o.byHandEvents()
	}
	if err := w.fill(ctx, events); err != nil {
		return speed{}, err
	}
	if err := w.database.Settle(ctx); err != nil {
		return speed{}, err
	}
	before := w.spend()
	if workers > 0 {
		err = w.startByHand(workers)
	} else {
		err = w.startClusters(ctx, r)
	}
	if err != nil {
		return speed{}, err
	}
	state, err := w.awaitOutputs(ctx, events)
	if err != nil {
		return speed{}, err
	}
	s := speed{rate: float64(events-1) / state.LastTime.Sub(state.FirstTime).Seconds(), cpu: w.spend()}
	for kind := range s.cpu {
		s.cpu[kind] = (s.cpu[kind] - before[kind]) / time.Duration(events)
	}
	return s, w.check(ctx, events, workers > 0)
}

// check ends the processes, and looks whether the outcome is right.
func (w *world) check(ctx context.Context, events int, byHand bool) error {
	for _, p := range slices.Backward(w.parts) {
		p.Stop(ctx)
	}
	if _, err := w.awaitOutputs(ctx, events); err != nil { // no more than these
		return err
	}
	return w.database.Check(ctx, events, orders.Total(events), byHand)
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
	w, err := o.newWorld(ctx)
	if err != nil {
		return Latency{}, err
	}
	defer w.close(ctx)
	if err := w.database.Settle(ctx); err != nil {
		return Latency{}, err
	}
	if workers > 0 {
		err = w.startByHand(workers)
	} else {
		err = w.startClusters(ctx, r)
	}
	if err != nil {
		return Latency{}, err
	}
	if err := w.fill(ctx, 1); err != nil {
		return Latency{}, err
	}
	if _, err := w.awaitOutputs(ctx, 1); err != nil { // all is up
		return Latency{}, err
	}
	warm, events := max(int(rate*warmUp.Seconds()), 1), max(int(rate*o.Duration.Seconds()), 1)
	if _, err := w.publish(ctx, 1, warm, rate); err != nil {
		return Latency{}, err
	}
	freezing, thaw := context.WithCancel(ctx)
	defer thaw()
	frozen := make(chan struct{})
	go func() {
		defer close(frozen)
		if r.stops {
			w.freeze(freezing, o.Now)
		}
	}()
	published, err := w.publish(ctx, 1+warm, events, rate)
	thaw()
	<-frozen
	if err != nil {
		return Latency{}, err
	}
	all := 1 + warm + events
	if _, err := w.awaitOutputs(ctx, all); err != nil {
		return Latency{}, err
	}
	stored, err := w.stored(ctx, 1+warm, events)
	if err != nil {
		return Latency{}, err
	}
	if err := w.check(ctx, all, workers > 0); err != nil {
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
