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

	// Open finds this reader's place in the stream, or makes it. What was handed
	// out before and not acknowledged comes again, soon. An error says that the
	// stream cannot be read now; to try again is always right.
	Open(ctx context.Context, cfg OpenConfig) (Reader, error)
}

// OpenConfig is what a [Stream] is opened with. The zero OpenConfig is ready to
// use.
type OpenConfig struct {
	// Begin gives the sequence from which on a place is made if there is none,
	// for the stream of this origin and epoch. An error keeps it from being made.
	// Nil, 0, and a sequence that the stream has not got to stand for its
	// beginning.
	Begin func(ctx context.Context, origin, epoch string) (uint64, error)

	// Rate is how many messages a second the reader is meant for. So many for as
	// long as the stream waits for an acknowledgement may be handed out and not
	// acknowledged; what a stream takes at least does, if that is more. 0 or
	// more.
	Rate int

	// Gapless has Pull end with [ErrMissed] instead of handing over a message if
	// others were handed out before it that have not arrived.
	Gapless bool

	// MaxOutstanding bounds that number. 0 for no bound.
	MaxOutstanding int
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

	// Pull hands at most n messages, of at most bytes together, to receive, one
	// after the other, as they arrive; one alone may be larger. It returns nil
	// when there were as many or when none came for some seconds, and also when
	// ctx ended; receive may be called until it returns.
	Pull(ctx context.Context, n, bytes int, receive func(Message)) error

	// Position asks how far the stream has been read. May be called while Pull
	// runs.
	Position(ctx context.Context) (Position, error)

	// Rewind has the stream hand out again everything from sequence to on, also
	// what was acknowledged. It gives the head as it was; 0 if nothing from there
	// on was acknowledged, so that there was nothing to do. After an error the
	// place may be gone: what Open makes in its stead begins where
	// [OpenConfig.Begin] says. Acknowledgements of messages that were handed out
	// before count afterwards too, so none may be given any more. May not be called
	// while Pull runs.
	Rewind(ctx context.Context, to uint64) (head uint64, err error)
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

	// Pending is how many messages waited in the stream behind it, when it was handed
	// out.
	Pending() uint64

	// Size is about how many bytes it takes.
	Size() int

	// Event gives the message as a CloudEvent. What is none becomes one of type
	// [MessageType] with the identity of [Origin.Identity].
	Event() event.Event

	// Ack says that the message is done and need not come again. The stream may
	// not hear of it, and then it does come again.
	Ack() error

	// InProgress says that somebody is still at work on it.
	InProgress() error

	// Release gives the message back, to be handed out again after that long; 0
	// is at once.
	Release(after time.Duration) error
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
