package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// The streams.
const (
	inputs  = "EVENTS"
	outputs = "OUTPUTS"
)

// message returns event n as a message of the stream.
func (r Row) message(n int) (*nats.Msg, error) {
	data, err := json.Marshal(orders.New(n))
	if err != nil {
		return nil, err
	}
	id := orders.ID(n)
	header := nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-source": {orders.Source}, "ce-type": {orders.Placed},
		"content-type":     {"application/json"},
		natsjs.MsgIDHeader: {eventing.MessageID(orders.Source, id)},
	}
	if r.publishSpoilt {
		header.Set("ce-type", orders.Spoilt)
		if r.spoilt == orders.Unreadable {
			header.Del("ce-source")
		}
	}
	if r.subject != nil {
		header["ce-subject"] = []string{r.subject(n)}
	}
	return &nats.Msg{Subject: "events." + orders.Placed, Header: header, Data: data}, nil
}

// fill stores events in the stream, from first on.
func (d *deployment) fill(ctx context.Context, r Row, first, events int) error {
	for n := first; n < first+events; n++ {
		m, err := r.message(n)
		if err != nil {
			return err
		}
		if _, err := d.JS.PublishMsgAsync(m, natsjs.WithStallWait(patience)); err != nil {
			return fmt.Errorf("fill the stream: %w", err)
		}
	}
	select {
	case <-d.JS.PublishAsyncComplete():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	state, err := d.state(ctx, inputs)
	if err == nil && state.Msgs != uint64(first+events) {
		err = fmt.Errorf("fill the stream: it has %d events, want %d", state.Msgs, first+events)
	}
	return err
}

func (d *deployment) state(ctx context.Context, stream string) (natsjs.StreamState, error) {
	s, err := jetstream.Ask(ctx, func(ctx context.Context) (natsjs.Stream, error) { return d.JS.Stream(ctx, stream) })
	if err != nil {
		return natsjs.StreamState{}, fmt.Errorf("look at stream %s: %w", stream, err)
	}
	return s.CachedInfo().State, nil
}

// awaitOutputs returns when the stream has that many outputs. It fails when no
// more are stored.
func (d *deployment) awaitOutputs(ctx context.Context, events int) (natsjs.StreamState, error) {
	var last uint64
	since := d.o.Now()
	for {
		state, err := d.state(ctx, outputs)
		switch {
		case err != nil && ctx.Err() == nil:
			return state, err
		case state.Msgs == uint64(events):
			return state, nil
		case state.Msgs > uint64(events):
			return state, fmt.Errorf("the outcome is wrong: the stream has %d outputs, want %d", state.Msgs, events)
		case state.Msgs > last:
			last, since = state.Msgs, d.o.Now()
		case d.o.Now().Sub(since) > patience:
			return state, fmt.Errorf("the stream has %d outputs of %d, and no more came for %s:\n%s", state.Msgs, events, patience, d.said())
		}
		if err := d.deaths(); err != nil {
			return state, err
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return state, fmt.Errorf("the stream has %d outputs of %d: %w", max(last, state.Msgs), events, context.Cause(ctx))
		}
	}
}

// publish publishes the events of a schedule in an open loop: each when it is due,
// whatever the outcome of earlier ones. It returns when each was published.
func (d *deployment) publish(ctx context.Context, r Row, s schedule) ([]time.Time, error) {
	published := make([]time.Time, 0, s.events)
	for len(published) < s.events {
		due := min(int(d.o.Now().Sub(s.begin).Seconds()*s.rate), s.events)
		for len(published) < due {
			m, err := r.message(s.first + len(published))
			if err != nil {
				return nil, err
			}
			published = append(published, d.o.Now())
			if err := d.NC.PublishMsg(m); err != nil {
				return nil, fmt.Errorf("publish an event: %w", err)
			}
		}
		if !sleep(ctx, time.Millisecond) {
			return nil, context.Cause(ctx)
		}
	}
	if err := d.NC.FlushTimeout(patience); err != nil {
		return nil, fmt.Errorf("publish events: %w", err)
	}
	return published, nil
}

// stored reads from the outputs when the stream stored each, starting with order
// first.
func (d *deployment) stored(ctx context.Context, first, events int) ([]time.Time, error) {
	consumer, err := jetstream.Ask(ctx, func(ctx context.Context) (natsjs.Consumer, error) {
		return d.JS.OrderedConsumer(ctx, outputs, natsjs.OrderedConsumerConfig{})
	})
	if err != nil {
		return nil, fmt.Errorf("read the outputs: %w", err)
	}
	times := make([]time.Time, events)
	for read := 0; read < first+events; {
		batch, err := consumer.Fetch(1000, natsjs.FetchMaxWait(patience))
		if err != nil {
			return nil, fmt.Errorf("read the outputs: %w", err)
		}
		before := read
		for m := range batch.Messages() {
			read++
			n, err := orders.Number(m.Data())
			if err != nil {
				return nil, err
			}
			meta, err := m.Metadata()
			if err != nil {
				return nil, fmt.Errorf("read the outputs: %w", err)
			}
			if n >= first && n < first+events {
				if !times[n-first].IsZero() {
					return nil, fmt.Errorf("the outcome is wrong: order %d has two outputs", n)
				}
				times[n-first] = meta.Timestamp
			}
			if read == first+events {
				break
			}
		}
		if read == before {
			return nil, errors.Join(errors.New("read the outputs: no more came"), batch.Error())
		}
	}
	for i, at := range times {
		if at.IsZero() {
			return nil, fmt.Errorf("the outcome is wrong: order %d has no output", first+i)
		}
	}
	return times, nil
}
