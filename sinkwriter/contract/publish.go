package contract

import (
	"errors"
	"fmt"
	"strings"
)

// PublishError reports which events of a call a publisher did not store. All other events
// of the call are stored. Unless the reason is a [Rejection], an event may be stored
// nevertheless, for example because the answer was lost, and it is safe to publish it
// again.
type PublishError struct {
	// Reasons holds, by the event's index in the call, why it is not stored; nil if it
	// is stored.
	Reasons []error
}

// Published returns nil if all reasons are nil, else a [PublishError].
func Published(reasons []error) error {
	for _, reason := range reasons {
		if reason != nil {
			return &PublishError{Reasons: reasons}
		}
	}
	return nil
}

// Error returns the number of events that are not stored, and the first few reasons.
func (e *PublishError) Error() string {
	const shown = 3
	n, texts := 0, []string(nil)
	seen := map[string]bool{}
	for _, reason := range e.Reasons {
		if reason == nil {
			continue
		}
		n++
		if text := reason.Error(); len(seen) <= shown && !seen[text] {
			seen[text] = true
			texts = append(texts, text)
		}
	}
	if len(texts) > shown {
		texts[shown] = "…"
	}
	if len(e.Reasons) == 1 {
		return texts[0]
	}
	return fmt.Sprintf("%d of %d events are not stored: %s", n, len(e.Reasons), strings.Join(texts, "; "))
}

// Unwrap returns the reasons.
func (e *PublishError) Unwrap() []error {
	var all []error
	for _, reason := range e.Reasons {
		if reason != nil {
			all = append(all, reason)
		}
	}
	return all
}

// ReasonsOf returns, for each of n events, why a publisher did not store it; nil if
// it is stored. err is the publisher's error.
func ReasonsOf(err error, n int) []error {
	var known *PublishError
	if errors.As(err, &known) && len(known.Reasons) == n {
		return known.Reasons
	}
	reasons := make([]error, n)
	for i := range reasons {
		reasons[i] = err
	}
	return reasons
}

// Rejection is the reason why an event can never be stored, for example because it is
// too large. A retry does not help.
type Rejection struct {
	// Code is the HTTP status of the rejection: the sink's answer, or 413 for an event
	// that is too large for a stream.
	Code int

	// Err is the reason.
	Err error
}

// Error returns the reason.
func (r *Rejection) Error() string { return r.Err.Error() }

// Unwrap returns the reason.
func (r *Rejection) Unwrap() error { return r.Err }
