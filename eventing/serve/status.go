package serve

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/tandem-fn/tandem/functions"
)

// statusError is an error of which it is known whose fault it is.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// withStatus says which status err is answered with.
func withStatus(status int, err error) error {
	return &statusError{status: status, err: err}
}

// panicError is what somebody panicked with.
type panicError struct {
	value any // nil after runtime.Goexit
	stack []byte
}

func (e *panicError) Error() string {
	if e.value == nil {
		return "the goroutine was ended"
	}
	return fmt.Sprintf("panic: %v", e.value)
}

// statusOf maps what went wrong to the status that is answered. What nobody has
// given a status is not the event's fault.
func statusOf(err error) int {
	var known *statusError
	var rejected *functions.RejectError
	var counted *CountedError
	var denied *DeniedError
	switch {
	case errors.As(err, &known):
		return known.status
	case errors.As(err, &rejected):
		return http.StatusUnprocessableEntity
	case errors.As(err, &counted):
		return http.StatusInternalServerError
	case errors.As(err, &denied):
		if denied.Known {
			return http.StatusForbidden
		}
		return http.StatusUnauthorized
	}
	return http.StatusServiceUnavailable
}
