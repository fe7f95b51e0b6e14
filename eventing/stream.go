package eventing

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Stream is a durable sequence of messages with one place in it for each
// cluster and function. Each cluster has its own place, so each sees everything.
type Stream interface {
	// Name is the stream's name, for logs, metrics and progress.
	Name() string

	// Open finds this reader's place in the stream, or makes it at the
	// beginning. What was handed out before and not acknowledged comes again,
	// soon. An error says that the stream cannot be read now; to try again is
	// always right.
	Open(ctx context.Context) (Reader, error)
}

// Reader is an open [Stream]. After an error of Pull it is done for: open the
// stream again. Messages that it handed out may still be acknowledged.
type Reader interface {
	// Origin is the name of the stream in which messages were stored first, the
	// same in every cluster: for a copy with the sequences of another stream, as
	// a mirror is, that one's. Progress is saved under it.
	Origin() string

	// Epoch tells the origin from another one of the same name that was there
	// before it. It stays the same for as long as that is there.
	Epoch() string

	// Pull hands at most n messages to receive, one after the other, as they
	// arrive. It returns nil when there were n or when none came for some
	// seconds, and also when ctx ended; receive may be called until it returns.
	Pull(ctx context.Context, n int, receive func(Message)) error

	// Position asks how far the stream has been read. May be called while Pull
	// runs.
	Position(ctx context.Context) (Position, error)
}

// Position is how far a place in a stream has come.
type Position struct {
	// Floor is a sequence: every message below it is acknowledged. It may lag
	// behind.
	Floor uint64

	// Head is a sequence: no message with it or a higher one was handed out
	// when the position was asked for.
	Head uint64

	// Pending counts messages that were not handed out yet.
	Pending uint64

	// Unacknowledged counts messages that were handed out and not acknowledged.
	Unacknowledged uint64
}

// Message is one message of a stream, handed out to this process for a limited
// time, which InProgress begins anew. Its methods may be called concurrently.
type Message interface {
	// Sequence is the message's place in the stream that it was read from.
	Sequence() uint64

	// Arrived is when the stream stored it, by the stream's clock.
	Arrived() time.Time

	// Event gives the message as a CloudEvent. What is none becomes one of type
	// [MessageType] with the identity of [Origin.Identity].
	Event() event.Event

	// Ack says that the message is done and need not come again. The stream may
	// not hear of it, and then it does come again.
	Ack() error

	// InProgress says that somebody is still at work on it.
	InProgress() error

	// Release gives the message back, to be handed out again at once.
	Release() error
}

// ProgressSaver stores how far a cluster has come in a stream.
type ProgressSaver interface {
	// Save stores that function has every message of stream below floor behind
	// it, and none from head on before it. Epoch is that of [Reader.Epoch].
	// Called about once a second.
	Save(ctx context.Context, function, stream, epoch string, floor, head uint64) error
}

// Publisher stores events in a stream.
type Publisher interface {
	// Publish stores events and returns nil only when all of them are stored,
	// or were before: the stream drops repeats by [MessageID]. After an error
	// any number of them may be stored, and to publish all again is right.
	// [ErrTooLarge] says that one of them never fits. May be called
	// concurrently.
	Publish(ctx context.Context, events []event.Event) error
}
