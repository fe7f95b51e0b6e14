package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
)

// publishAhead is how many events one call of Publish sends before it waits until half of
// them are answered. More fill the server's queue for the stream, and it
// then refuses some.
const publishAhead = 512

// While nobody takes the subject of an event, it is sent again so often before the stream
// is looked at.
const (
	noResponseTries = 2
	noResponseWait  = 250 * time.Millisecond
)

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
	if ctx.Err() != nil {
		return fmt.Errorf("publish to stream %s: %w", p.cfg.Name, context.Cause(ctx))
	}
	if !p.found.Load() {
		if _, err := p.find(ctx); err != nil {
			return fmt.Errorf("publish to stream %s: %w", p.cfg.Name, err)
		}
		p.found.Store(true)
	}
	err := p.publish(ctx, events)
	for try := 0; try < noResponseTries && errors.Is(err, natsjs.ErrNoStreamResponse); try++ {
		select {
		case <-time.After(noResponseWait): // perhaps the leader changes
			err = p.publish(ctx, events)
		case <-ctx.Done():
			return fmt.Errorf("publish to stream %s: %w", p.cfg.Name, context.Cause(ctx))
		}
	}
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
	lost := p.conn.loss()
	if err := p.conn.Ready(); err != nil {
		return err
	}
	subject := func(i int) string { return Subject(p.cfg.prefix(), events[i].Type()) }
	storing, err := p.conn.storings.begin(p.cfg.Name, subject)
	if err != nil {
		return err
	}
	defer storing.end()
	for i, e := range events {
		if i >= publishAhead && i%(publishAhead/2) == 0 {
			if err := storing.wait(ctx, lost, publishAhead/2); err != nil {
				return tooLarge(err)
			}
		}
		header, data, err := Encode(e)
		if err != nil {
			return err
		}
		header[nats.MsgIdHdr] = []string{eventing.MessageID(e.Source(), e.ID())}
		if err := storing.send(&nats.Msg{Subject: subject(i), Header: header, Data: data}); err != nil {
			return tooLarge(err)
		}
	}
	return tooLarge(storing.wait(ctx, lost, 0))
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
