package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/feed"
	"golang.org/x/time/rate"

	"github.com/tandem-fn/tandem/test/peers/consume"
)

// repeatEvery is the interval, in events, at which an event is repeated although
// the stream has stored it: the producer did not receive the acknowledgement.
const repeatEvery = 50

// workload holds events in the order of the stream, and the expected results.
type workload struct {
	messages []*nats.Msg // including the repeated ones
	distinct int
	want     map[string]feed.Totals // by airport
}

// total returns the expected totals of all airports.
func (w workload) total() (t feed.Totals) {
	for _, o := range w.want {
		t = t.Plus(o)
	}
	return t
}

// makeWorkload returns the first n flights. After all 20,000 they are repeated from
// another source, with the same ids, so that they are different events.
func makeWorkload(n int) (workload, error) {
	w := workload{distinct: n, want: map[string]feed.Totals{}}
	for turn := 0; w.left() > 0; turn++ {
		for e, err := range feed.FlightEvents(0) {
			if err != nil {
				return workload{}, err
			}
			if w.left() == 0 {
				break
			}
			if turn > 0 {
				e.SetSource(fmt.Sprintf("%s/%d", feed.FlightSource, turn))
			}
			if err := w.add(e); err != nil {
				return workload{}, err
			}
		}
	}
	again := w.messages
	w.messages = nil
	for i, m := range again {
		w.messages = append(w.messages, m)
		if i%repeatEvery == repeatEvery-1 {
			w.messages = append(w.messages, again[i-repeatEvery/2])
		}
	}
	return w, nil
}

func (w *workload) left() int { return w.distinct - len(w.messages) }

func (w *workload) add(e event.Event) error {
	header, data, err := jetstream.Encode(e)
	if err != nil {
		return err
	}
	airport, t, err := feed.TotalsOf(e)
	if err != nil {
		return err
	}
	w.want[airport] = w.want[airport].Plus(t)
	w.messages = append(w.messages, &nats.Msg{Subject: "events." + e.Type(), Header: header, Data: data})
	return nil
}

// publish stores the messages in the stream, that many per second; 0 is as fast
// as possible. They have no Nats-Msg-Id, so the stream stores the repeated ones.
func publish(ctx context.Context, js natsjs.JetStream, messages []*nats.Msg, perSecond int) error {
	limiter := rate.NewLimiter(rate.Inf, 1)
	if perSecond > 0 {
		limiter = rate.NewLimiter(rate.Limit(perSecond), 1)
	}
	for _, m := range messages {
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		// The client owns a message once it is sent.
		if _, err := js.PublishMsgAsync(&nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}, natsjs.WithStallWait(10*time.Second)); err != nil {
			return fmt.Errorf("publish to stream %s: %w", consume.InputStream, err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
