package e2e

import (
	"context"
	"fmt"
	"slices"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// lagInterval is the time between two observations.
const lagInterval = 50 * time.Millisecond

// lagMeter holds the lags that were observed in the time that counts.
//
// The lag of a cluster that has acknowledged n events is the time since event n was due. It
// counts events and does not follow the oldest one, so that one slow event is not a lag.
// Outputs count like a cluster: an outbox that grows is a lag.
type lagMeter struct {
	schedule schedule
	observed []observedLag
}

type observedLag struct {
	at  time.Time
	lag time.Duration
}

// add records how many events of the schedule were handled, and returns the lag if it
// counts.
func (m *lagMeter) add(now time.Time, handled int) time.Duration {
	s := m.schedule
	if handled >= s.events || now.Before(s.at(s.warm)) || now.After(s.at(s.events)) {
		return 0
	}
	lag := max(0, now.Sub(s.at(handled)))
	m.observed = append(m.observed, observedLag{at: now, lag: lag})
	return lag
}

func (m *lagMeter) highest() time.Duration {
	var highest time.Duration
	for _, o := range m.observed {
		highest = max(highest, o.lag)
	}
	return highest
}

// last returns the median lag of the last length.
func (m *lagMeter) last(length time.Duration) time.Duration {
	since := m.schedule.at(m.schedule.events).Add(-length)
	var lags []time.Duration
	for _, o := range m.observed {
		if o.at.After(since) {
			lags = append(lags, o.lag)
		}
	}
	if len(lags) == 0 {
		return 0
	}
	slices.Sort(lags)
	return lags[len(lags)/2]
}

// observeLag observes the lag of all clusters except without, until ctx ends. It returns errLag
// when the lag exceeds giveUp, unless giveUp is 0.
func (d *deployment) observeLag(ctx context.Context, m *lagMeter, without []string, giveUp time.Duration) error {
	for sleep(ctx, lagInterval) {
		now := d.o.Now()
		handled, _, err := d.handled(ctx, without...)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		if lag := m.add(now, handled-m.schedule.first); giveUp > 0 && lag > giveUp {
			return errLag
		}
		if err := d.deaths(); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// handled returns how many events have outputs in the stream and are acknowledged by the
// consumers of all clusters except without, and the number of these consumers.
func (d *deployment) handled(ctx context.Context, without ...string) (events, consumers int, err error) {
	state, err := d.state(ctx, outputs)
	if err != nil {
		return 0, 0, err
	}
	events = int(state.Msgs)
	infos, err := d.consumers(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, info := range infos {
		if !slices.ContainsFunc(without, func(cluster string) bool { return info.Name == "tandem-"+cluster+"-"+orders.Name }) {
			events = min(events, acknowledged(info))
		}
	}
	return events, len(infos), nil
}

func (d *deployment) consumers(ctx context.Context) ([]*natsjs.ConsumerInfo, error) {
	return jetstream.Ask(ctx, func(ctx context.Context) ([]*natsjs.ConsumerInfo, error) {
		stream, err := d.JS.Stream(ctx, inputs)
		if err != nil {
			return nil, fmt.Errorf("look at stream %s: %w", inputs, err)
		}
		var infos []*natsjs.ConsumerInfo
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			infos = append(infos, info)
		}
		if err := list.Err(); err != nil {
			return nil, fmt.Errorf("list the consumers of stream %s: %w", inputs, err)
		}
		return infos, nil
	})
}

// acknowledged returns how many messages of the stream a consumer has acknowledged.
func acknowledged(info *natsjs.ConsumerInfo) int {
	return int(info.Delivered.Stream) - info.NumAckPending
}

// awaitHandled returns when that many consumers have acknowledged that many events and
// their outputs are stored.
func (d *deployment) awaitHandled(ctx context.Context, events, consumers int) error {
	return d.await(ctx, "all events to be acknowledged", func(ctx context.Context) error {
		handled, n, err := d.handled(ctx)
		if err == nil && (n != consumers || handled != events) {
			err = fmt.Errorf("%d of %d consumers have acknowledged %d of %d", n, consumers, handled, events)
		}
		return err
	})
}
