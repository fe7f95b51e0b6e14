package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
)

// Committer commits the effects of events, each once; [sinkwriter.Writer] implements it.
// It must be safe for concurrent use.
//
// An error that wraps a [functions.RejectError] means that the event can never be
// committed (422). A [sinkwriter.Error] whose fault is the function or the order of
// events counts as a failed attempt (500). Any other error means that the event could not
// be committed now (503). The sender receives the text.
type Committer interface {
	// Commit commits the effects of one event.
	Commit(ctx context.Context, offer sinkwriter.Offer) (sinkwriter.Receipt, error)

	// CommitAll commits the effects of a batch. Each event has its own outcome; the
	// outcomes are in the order of the offers.
	CommitAll(ctx context.Context, offers []sinkwriter.Offer) []sinkwriter.Outcome
}

// DeadLetters stores dead letters; [deadletter.Store] implements it. It must be safe for
// concurrent use.
type DeadLetters interface {
	Save(ctx context.Context, letter deadletter.Letter) error
}

// Authorizer decides which senders are accepted. It is called before a request's body
// is read, and must be safe for concurrent use.
type Authorizer interface {
	// Authorize returns nil if a request with these headers is accepted. A
	// [DeniedError] is answered with 401 or 403. Any other error is answered with 503
	// and means that the decision is not possible now.
	Authorize(ctx context.Context, header http.Header) error
}

// DeniedError is the reason why a request is denied. The sender receives the text.
type DeniedError struct {
	// Forbidden reports whether the sender is authenticated but not allowed to send:
	// 403. Otherwise it is unauthenticated: 401.
	Forbidden bool

	// Err is the reason.
	Err error
}

// Error returns the reason.
func (e *DeniedError) Error() string { return e.Err.Error() }

// Unwrap returns the reason as an error.
func (e *DeniedError) Unwrap() error { return e.Err }

// Config is the configuration of a [Handler]. Every field has a default.
type Config struct {
	// MaxBytes bounds the body of a request: the data of an event in binary mode, the
	// whole event in structured mode, all events in batch mode. A larger body is
	// answered with 413.
	//
	// From 1 KiB to 64 MiB. Defaults to 1 MiB.
	MaxBytes int64

	// Deadline bounds one call of a function. After it the answer is 500.
	//
	// From 10 ms to 25 s. Defaults to 20 s.
	Deadline time.Duration

	// CommitTimeout bounds one commit, or saving one dead letter. After it the answer
	// is 503. It is at most 28 s together with Deadline, so that an answer is sent
	// before the 30 s write timeout of func's server, which starts again if the body
	// was slow.
	//
	// At least 1 ms. Defaults to 8 s.
	CommitTimeout time.Duration

	// RetryAfter is the wait that a 503 requests from the sender, in whole seconds, as
	// in the header.
	//
	// From 1 s to 1 h. Defaults to 1 s.
	RetryAfter time.Duration

	// MaxBatch bounds the events of a request. A larger batch is answered with 413.
	// Every answer states MaxBatch to senders: 1 asks them for single events.
	//
	// From 1 to 4096. Defaults to 128.
	MaxBatch int

	// MaxConcurrent bounds how many events of one batch are computed at the same time.
	// The others wait, if necessary until after the batch was answered.
	//
	// From 1 to 4096. Defaults to 256.
	MaxConcurrent int

	// MaxPending bounds how many events may still be computed after their batches were
	// answered. Above it the events of batches are answered with 503. It also bounds how
	// many outcomes are kept, for a minute, for events whose senders have not received
	// them.
	//
	// From 1 to 65536. Defaults to 1024.
	MaxPending int

	// MaxStuck is how many calls of functions may be abandoned because they ignored their
	// deadline. Above it Alive returns an error, so that the process is restarted. Until
	// then other events are computed, and an event whose call is stuck is answered with
	// 500 at once. With 16 times as many, every event is answered with 503.
	//
	// From 1 to 4096. Defaults to 64.
	MaxStuck int

	// DeadLetters saves the events of POST /dead-letters. If it is nil, the path does
	// not exist.
	DeadLetters DeadLetters

	// Authorizer decides which senders are accepted. If it is nil, all are.
	Authorizer Authorizer

	// Now is the clock. Defaults to time.Now.
	Now func() time.Time

	// Logger logs events that were rejected (warn) or broke a function (error), never
	// their data. It logs ten entries of a kind and then one per second, with the
	// number of those left out. Defaults to discarding everything.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.MaxBytes = cmp.Or(c.MaxBytes, 1<<20)
	c.Deadline = cmp.Or(c.Deadline, 20*time.Second)
	c.CommitTimeout = cmp.Or(c.CommitTimeout, 8*time.Second)
	c.RetryAfter = cmp.Or(c.RetryAfter, time.Second)
	c.MaxBatch = cmp.Or(c.MaxBatch, 128)
	c.MaxConcurrent = cmp.Or(c.MaxConcurrent, 256)
	c.MaxPending = cmp.Or(c.MaxPending, 1024)
	c.MaxStuck = cmp.Or(c.MaxStuck, 64)
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c Config) validate() error {
	var errs []error
	if c.MaxBytes < 1<<10 || c.MaxBytes > 64<<20 {
		errs = append(errs, fmt.Errorf("MaxBytes is %d: want 1 KiB to 64 MiB", c.MaxBytes))
	}
	if c.Deadline < 10*time.Millisecond || c.Deadline > 25*time.Second {
		errs = append(errs, fmt.Errorf("deadline is %s: want 10ms to 25s", c.Deadline))
	}
	if c.CommitTimeout < time.Millisecond || c.Deadline+c.CommitTimeout > 28*time.Second {
		errs = append(errs, fmt.Errorf("CommitTimeout is %s: want at least 1ms, and at most 28s together with Deadline, which is %s", c.CommitTimeout, c.Deadline))
	}
	if c.RetryAfter < time.Second || c.RetryAfter > time.Hour {
		errs = append(errs, fmt.Errorf("RetryAfter is %s: want 1s to 1h", c.RetryAfter))
	}
	if c.MaxBatch < 1 || c.MaxBatch > 4096 {
		errs = append(errs, fmt.Errorf("MaxBatch is %d: want 1 to 4096", c.MaxBatch))
	}
	if c.MaxConcurrent < 1 || c.MaxConcurrent > 4096 {
		errs = append(errs, fmt.Errorf("MaxConcurrent is %d: want 1 to 4096", c.MaxConcurrent))
	}
	if c.MaxPending < 1 || c.MaxPending > 65536 {
		errs = append(errs, fmt.Errorf("MaxPending is %d: want 1 to 65536", c.MaxPending))
	}
	if c.MaxStuck < 1 || c.MaxStuck > 4096 {
		errs = append(errs, fmt.Errorf("MaxStuck is %d: want 1 to 4096", c.MaxStuck))
	}
	return errors.Join(errs...)
}
