package eventing

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// Streams is what a source reads: a set of streams that come and go, as the partitions of
// a topic do. A [StreamList] is a set that never changes.
type Streams interface {
	// Watch calls update with all streams of the set, at first and after every change,
	// until ctx ends. Streams with the same name are the same. When update has returned,
	// a stream that has left the set is told nothing any more. An error means that the
	// set is not known now; a retry is always right.
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
// Every cluster has consumers of its own, so each cluster receives every message. Sequences
// ascend; gaps between them are normal.
// Package streamtest tests an implementation.
type Stream interface {
	// Name returns the stream's name, for logs, metrics and checkpoints.
	Name() string

	// Open finds or creates the consumer. Messages that were delivered before and not
	// acknowledged are redelivered soon. An error means that the stream cannot be read
	// now; a retry is always right.
	Open(ctx context.Context, cfg OpenConfig) (Reader, error)
}

// OpenConfig is the configuration of [Stream.Open]. Its zero value is ready to use.
type OpenConfig struct {
	// Begin returns the sequence at which a consumer starts that has to be created, for
	// the stream of this origin and epoch. If it returns an error, none is created. Nil,
	// 0, and a sequence that the stream does not have mean the beginning.
	Begin func(ctx context.Context, origin, epoch string) (uint64, error)

	// Gapless ends Pull with [ErrMissed] instead of passing on a message if messages
	// that were delivered before it have not arrived.
	Gapless bool

	// Vanished is called for messages, from a sequence on, that the stream deleted before
	// they were delivered. A stream in which gaps are normal need not notice. Nil does
	// nothing.
	Vanished func(from, messages uint64)

	// LooksUp allows acknowledged messages among those that are redelivered: the caller looks
	// up which of them are done. A stream may redeliver sooner then.
	LooksUp bool

	// Known reports whether the message at a sequence need not be redelivered: it was
	// received, and its acknowledgement is seen to. Nil if none is known.
	Known func(sequence uint64) bool

	// MaxOutstanding is how many unacknowledged messages the reader may have. 0 is the
	// stream's default.
	MaxOutstanding int
}

// Reader is an open [Stream]. After an error of Pull it cannot be used any more: open the
// stream again. Its messages may still be acknowledged. A reader may have a method Risk() error
// that returns which settings of the stream can lose events before they are delivered; the
// source reads on and is not ready. It may have a method Missing(context.Context, []uint64)
// ([]uint64, error) that returns those of some sequences whose messages the stream has deleted.
//
// A reader that redelivers by itself has two more methods. Redelivers() (below uint64, all bool)
// returns the sequence below which messages that it passes may be acknowledged already, 0 when
// it has passed these, and whether they are all that were delivered before and not
// acknowledged. Reread(context.Context, uint64) (head uint64, ok bool, err error) is a Rewind that
// lasts as long as the process, for messages that are probably done.
type Reader interface {
	// Origin returns the name of the stream in which messages were stored first, the same
	// in every cluster: for a mirror, the mirrored stream's. Checkpoints are saved under
	// it.
	Origin() string

	// Epoch returns an id of this incarnation of the origin. It changes if the stream is
	// deleted and created again under its name.
	Epoch() string

	// Pull passes at most n messages, of at most bytes together, to receive, one after
	// the other, as they arrive; a single one may be larger. It returns nil after n
	// messages, or fewer if there are no more now, when none came for some seconds, and
	// when ctx ended. It calls receive only until it returns. [ErrTruncated] means that
	// the stream diverges from what was delivered: a reader that is opened then has its
	// floor where it diverges, or below, and returns the error again until Rewind.
	Pull(ctx context.Context, n, bytes int, receive func(Message)) error

	// Position returns how far the stream has been read. It may be called during Pull.
	Position(ctx context.Context) (Position, error)

	// Fetch returns a message with its payload again, from the stream: the one that m is
	// without. [ErrGone] means that the stream does not have it any more.
	Fetch(ctx context.Context, m Message) (Message, error)

	// Rewind has the stream redeliver every message from sequence to on, acknowledged or
	// not. It returns the head before; 0 if no message from there on was acknowledged, so
	// that nothing had to be done. After an error the consumer may be gone: Open then
	// creates one at [OpenConfig.Begin]. An acknowledgement of a message that was
	// delivered before the rewind counts after it too, so none may be sent any more. Not
	// to be called during Pull.
	Rewind(ctx context.Context, to uint64) (head uint64, err error)
}

// Position is how far a consumer has read its stream.
type Position struct {
	// Floor is a sequence: every message below it is acknowledged. It may lag.
	Floor uint64

	// Head is a sequence: no message with it or a higher one had been delivered when the
	// position was read.
	Head uint64

	// Pending is the number of messages that were not delivered yet.
	Pending uint64

	// Unacknowledged is the number of messages that were delivered and not acknowledged.
	Unacknowledged uint64
}

// Message is one message of a stream, delivered to this process for a limited time that
// InProgress extends. Its methods are safe for concurrent use. A message of type [MessageType]
// may have a method Unreadable() error that returns why it is no event although it looks like
// a CloudEvent; it belongs to no function, and every source makes it a dead letter.
type Message interface {
	// Sequence returns the message's position in the stream that it was read from.
	Sequence() uint64

	// Arrived returns when the stream stored it, by the stream's clock.
	Arrived() time.Time

	// Pending returns the number of messages behind it in the stream, when it was
	// delivered.
	Pending() uint64

	// Size returns its approximate size in bytes.
	Size() int

	// WithoutPayload returns the message as far as it takes to acknowledge it: it has no
	// Event, and takes little memory.
	WithoutPayload() Message

	// Event returns the message as a CloudEvent. A message that is no CloudEvent becomes
	// an event of type [MessageType] with the identity of [Origin.Identity].
	Event() event.Event

	// Ack acknowledges the message. If the acknowledgement is lost, the message is
	// redelivered.
	Ack() error

	// InProgress extends the time until the message is redelivered, if it has one.
	InProgress() error

	// Nak returns the message to the stream, which redelivers it: at once, or when it is
	// opened again.
	Nak() error
}

// Publisher stores events in a stream.
type Publisher interface {
	// Publish stores events and returns nil only when all of them are stored, now or
	// before: the stream may drop duplicates by [MessageID]. Its error wraps a
	// [contract.PublishError], which has the reason of each event that is not stored; no event
	// keeps another from being stored. If the reason is a [Rejection], as with
	// [ErrTooLarge], the event never will be; publishing the others again is right. It is
	// safe for concurrent use.
	Publish(ctx context.Context, events []event.Event) error
}

// Rejection is why an event is never stored. A retry does not help.
type Rejection = contract.Rejection
