package functions

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Func computes the writes and outputs of one event.
//
// It is called in every cluster, possibly several times and concurrently, and must
// return equal Effects each time. For an event that can never succeed it returns
// an error of [Reject]; any other error means that the function failed on this
// event, which is retried.
type Func func(ctx context.Context, e event.Event) (Effects, error)

// Function is a [Func] with its name, version and event types.
type Function struct {
	// Name is the function's part of the ledger's key. It must never change: a
	// function under a new name processes the whole stream again. Lower-case
	// letters, digits and '-', at most 63, beginning with a letter.
	Name string

	// Version identifies the behaviour of Handle. Two clusters that run the
	// same version must compute equal Effects; a difference is a divergence.
	// Change it whenever Handle may compute different effects. At most 63
	// bytes.
	Version string

	// Types are the CloudEvent types that Handle accepts, without patterns.
	Types []string

	// Handle computes the effects of an event.
	Handle Func

	// Migrations hold the function's own tables, as .sql files in the root of
	// the file system, one per migration. Nil if it has none.
	Migrations fs.FS
}

// namePattern is the pattern of the names of functions, clusters and consumers: they
// are parts of the names of Kubernetes objects, PostgreSQL roles and NATS consumers.
var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// ValidName reports whether name is valid for a function or a cluster: lower-case
// letters, digits and '-', at most 63, beginning with a letter.
func ValidName(name string) bool { return namePattern.MatchString(name) }

// Validate returns an error that reports everything that is wrong with the declaration of f.
func (f Function) Validate() error {
	var errs []error
	if !ValidName(f.Name) {
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

// RejectError is the error for an event that can never succeed, because of its
// own content. The answer to the event is 422, and it becomes a dead letter.
type RejectError struct {
	Err error
}

// Error returns the reason.
func (e *RejectError) Error() string { return e.Err.Error() }

// Unwrap returns the reason as an error.
func (e *RejectError) Unwrap() error { return e.Err }

// Reject returns err as a [RejectError]; nil for a nil err.
func Reject(err error) error {
	if err == nil {
		return nil
	}
	return &RejectError{Err: err}
}
