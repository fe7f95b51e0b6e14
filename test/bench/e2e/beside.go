package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

const (
	// besideGood and besideBad are how many good and bad events a second are published, if
	// --e2e-rate is not less than besideGood; otherwise both are fewer.
	besideGood = 500
	besideBad  = 50

	firstSpoilt = 50_000_000 // the number of the first bad event
)

// spoiltKinds are all kinds of bad events, each with a description.
var spoiltKinds = []struct{ kind, about string }{
	{orders.Unavailable, "needs a table that is missing (503)"},
	{orders.Failing, "makes the function fail (500)"},
	{orders.Rejected, "is refused (422)"},
	{orders.Panicking, "makes the function panic"},
	{orders.Hanging, "never stops computing"},
	{orders.Exiting, "ends the function's process"},
	{orders.SlowEvents, "is computed for 1 s"},
	{orders.LargeOutput, "has an output that the stream does not accept"},
	{orders.Unreadable, "is not a valid CloudEvent"},
	{orders.BadSQL, "has a statement that fails with XX000"},
	{orders.SlowSQL, "has a statement that takes a minute"},
}

// Rows with many bad events.
const (
	RowBesideFlood = "beside-flood"
	RowBesideHalf  = "beside-half"
)

// rowBeside returns the name of the row of a kind.
func rowBeside(kind string) string { return "beside-" + kind }

// besideRows are the rows about good events beside bad ones.
func besideRows() []Row {
	row := func(name, kind string, good, bad int, about string) Row {
		return Row{
			Name: name, measure: measureBeside, spoilt: kind, good: good, bad: bad, function: []string{"TANDEM_BENCH_SPOILT=" + kind},
			About: fmt.Sprintf("good events at %d/s beside %d/s of another type, each of which %s", good, bad, about),
		}
	}
	var rows []Row
	for _, k := range spoiltKinds {
		rows = append(rows, row(rowBeside(k.kind), k.kind, besideGood, besideBad, k.about))
	}
	return append(rows,
		row(RowBesideFlood, orders.Unavailable, besideGood/5, besideGood, "needs a table that is missing (503)"),
		row(RowBesideHalf, orders.Failing, besideGood/2, besideGood/2, "makes the function fail (500)"))
}

// besideResult is the measurement of good events beside bad ones.
type besideResult struct {
	Latency

	at     float64 // good events a second
	inTime float64 // share of them whose output was stored before publishing ended
	lost   int     // without an output at the end
}

// String formats the result for the progress.
func (r *besideResult) String() string {
	return fmt.Sprintf("at %.0f/s %.1f %% in time, p50 %.1f ms, p99 %.1f, p99.9 %.1f, longest %.1f", r.at, 100*r.inTime, r.P50, r.P99, r.P999, r.Max)
}

// measureBeside publishes good events and, beside them, bad ones, and measures the good.
func (o *Options) measureBeside(ctx context.Context, r Row) (_ *besideResult, err error) {
	d, err := o.deployHandling(ctx, r, func(d *deployment) error { return d.startRow(ctx, r, 0) })
	if err != nil {
		return nil, err
	}
	defer d.close(ctx)
	scale := min(1, float64(o.Rate)/besideGood)
	rate, badRate := float64(r.good)*scale, float64(r.bad)*scale
	warm := max(int(rate*o.warmUp(o.Beside).Seconds()), 1)
	s := schedule{begin: o.Now(), rate: rate, first: 1, events: warm + max(int(rate*o.Beside.Seconds()), 1), warm: warm}
	bad := schedule{begin: s.begin, rate: badRate, first: firstSpoilt, events: int(float64(s.events) * badRate / rate)}
	spoilt := r
	spoilt.publishSpoilt = true
	spoiling := make(chan error, 1)
	go func() {
		_, err := d.publish(ctx, spoilt, bad)
		spoiling <- err
	}()
	published, err := d.publish(ctx, r, s)
	end := o.Now()
	if err := errors.Join(err, <-spoiling); err != nil {
		return nil, err
	}
	stored, err := d.storedSoFar(ctx, s)
	if err != nil {
		return nil, err
	}
	result := &besideResult{at: rate}
	for i, at := range stored {
		switch {
		case at.IsZero():
			result.lost++
			stored[i] = o.Now().Round(0)
		case i >= warm && at.Before(end.Round(0)):
			result.inTime++
		}
	}
	result.inTime /= float64(s.events - warm)
	if result.Latency, err = latencyOf(published[warm:], stored[warm:], func(int) bool { return true }); err != nil {
		return nil, err
	}
	if result.lost > 0 {
		return nil, fmt.Errorf("%d of %d good events have no output %s after the last one (%s):\n%s", result.lost, s.events, patience, result, d.said())
	}
	return result, nil
}

// storedSoFar reads from the outputs when the stream stored the output of each event of a
// schedule, and ignores other outputs. It waits until no more outputs were stored for some
// time; an event without one has the zero time.
func (d *deployment) storedSoFar(ctx context.Context, s schedule) ([]time.Time, error) {
	consumer, err := jetstream.Ask(ctx, func(ctx context.Context) (natsjs.Consumer, error) {
		return d.JS.OrderedConsumer(ctx, outputs, natsjs.OrderedConsumerConfig{})
	})
	if err != nil {
		return nil, fmt.Errorf("read the outputs: %w", err)
	}
	times := make([]time.Time, s.events)
	left, last := s.events, d.o.Now()
	for left > 0 && d.o.Now().Sub(last) < patience {
		batch, err := consumer.Fetch(1000, natsjs.FetchMaxWait(time.Second))
		if err != nil {
			return nil, fmt.Errorf("read the outputs: %w", err)
		}
		for m := range batch.Messages() {
			n, err := orders.Number(m.Data())
			if err != nil {
				return nil, err
			}
			i := n - s.first
			if i < 0 || i >= s.events {
				continue
			}
			if !times[i].IsZero() {
				return nil, fmt.Errorf("the outcome is wrong: order %d has two outputs", n)
			}
			meta, err := m.Metadata()
			if err != nil {
				return nil, fmt.Errorf("read the outputs: %w", err)
			}
			times[i] = meta.Timestamp
			left, last = left-1, d.o.Now()
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	return slices.Clip(times), nil
}
