package e2e

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/sinkwriter/contract"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// sample is the measurement of one trial of a row; figures that were not measured
// are zero.
type sample struct {
	rate    float64                  // distinct events a second
	cpu     map[string]time.Duration // per event, by kind of process, both clusters together
	seconds float64                  // duration of the events
	divided float64                  // the time of two clusters divided by that of one
	pause   time.Duration            // the longest between two commits after a cluster was killed
	workers int                      // by hand

	computed *float64 // share of a committed backlog
	probes   []Probe  // of a search

	open   *openResult   // of an open loop
	beside *besideResult // of good events beside bad ones

	kill      *killResult      // around the loss of a cluster
	instances *instancesResult // around a strike against an instance
}

// measureBacklog makes a row process a stream that was filled before, as fast as it
// can.
func (o *Options) measureBacklog(ctx context.Context, r Row, workers int) (sample, error) {
	d, events, err := o.deployFilled(ctx, r)
	if err != nil {
		return sample{}, err
	}
	defer d.close(ctx)
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

// deployHandling deploys the processes that start starts, and returns when they have handled a
// first event.
func (o *Options) deployHandling(ctx context.Context, r Row, start func(d *deployment) error) (_ *deployment, err error) {
	d, err := o.deploy(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close(ctx)
		}
	}()
	if err := d.database.Settle(ctx); err != nil {
		return nil, err
	}
	if err := start(d); err != nil {
		return nil, err
	}
	if err := d.fill(ctx, r, 0, 1); err != nil {
		return nil, err
	}
	return d, d.awaitHandled(ctx, 1, len(r.clusters()))
}

// deployFilled deploys everything except the processes that the row measures, with a
// stream that contains the row's events.
func (o *Options) deployFilled(ctx context.Context, r Row) (_ *deployment, events int, err error) {
	events = o.eventsOf(r)
	d, err := o.deploy(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			d.close(ctx)
		}
	}()
	if err := d.fill(ctx, r, 0, events); err != nil {
		return nil, 0, err
	}
	return d, events, d.database.Settle(ctx)
}

// eventsOf returns how many events a filled stream of a row has.
func (o *Options) eventsOf(r Row) int {
	switch {
	case r.byHand:
		return o.byHandEvents()
	case r.events > 0:
		return max(min(r.events, o.Events), r.least)
	}
	return max(o.Events, r.least)
}

// spent returns the processor time per event since before, by kind of process.
func (d *deployment) spent(before map[string]time.Duration, events int) map[string]time.Duration {
	spent := d.spend()
	for kind := range spent {
		spent[kind] = (spent[kind] - before[kind]) / time.Duration(events)
	}
	return spent
}

// check ends the processes, and compares the stored state with the expected one.
func (d *deployment) check(ctx context.Context, events int, byHand bool) error {
	for _, p := range slices.Backward(d.processes) {
		p.Stop(ctx)
	}
	if _, err := d.awaitOutputs(ctx, events); err != nil { // no more than these
		return err
	}
	return d.database.Check(ctx, events, orders.Total(events), byHand)
}

// measureDivide lets one cluster process a backlog, and then two.
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

// diesAt is the processed share of a backlog at which a cluster is killed.
const diesAt = 0.4

// measureDeath lets two clusters process a backlog, and kills one of them
// meanwhile.
func (o *Options) measureDeath(ctx context.Context, r Row) (sample, error) {
	d, events, err := o.deployFilled(ctx, r)
	if err != nil {
		return sample{}, err
	}
	defer d.close(ctx)
	if err := d.startRow(ctx, r, 0); err != nil {
		return sample{}, err
	}
	if err := d.await(ctx, "a part of the backlog", func(ctx context.Context) error {
		state, err := d.state(ctx, outputs)
		if err == nil && float64(state.Msgs) < diesAt*float64(events) {
			err = fmt.Errorf("%d of %d events have an output", state.Msgs, events)
		}
		return err
	}); err != nil {
		return sample{}, err
	}
	died := o.Now()
	for _, p := range d.processes {
		if p.cluster == west {
			p.Destroy()
		}
	}
	if _, err := d.awaitOutputs(ctx, events); err != nil {
		return sample{}, err
	}
	s := sample{}
	if s.pause, err = d.database.Pause(ctx, died); err != nil {
		return sample{}, err
	}
	// The relay publishes or deletes the outputs that the killed cluster has committed and
	// left.
	if err := d.awaitFor(ctx, contract.RelayTakeover+patience, "the relay", func(ctx context.Context) error {
		return d.database.Check(ctx, events, orders.Total(events), false)
	}); err != nil {
		return sample{}, err
	}
	return s, d.check(ctx, events, false)
}
