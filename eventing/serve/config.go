package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// Receipt is what became of a committed event.
type Receipt struct {
	// Won is false if the event had been committed before.
	Won bool

	// Key is the event's key in the ledger, as text.
	Key string
}

// Committer commits the effects of events, each once. It is called concurrently.
//
// A [functions.RejectError] among its errors says that the event can never be
// committed, a [CountedError] that the try counts against the event, any other
// error that it could not be committed now. The text goes to the sender.
type Committer interface {
	// Commit commits the effects of one event.
	Commit(ctx context.Context, f functions.Function, e event.Event, fx functions.Effects) (Receipt, error)

	// CommitAll commits those of a batch. Each event has its own fate; the
	// outcomes are as many as the offers, and in their order.
	CommitAll(ctx context.Context, offers []Offer) []Outcome
}

// Offer is an event with the effects that its function computed.
type Offer struct {
	Function functions.Function
	Event    event.Event
	Effects  functions.Effects
}

// Outcome is what became of an [Offer]: a receipt, or an error as
// [Committer.Commit] gives it.
type Outcome struct {
	Receipt Receipt
	Err     error
}

// CountedError is why an event could not be committed that is to be held against
// it, though trying again may help: its function asked for something impossible,
// or another event has to come first. It is answered with 500.
type CountedError struct {
	Err error
}

// Error gives the reason.
func (e *CountedError) Error() string { return e.Err.Error() }

// Unwrap gives the reason as an error.
func (e *CountedError) Unwrap() error { return e.Err }

// DeadLetter is an event that was refused, or failed too often.
type DeadLetter struct {
	// Function names the function that it was meant for, which need not be one
	// that is served here. Empty if nobody said.
	Function string

	// Event is the event without the extensions that its dead-lettering added.
	Event event.Event

	// Code is the status that the last try was answered with; 0 if unknown.
	Code int

	// Reason is the body of that answer, without white space around it; empty if
	// unknown.
	Reason string

	// Attempts is how often the event was offered to the function; 0 if unknown.
	Attempts int
}

// DeadLetters keeps dead letters. It is called concurrently.
type DeadLetters interface {
	Save(ctx context.Context, letter DeadLetter) error
}

// Gate says who may send. It is called concurrently, before a request's body is
// read.
type Gate interface {
	// Admit returns nil if a request with these headers may be worked on. A
	// [DeniedError] is answered with 401 or 403, any other error with 503: nobody
	// can say for now.
	Admit(ctx context.Context, header http.Header) error
}

// DeniedError is why a request may not be worked on. The text goes to the sender.
type DeniedError struct {
	// Known says that it is known who sent it: 403. Otherwise 401.
	Known bool

	// Err is the reason.
	Err error
}

// Error gives the reason.
func (e *DeniedError) Error() string { return e.Err.Error() }

// Unwrap gives the reason as an error.
func (e *DeniedError) Unwrap() error { return e.Err }

// Config sets up a [Handler]. The zero Config is ready to use; a field left at
// zero takes the default named beside it.
type Config struct {
	// MaxBytes bounds the body of a request: the data of an event in binary
	// mode, the whole event in structured mode, all of them in batch mode. A
	// larger one is answered with 413.
	//
	// From 1 KiB to 64 MiB. Defaults to 1 MiB.
	MaxBytes int64

	// Deadline bounds one call of a function. Past it the answer is 500.
	//
	// From 10 ms to 25 s. Defaults to 20 s.
	Deadline time.Duration

	// CommitTimeout bounds one commit, or keeping one dead letter. Past it the
	// answer is 503. Together with Deadline at most 28 s, so that an answer
	// beats the 30 s write timeout of the server that func brings, which begins
	// anew if the body took its time.
	//
	// At least 1 ms. Defaults to 8 s.
	CommitTimeout time.Duration

	// RetryAfter is what a sender is asked to wait after a 503, in whole
	// seconds; the header knows nothing finer.
	//
	// From 1 s to 1 h. Defaults to 1 s.
	RetryAfter time.Duration

	// MaxConcurrent bounds how many events of one batch are worked on at once.
	//
	// From 1 to 4096. Defaults to 256.
	MaxConcurrent int

	// MaxStuck is how many calls of functions may be left behind because they
	// ignored their deadline. When there are so many, every event is answered
	// with 503 and Alive reports it, so that the process is started anew.
	//
	// From 1 to 4096. Defaults to 64.
	MaxStuck int

	// DeadLetters is where POST /dead-letters puts what it gets. Nil means that
	// the path does not exist.
	DeadLetters DeadLetters

	// Gate says who may send. Nil means everybody who can reach this address.
	Gate Gate

	// Now is the clock that deadlines are reckoned by. Defaults to time.Now.
	Now func() time.Time

	// Logger is told about events that were refused (warn) or broke a function
	// (error), never about their data. Of what repeats it is told ten times and
	// then once a second, with the number left out. Defaults to discarding
	// everything.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 20
	}
	if c.Deadline == 0 {
		c.Deadline = 20 * time.Second
	}
	if c.CommitTimeout == 0 {
		c.CommitTimeout = 8 * time.Second
	}
	if c.RetryAfter == 0 {
		c.RetryAfter = time.Second
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 256
	}
	if c.MaxStuck == 0 {
		c.MaxStuck = 64
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
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
	if c.MaxConcurrent < 1 || c.MaxConcurrent > 4096 {
		errs = append(errs, fmt.Errorf("MaxConcurrent is %d: want 1 to 4096", c.MaxConcurrent))
	}
	if c.MaxStuck < 1 || c.MaxStuck > 4096 {
		errs = append(errs, fmt.Errorf("MaxStuck is %d: want 1 to 4096", c.MaxStuck))
	}
	return errors.Join(errs...)
}
