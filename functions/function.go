package functions

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Func computes from one event what to write and what to emit.
//
// It is called in every cluster, possibly several times and concurrently, and
// must return equal Effects each time. An event that can never work is refused
// with [Reject]; any other error says that the function broke on this event,
// and it will be tried again.
type Func func(ctx context.Context, e event.Event) (Effects, error)

// Function is a [Func] with the names that it is known by.
type Function struct {
	// Name is the function's part of the ledger's key. It is for ever: a
	// function under a new name handles the whole stream again. Lower-case
	// letters, digits and '-', at most 63, beginning with a letter.
	Name string

	// Version names the behaviour of Handle. Two clusters that run the same
	// version must compute equal Effects; a difference is a divergence. Change
	// it whenever Handle may compute something else. At most 63 bytes.
	Version string

	// Types are the CloudEvent types that Handle takes, each spelled out.
	Types []string

	// Handle does the work.
	Handle Func

	// Migrations hold the function's own tables, one .sql file a migration,
	// in the root of the file system. Nil if it has none.
	Migrations fs.FS
}

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// Validate reports everything that is wrong with how f is declared.
func (f Function) Validate() error {
	var errs []error
	if !namePattern.MatchString(f.Name) {
		errs = append(errs, fmt.Errorf("name %q: want lower-case letters, digits and '-', at most 63, beginning with a letter", f.Name))
	}
	if f.Version == "" || len(f.Version) > 63 {
		errs = append(errs, fmt.Errorf("version %q: want 1 to 63 bytes", f.Version))
	}
	if len(f.Types) == 0 {
		errs = append(errs, errors.New("types: want at least one event type"))
	}
	if f.Handle == nil {
		errs = append(errs, errors.New("handle: missing"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("declare function %q: %w", f.Name, err)
	}
	return nil
}

// RejectError says that an event can never work: its own fault, not the
// function's and not the surroundings'. It is answered with 422 and becomes a
// dead letter.
type RejectError struct {
	Err error
}

// Error gives the reason.
func (e *RejectError) Error() string { return e.Err.Error() }

// Unwrap gives the reason as an error.
func (e *RejectError) Unwrap() error { return e.Err }

// Reject marks err as the event's own fault. A nil err stays nil.
func Reject(err error) error {
	if err == nil {
		return nil
	}
	return &RejectError{Err: err}
}
