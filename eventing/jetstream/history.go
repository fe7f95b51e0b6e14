package jetstream

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// historyStall is the longest wait for the next message that must exist.
const historyStall = 30 * time.Second

// Past is a message of a stream in [Conn.History].
type Past struct {
	// Sequence is its position in the stream, Arrived the time at which the stream
	// stored it.
	Sequence uint64
	Arrived  time.Time

	// Event is the event that sources deliver. For a message that is not a CloudEvent,
	// it has the identity that the message has in every cluster.
	Event event.Event
}

// Extent describes the range of messages in a stream.
type Extent struct {
	// Origin is the name under which checkpoints are saved, Epoch the incarnation of
	// the origin, like those of [eventing.Reader].
	Origin, Epoch string

	// First and Last are the sequences of the oldest and the newest message;
	// Last is First-1 if there is none.
	First, Last uint64
}

// Extent returns the current range of messages in a stream.
func (c *Conn) Extent(ctx context.Context, cfg StreamConfig) (Extent, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return Extent{}, fmt.Errorf("look into stream: %w", err)
	}
	return repeat(ctx, func(ctx context.Context) (Extent, error) { return c.extent(ctx, cfg) })
}

func (c *Conn) extent(ctx context.Context, cfg StreamConfig) (Extent, error) {
	stream, err := c.findStream(ctx, cfg)
	if err != nil {
		return Extent{}, err
	}
	origin, err := (&Stream{conn: c, cfg: cfg}).findOrigin(ctx, stream)
	if err != nil {
		return Extent{}, err
	}
	state := stream.CachedInfo().State
	return Extent{Origin: origin.name, Epoch: origin.epoch, First: state.FirstSeq, Last: state.LastSeq}, nil
}

// History passes the messages from sequence from to sequence until, both included, to
// receive, in their order. It leaves no durable consumer in the stream. It returns
// receive's error, or an error when a message that must exist does not arrive for 30 s.
func (c *Conn) History(ctx context.Context, cfg StreamConfig, from, until uint64, receive func(Past) error) error {
	extent, err := c.Extent(ctx, cfg)
	if err != nil {
		return err
	}
	from, until = max(from, extent.First), min(until, extent.Last)
	if from > until {
		return nil
	}
	messages, err := c.readFrom(ctx, cfg, natsjs.OrderedConsumerConfig{
		DeliverPolicy: natsjs.DeliverByStartSequencePolicy, OptStartSeq: from,
	})
	if err != nil {
		return fmt.Errorf("read stream %s: %w", cfg, err)
	}
	if messages == nil { // the newest messages were deleted
		return nil
	}
	defer messages.Stop()
	for {
		past, pending, err := next(ctx, messages, extent.Origin)
		if err != nil {
			return fmt.Errorf("read stream %s: %w", cfg, err)
		}
		if past.Sequence > until {
			return nil
		}
		if err := receive(past); err != nil {
			return err
		}
		if past.Sequence == until || pending == 0 {
			return nil
		}
	}
}

// readFrom starts to read a stream; nil if it has no message from there on.
func (c *Conn) readFrom(ctx context.Context, cfg StreamConfig, from natsjs.OrderedConsumerConfig) (natsjs.MessagesContext, error) {
	consumer, err := Ask(ctx, func(ctx context.Context) (natsjs.Consumer, error) {
		return c.in(cfg.Domain).OrderedConsumer(ctx, cfg.Name, from)
	})
	if err != nil {
		return nil, err
	}
	info, err := Ask(ctx, consumer.Info)
	if err != nil {
		return nil, err
	}
	if info.NumPending == 0 {
		return nil, nil //nolint:nilnil // that there is nothing to read is an answer
	}
	// The heartbeats detect a request for messages that is never answered.
	return consumer.Messages(natsjs.PullExpiry(pullWait), natsjs.PullHeartbeat(pullWait/2))
}

func next(ctx context.Context, messages natsjs.MessagesContext, origin string) (past Past, pending uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, historyStall)
	defer cancel()
	m, err := messages.Next(natsjs.NextContext(ctx))
	if err != nil {
		return Past{}, 0, because(ctx, err)
	}
	meta, err := m.Metadata()
	if err != nil {
		return Past{}, 0, fmt.Errorf("read metadata of message on %s: %w", m.Subject(), err)
	}
	e := (&message{
		msg:      &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()},
		sequence: meta.Sequence.Stream,
		arrived:  meta.Timestamp,
		origin:   origin,
	}).Event()
	return Past{Sequence: meta.Sequence.Stream, Arrived: meta.Timestamp, Event: e}, meta.NumPending, nil
}

// SequenceAt returns the sequence of the first message that the stream stored at a time
// or later, by its clock; the one after the last if there is none.
func (c *Conn) SequenceAt(ctx context.Context, cfg StreamConfig, at time.Time) (uint64, error) {
	extent, err := c.Extent(ctx, cfg)
	if err != nil {
		return 0, err
	}
	messages, err := c.readFrom(ctx, cfg, natsjs.OrderedConsumerConfig{
		DeliverPolicy: natsjs.DeliverByStartTimePolicy, OptStartTime: &at,
	})
	if err != nil {
		return 0, fmt.Errorf("look for %s in stream %s: %w", at.Format(time.RFC3339), cfg, err)
	}
	if messages == nil {
		return extent.Last + 1, nil
	}
	defer messages.Stop()
	past, _, err := next(ctx, messages, extent.Origin)
	if err != nil {
		return 0, fmt.Errorf("look for %s in stream %s: %w", at.Format(time.RFC3339), cfg, err)
	}
	return past.Sequence, nil
}
