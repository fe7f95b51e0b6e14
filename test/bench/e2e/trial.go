package e2e

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// sample is what one trial of a row has measured; a figure that it did not is zero.
type sample struct {
	rate    float64                  // distinct events a second
	cpu     map[string]time.Duration // of an event, by kind of process, both clusters together
	seconds float64                  // that the events took
	divided float64                  // the time of two clusters, of that of one
	workers int                      // by hand

	computed *float64 // share of a committed backlog
	probes   []Probe  // of a search

	open   *openResult   // of an open loop
	beside *besideResult // of good events beside bad ones
}

// measureBacklog has a row handle a stream that is full already, as fast as it can.
func (o *Options) measureBacklog(ctx context.Context, r Row, workers int) (sample, error) {
	events := o.eventsOf(r)
	d, err := o.deploy(ctx)
	if err != nil {
		return sample{}, err
	}
	defer d.close(ctx)
	if err := d.fill(ctx, r, 0, events); err != nil {
		return sample{}, err
	}
	if err := d.database.Settle(ctx); err != nil {
		return sample{}, err
	}
	before := d.spend()
	if err := d.startRow(ctx, r, workers); err != nil {
		return sample{}, err
	}
	state, err := d.awaitOutputs(ctx, events)
	if err != nil {
		return sample{}, err
	}
	s := sample{seconds: state.LastTime.Sub(state.FirstTime).Seconds(), cpu: d.spent(before, events), workers: workers}
	s.rate = float64(events-1) / s.seconds
	return s, d.check(ctx, events, r.byHand)
}

// eventsOf returns how many events a filled stream of a row has.
func (o *Options) eventsOf(r Row) int {
	switch {
	case r.byHand:
		return o.byHandEvents()
	case r.events > 0:
		return min(r.events, o.Events)
	}
	return o.Events
}

// spent returns the processor time of an event since before, by kind of process.
func (d *deployment) spent(before map[string]time.Duration, events int) map[string]time.Duration {
	spent := d.spend()
	for kind := range spent {
		spent[kind] = (spent[kind] - before[kind]) / time.Duration(events)
	}
	return spent
}

// check ends the processes, and compares what is stored with what has to be.
func (d *deployment) check(ctx context.Context, events int, byHand bool) error {
	for _, p := range slices.Backward(d.processes) {
		p.Stop(ctx)
	}
	if _, err := d.awaitOutputs(ctx, events); err != nil { // no more than these
		return err
	}
	return d.database.Check(ctx, events, orders.Total(events), byHand)
}

// measureDivide has one cluster handle a backlog, and then two.
func (o *Options) measureDivide(ctx context.Context, r Row) (sample, error) {
	r.alone = true
	one, err := o.measureBacklog(ctx, r, 0)
	if err != nil {
		return sample{}, fmt.Errorf("one cluster: %w", err)
	}
	r.alone = false
	two, err := o.measureBacklog(ctx, r, 0)
	if err != nil {
		return sample{}, fmt.Errorf("two clusters: %w", err)
	}
	two.divided = two.seconds / one.seconds
	return two, nil
}
