package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"

	"github.com/tandem-fn/tandem/eventing/outcome"
)

// MaxStrikes is the number of strikes after which an event becomes a dead letter. A
// strike means that the function's process ended while it computed only this event.
const MaxStrikes = 3

// Struck reports whether the event is a dead letter because it ended the function's
// process.
func (e *Delivery) Struck() bool {
	return e.Strikes >= MaxStrikes || e.DeadElsewhere && e.Strikes > 0
}

// rejectStruck turns an event that has ended the function's process into a dead letter.
func (d *Sender) rejectStruck(e *Delivery) error {
	cause := ""
	if e.brokenBy != "" {
		cause = " (" + e.brokenBy + ")"
	}
	reason := fmt.Sprintf("the function's process ended%s in %d of %d attempts, each alone", cause, e.Strikes, e.Strikes)
	if e.Strikes < MaxStrikes {
		reason += "; the event is a dead letter of another cluster"
	}
	return d.makeDeadLetter(e, http.StatusInternalServerError, []byte(reason), e.Attempts+e.Strikes)
}

// sentRequest records whether a request had a connection, was written to it, and whether an
// answer began.
type sentRequest struct {
	connected, done, answering atomic.Bool
}

// traceSent returns a context for one request, and the record of whether it was sent.
func traceSent(ctx context.Context) (context.Context, *sentRequest) {
	s := &sentRequest{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { s.connected.Store(true) },
		WroteRequest:         func(info httptrace.WroteRequestInfo) { s.done.Store(info.Err == nil) },
		GotFirstResponseByte: func() { s.answering.Store(true) },
	}), s
}

// brokenBy returns how the connection broke after the request was sent and before an answer
// began; empty if the error is another one. A server that is not a function may send
// something other than HTTP, and networks and proxies have errors of their own: they are not
// the event's fault.
func (s *sentRequest) brokenBy(err error) string {
	var timeout net.Error
	switch {
	case !s.done.Load(), s.answering.Load(), errors.Is(err, context.Canceled), errors.As(err, &timeout) && timeout.Timeout():
		return ""
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	default:
		return ""
	}
}

// brokenBehind returns how the connection between a gateway and the function broke, if the
// gateway's answer means that; else empty.
//
// Knative's queue-proxy and activator answer 502 with net/http's error of the connection,
// which begins with "dial" if there was none. Envoy answers 503 with the reason.
func brokenBehind(res *http.Response, body []byte) string {
	if res.Header.Get(outcome.MaxBatchHeader) != "" {
		return "" // the function itself answered
	}
	causes := map[int][]string{
		http.StatusBadGateway:         {"EOF", "connection reset", "broken pipe"},
		http.StatusServiceUnavailable: {"reset reason: connection termination"},
	}
	for _, cause := range causes[res.StatusCode] {
		if bytes.Contains(body, []byte(cause)) && !bytes.HasPrefix(body, []byte("dial ")) {
			return fmt.Sprintf("a gateway answered %d: %s", res.StatusCode, cause)
		}
	}
	return ""
}
