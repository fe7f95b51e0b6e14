package eventing

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// Streams is the set of streams that a source reads. The set may change, like the
// partitions of a topic. A [StreamList] is a set that never changes.
type Streams interface {
	// Watch calls update with all streams of the set, first and after every change,
	// until ctx ends. Streams with the same name are the same. After update has
	// returned, the caller makes no call to a stream that has left the set. An error
	// means that the set is currently unknown; retrying is always safe.
	Watch(ctx context.Context, update func([]Stream)) error
}

// StreamList is a set of streams that never changes.
type StreamList []Stream

// Watch implements [Streams].
func (l StreamList) Watch(ctx context.Context, update func([]Stream)) error {
	update(l)
	<-ctx.Done()
	return nil
}

// Stream is a durable sequence of messages with a consumer for each cluster and function.
// Every cluster has its own consumers, so each cluster receives every message. Sequences
// ascend; gaps between them are normal. Package streamtest tests an implementation.
type Stream interface {
	// Name returns the stream's name, for logs, metrics and checkpoints.
	Name() string

	// Open finds or creates the consumer. Messages that were delivered before and are
	// not acknowledged are redelivered soon. An error means that the stream is
	// currently unreadable; retrying is always safe.
	Open(ctx context.Context, cfg OpenConfig) (Reader, error)
}

// OpenConfig is the configuration of [Stream.Open]. Its zero value is ready to use.
type OpenConfig struct {
	// Begin returns the sequence at which a new consumer starts, for the stream of this
	// origin and epoch. If it returns an error, no consumer is created. Nil, 0, and a
	// sequence that the stream does not have mean the beginning.
	Begin func(ctx context.Context, origin, epoch string) (uint64, error)

	// Gapless makes Pull return [ErrMissed] instead of passing on a message if messages
	// that were delivered before it have not arrived.
	Gapless bool

	// Vanished is called for messages that the stream deleted before they were delivered,
	// from a sequence on. A stream in which gaps are normal need not detect them. Nil
	// does nothing.
	Vanished func(from, messages uint64)

	// LooksUp allows redelivery of acknowledged messages: the caller looks up which of them
	// are committed. A stream may then redeliver sooner.
	LooksUp bool

	// Known reports whether the message at a sequence need not be redelivered, because
	// the caller has received it and will acknowledge it. Nil if none is known.
	Known func(sequence uint64) bool

	// MaxOutstanding is how many unacknowledged messages the reader may have. 0 is the
	// stream's default.
	MaxOutstanding int
}

// Reader is an open [Stream]. After Pull has returned an error, the reader cannot be used again:
// open the stream again. Its messages may still be acknowledged.
//
// A reader may have a method Risk() error that returns which settings of the stream can lose
// events before they are delivered; the source then continues to read and is not ready. It may
// have a method Missing(context.Context, []uint64) ([]uint64, error) that returns those of some
// sequences whose messages the stream has deleted.
//
// A reader that redelivers by itself has two more methods. Redelivers() (below uint64, all bool)
// returns the sequence below which messages that it passes may be acknowledged already, or 0 once
// it has passed all of these; all reports whether they include every message that was delivered
// before and is unacknowledged. Reread(context.Context, uint64) (head uint64, ok bool, err error)
// is a Rewind that lasts as long as the process, for messages that are probably committed.
type Reader interface {
	// Origin returns the name of the stream in which messages were stored first, which is
	// the same in every cluster: for a mirror, the mirrored stream's. Checkpoints are
	// saved under it.
	Origin() string

	// Epoch returns an id of this incarnation of the origin. It changes if the stream is
	// deleted and recreated under its name.
	Epoch() string

	// Pull passes up to n messages, of up to bytes together, to receive, one after the
	// other, as they arrive; a single message may be larger. It returns nil after n
	// messages, earlier if no more are available or none arrived for some seconds, and
	// when ctx ends. It does not call receive after it has returned. [ErrTruncated]
	// means that the stream diverges from what was delivered: a reader that is opened
	// after it has its floor at or below the point of divergence, and returns the error
	// again until Rewind.
	Pull(ctx context.Context, n, bytes int, receive func(Message)) error

	// Position returns how far the stream has been read. It may be called during Pull.
	Position(ctx context.Context) (Position, error)

	// Fetch reads a message again from the stream, with the payload that m lacks.
	// [ErrGone] means that the stream has deleted it.
	Fetch(ctx context.Context, m Message) (Message, error)

	// Rewind makes the stream redeliver every message from sequence to on, whether
	// acknowledged or not. It returns the previous head, or 0 if no message from there on
	// was acknowledged, so that there was nothing to do. After an error the consumer may
	// not exist; Open then creates it at [OpenConfig.Begin]. An acknowledgement of a
	// message that was delivered before the rewind also counts after it, so the caller
	// must send none. Rewind must not be called during Pull.
	Rewind(ctx context.Context, to uint64) (head uint64, err error)
}

// Position is how far a consumer has read its stream.
type Position struct {
	// Floor is a sequence: every message below it is acknowledged. It may lag.
	Floor uint64

	// Head is a sequence: no message with it or a higher one had been delivered when the
	// position was read.
	Head uint64

	// Pending is the number of undelivered messages.
	Pending uint64

	// Unacknowledged is the number of messages that are delivered and unacknowledged.
	Unacknowledged uint64
}

// Message is one message of a stream, delivered to this process for a limited time that
// InProgress extends. Its methods are safe for concurrent use.
//
// A message of type [MessageType] may have a method Unreadable() error that returns why it is
// not an event although it looks like a CloudEvent. It belongs to no function, and every
// source turns it into a dead letter.
type Message interface {
	// Sequence returns the message's position in the stream that it was read from.
	Sequence() uint64

	// Arrived returns when the stream stored the message, by the stream's clock.
	Arrived() time.Time

	// Pending returns the number of messages behind it in the stream at the time of
	// delivery.
	Pending() uint64

	// Size returns its approximate size in bytes.
	Size() int

	// WithoutPayload returns the message with only what acknowledging needs: it has no
	// Event, and takes little memory.
	WithoutPayload() Message

	// Event returns the message as a CloudEvent. A message that is not a CloudEvent
	// becomes an event of type [MessageType] with the identity of [Origin.Identity].
	Event() event.Event

	// Ack acknowledges the message. If the acknowledgement is lost, the message is
	// redelivered.
	Ack() error

	// InProgress extends the time until redelivery, if the stream has one.
	InProgress() error

	// Nak returns the message to the stream, which redelivers it at once or when it is
	// opened again.
	Nak() error
}

// Publisher stores events in a stream.
type Publisher interface {
	// Publish stores events and returns nil only when all of them are stored, now or earlier:
	// the stream may deduplicate by [MessageID]. Its error wraps a [contract.PublishError],
	// which has the reason for each event that is not stored; one event does not keep another
	// from being stored. If the reason is a [Rejection], for example [ErrTooLarge], the event
	// can never be stored; publish the others again. It is safe for concurrent use.
	Publish(ctx context.Context, events []event.Event) error
}

// Rejection is the reason why an event can never be stored. A retry does not help.
type Rejection = contract.Rejection
