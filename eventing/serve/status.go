package serve

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// statusError is an error with the status of its answer.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// withStatus returns err with the status of its answer.
func withStatus(status int, err error) error {
	return &statusError{status: status, err: err}
}

// panicError is the value of a panic.
type panicError struct {
	value any // nil after runtime.Goexit
	stack []byte
}

func (e *panicError) Error() string {
	if e.value == nil {
		return "the goroutine ended"
	}
	return fmt.Sprintf("panic: %v", e.value)
}

// statusOf returns the status of the answer for err: 503 unless a cause of it has
// another.
func statusOf(err error) int {
	var known *statusError
	var rejected *functions.RejectError
	var commit *sinkwriter.Error
	var denied *DeniedError
	switch {
	case errors.As(err, &known):
		return known.status
	case errors.As(err, &rejected):
		return http.StatusUnprocessableEntity
	case errors.As(err, &commit) && (commit.Fault == sinkwriter.FaultFunction || commit.Fault == sinkwriter.FaultOrder):
		return http.StatusInternalServerError
	case errors.As(err, &denied):
		if denied.Forbidden {
			return http.StatusForbidden
		}
		return http.StatusUnauthorized
	}
	return http.StatusServiceUnavailable
}

// outcomeOf returns the outcome of an event.
func (h *Handler) outcomeOf(r result) outcome.Outcome {
	if r.err == nil {
		return outcome.Outcome{Kind: outcome.Committed, Status: http.StatusNoContent, Won: r.receipt.Won, Digest: digestOf(r.receipt)}
	}
	if errors.Is(r.err, errPending) {
		return outcome.Outcome{Kind: outcome.Pending}
	}
	o := outcome.Outcome{Status: statusOf(r.err), Reason: oneLine(r.err.Error())}
	switch deployment := deploymentError(r.err); {
	case deployment != nil:
		o.Kind, o.Fingerprint, o.EffectClass = outcome.Deployment, deployment.Fingerprint(), r.effectClass
		o.RetryAfter = h.config.RetryAfter
	case o.Status == http.StatusServiceUnavailable:
		o.RetryAfter = h.config.RetryAfter
	case o.Status == http.StatusInternalServerError:
		o.Kind = outcome.Failed
	default:
		o.Kind = outcome.Rejected
	}
	return o
}

// digestOf returns the digest of a receipt in hexadecimal; empty if it has none.
func digestOf(receipt sinkwriter.Receipt) string {
	if receipt.Digest == [16]byte{} {
		return ""
	}
	var text [2 * len(receipt.Digest)]byte
	hex.Encode(text[:], receipt.Digest[:])
	return string(text[:])
}

// deploymentError returns the error in err that only a change of the deployment can
// fix; nil if there is none.
func deploymentError(err error) *sinkwriter.Error {
	var commit *sinkwriter.Error
	if errors.As(err, &commit) && commit.Fault == sinkwriter.FaultDeployment {
		return commit
	}
	return nil
}

// effectClass returns the class of effects: commuting if all writes have the same result in
// whatever order events are applied, inserting if some of them insert rows, where the first
// one wins. The result of a replacement or a statement depends on the writes before it.
func effectClass(fx functions.Effects) string {
	class := outcome.Commuting
	for i := range fx.Writes {
		switch fx.Writes[i].Op {
		case functions.OpAdd, functions.OpNewest, functions.OpOldest, functions.OpDeleteNewest, functions.OpMax, functions.OpMin:
		case functions.OpInsert:
			class = outcome.Inserting
		default:
			return outcome.OrderBound
		}
	}
	return class
}
