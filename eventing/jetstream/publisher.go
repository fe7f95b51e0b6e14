package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
)

// publishAhead is how many events one call of Publish sends before it waits for
// the answer to the first. More fill the server's queue for the stream, and it
// then refuses some.
const publishAhead = 512

// Publisher stores events in one stream. It may be used concurrently.
type Publisher struct {
	conn  *Conn
	cfg   StreamConfig
	found atomic.Bool // the stream, once
}

var _ eventing.Publisher = (*Publisher)(nil)

// NewPublisher gives a Publisher to the stream, which is made when it is missing.
// The error says what is wrong with cfg.
func NewPublisher(conn *Conn, cfg StreamConfig) (*Publisher, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up publisher: %w", err)
	}
	return &Publisher{conn: conn, cfg: cfg}, nil
}

// Publish stores events, as [eventing.Publisher] says. It sends many before it
// waits for an answer, and waits no longer than ctx lets it; without a connection
// it does not wait at all ([ErrNotConnected]). Events that are not answered within
// [RequestTimeout] are sent again, as by [Ask]. The stream recognises a repeated
// event within its duplicate window.
func (p *Publisher) Publish(ctx context.Context, events []event.Event) error {
	_, err := repeat(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, p.publishOnce(ctx, events) })
	return err
}

func (p *Publisher) publishOnce(ctx context.Context, events []event.Event) error {
	if !p.found.Load() {
		if _, err := p.find(ctx); err != nil {
			return fmt.Errorf("publish to stream %s: %w", p.cfg.Name, err)
		}
		p.found.Store(true)
	}
	err := p.publish(ctx, events)
	if errors.Is(err, natsjs.ErrNoStreamResponse) {
		// Nobody takes the subject: the stream has gone, or it has no leader.
		info, err := p.find(ctx)
		if err == nil {
			err = canStore(info)
		}
		if err != nil {
			return fmt.Errorf("publish to stream %s: %w", p.cfg.Name, err)
		}
		if err := p.publish(ctx, events); err != nil {
			return fmt.Errorf("publish to stream %s: %w", p.cfg.Name, err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("publish to stream %s: %w", p.cfg.Name, err)
	}
	return nil
}

func (p *Publisher) publish(ctx context.Context, events []event.Event) error {
	if err := p.conn.Ready(); err != nil {
		return err
	}
	var waiting []natsjs.PubAckFuture
	for _, e := range events {
		if len(waiting) == publishAhead {
			if err := p.await(ctx, waiting[0]); err != nil {
				return err
			}
			waiting = waiting[1:]
		}
		header, data, err := Encode(e)
		if err != nil {
			return err
		}
		future, err := p.conn.in(p.cfg.Domain).PublishMsgAsync(&nats.Msg{
			Subject: Subject(p.cfg.prefix(), e.Type()),
			Header:  header,
			Data:    data,
		}, natsjs.WithMsgID(eventing.MessageID(e.Source(), e.ID())))
		if err != nil {
			return tooLarge(err)
		}
		waiting = append(waiting, future)
	}
	for _, future := range waiting {
		if err := p.await(ctx, future); err != nil {
			return err
		}
	}
	return nil
}

func (p *Publisher) await(ctx context.Context, future natsjs.PubAckFuture) error {
	select {
	case ack := <-future.Ok():
		if ack.Stream != p.cfg.Name {
			return fmt.Errorf("stored in stream %s instead, which takes %s", ack.Stream, future.Msg().Subject)
		}
		return nil
	case err := <-future.Err():
		return tooLarge(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tooLarge makes [eventing.ErrTooLarge] of what the client and the server say
// when a message never fits.
func tooLarge(err error) error {
	var api *natsjs.APIError
	if errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.ErrorCode == natsjs.JSErrCodeStreamMessageExceedsMaximum {
		return fmt.Errorf("%w: %w", eventing.ErrTooLarge, err)
	}
	return err
}
