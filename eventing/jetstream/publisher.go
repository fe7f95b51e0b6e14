package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// publishAhead is the number of events that one call of Publish sends before it waits
// until half of them are answered. More would fill the server's queue for the stream, and
// the server would reject some.
const publishAhead = 512

// If no stream accepts the subject of an event, the event is sent again this often before
// the stream is looked up.
const (
	noResponseTries = 2
	noResponseWait  = 250 * time.Millisecond
)

// undecidedWait is the pause before an event is sent again of which the stream is
// currently storing a copy.
const undecidedWait = 50 * time.Millisecond

// Error codes of the server without a name in package jetstream of nats.go.
const (
	errCodeHeaderTooLarge     natsjs.ErrorCode = 10097
	errCodeDuplicateUndecided natsjs.ErrorCode = 10158
)

// Publisher stores events in one stream. It is safe for concurrent use.
type Publisher struct {
	conn  *Conn
	cfg   StreamConfig
	found atomic.Bool // the stream was found

	limits limits
}

var _ eventing.Publisher = (*Publisher)(nil)

// NewPublisher returns a Publisher to the stream, which is created if it is missing.
// The error describes an invalid cfg.
func NewPublisher(conn *Conn, cfg StreamConfig) (*Publisher, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up publisher: %w", err)
	}
	return &Publisher{conn: conn, cfg: cfg, limits: limits{looking: make(chan struct{}, 1)}}, nil
}

// Publish implements [eventing.Publisher]. It sends many events before it waits for
// answers, for as long as ctx lasts; without a connection it returns [ErrNotConnected]
// immediately. Events that are not answered within [RequestTimeout] are sent again, as
// by [Ask]. The stream deduplicates events within its duplicate window.
func (p *Publisher) Publish(ctx context.Context, events []event.Event) error {
	limit := ctx
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		limit, cancel = context.WithTimeout(ctx, askLimit)
		defer cancel()
	}
	reasons := make([]error, len(events))
	rest := make([]int, len(events)) // the events that are sent again
	for i := range rest {
		rest[i] = i
	}
	for noResponses := 0; ; {
		p.attempt(ctx, events, rest, reasons)
		rest = slices.DeleteFunc(rest, func(i int) bool { return !passing(reasons[i]) })
		if len(rest) == 0 || limit.Err() != nil {
			break
		}
		wait := time.Duration(0)
		for _, i := range rest {
			switch {
			case errors.Is(reasons[i], natsjs.ErrNoStreamResponse):
				wait = max(wait, noResponseWait) // the leader may be changing
			case !unanswered(reasons[i]):
				wait = max(wait, undecidedWait)
			}
		}
		if wait == noResponseWait {
			if noResponses++; noResponses > noResponseTries {
				rest = p.explain(ctx, rest, reasons, noResponses == noResponseTries+1)
				wait = 0
			}
		}
		if len(rest) == 0 || !sleep(limit, wait) {
			break
		}
	}
	if ctx.Err() != nil {
		for _, i := range rest {
			if !errors.Is(reasons[i], context.Cause(ctx)) {
				reasons[i] = fmt.Errorf("%w: %w", context.Cause(ctx), reasons[i])
			}
		}
	}
	if err := contract.Published(reasons); err != nil {
		return fmt.Errorf("publish to stream %s: %w", p.cfg.Name, err)
	}
	return nil
}

// passing reports whether an event with this reason may be stored a moment later.
func passing(reason error) bool {
	if reason == nil {
		return false
	}
	var refused *natsjs.APIError
	return unanswered(reason) || errors.Is(reason, natsjs.ErrNoStreamResponse) ||
		errors.As(reason, &refused) && (refused.ErrorCode == errCodeDuplicateUndecided || refused.ErrorCode == natsjs.JSErrCodeStreamWrongLastSequenceConstant)
}

// explain looks up the stream, because it did not accept the subjects of some events: it
// was deleted, or has no leader. It returns the events that are worth another attempt.
func (p *Publisher) explain(ctx context.Context, rest []int, reasons []error, again bool) []int {
	info, err := p.find(ctx)
	if err == nil {
		err = canStore(info)
	}
	if err == nil && again {
		return rest
	}
	return slices.DeleteFunc(rest, func(i int) bool {
		if !errors.Is(reasons[i], natsjs.ErrNoStreamResponse) {
			return false
		}
		if err != nil {
			reasons[i] = err
		}
		return true
	})
}

// sleep waits, and reports false if ctx ended.
func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// attempt sends the events of rest once and sets the reasons of those that are not stored.
func (p *Publisher) attempt(ctx context.Context, events []event.Event, rest []int, reasons []error) {
	fail := func(rest []int, err error) {
		for _, i := range rest {
			reasons[i] = err
		}
	}
	if ctx.Err() != nil {
		fail(rest, context.Cause(ctx))
		return
	}
	if !p.found.Load() {
		if _, err := p.find(ctx); err != nil {
			fail(rest, err)
			return
		}
		p.found.Store(true)
	}
	lost := p.conn.loss()
	if err := p.conn.Ready(); err != nil {
		fail(rest, err)
		return
	}
	subject := func(n int) string { return Subject(p.cfg.prefix(), events[rest[n]].Type()) }
	m := newMessage() // reused for all events: the client copies it
	eventType, to := "", ""
	storing, err := p.conn.storings.begin(p.cfg.Name, subject)
	if err != nil {
		fail(rest, err)
		return
	}
	defer storing.end()
	for n, i := range rest {
		if n >= publishAhead && n%(publishAhead/2) == 0 {
			if err = storing.wait(ctx, lost, publishAhead/2); err != nil {
				fail(rest[n:], err)
				rest = rest[:n]
				break
			}
		}
		if e := events[i]; n == 0 || e.Type() != eventType {
			eventType, to = e.Type(), subject(n)
		}
		if rejected := encode(m, events[i], to); rejected != nil {
			storing.skip(rejected)
			continue
		}
		storing.send(m)
	}
	if err == nil {
		err = storing.wait(ctx, lost, 0)
	}
	for n, reason := range storing.reasons(err) {
		reasons[rest[n]] = p.tooLarge(ctx, events[rest[n]], reason)
	}
}

// newMessage returns a message for [encode].
func newMessage() *nats.Msg { return &nats.Msg{Header: make(nats.Header, 8)} }

// encode sets m to the message of an event. The error is a [eventing.Rejection].
func encode(m *nats.Msg, e event.Event, subject string) error {
	clear(m.Header)
	if err := addHeaders(m.Header, e); err != nil {
		return &eventing.Rejection{Code: http.StatusBadRequest, Err: err}
	}
	m.Header[nats.MsgIdHdr] = []string{eventing.MessageID(cloudevent.Source(e), e.ID())}
	m.Subject, m.Data = subject, e.DataEncoded
	return nil
}

// tooLarge returns a [eventing.Rejection] if the reason means that an event can never
// fit; else the reason.
func (p *Publisher) tooLarge(ctx context.Context, e event.Event, reason error) error {
	if reason == nil {
		return nil
	}
	var api *natsjs.APIError
	payload := errors.Is(reason, nats.ErrMaxPayload)
	if !payload && (!errors.As(reason, &api) || api.ErrorCode != natsjs.JSErrCodeStreamMessageExceedsMaximum && api.ErrorCode != errCodeHeaderTooLarge) {
		return reason
	}
	if err := p.Check(ctx, e); err != nil {
		return err
	}
	// The limit is not one of those known here.
	return &eventing.Rejection{Code: http.StatusRequestEntityTooLarge, Err: fmt.Errorf("%w: %w", eventing.ErrTooLarge, reason)}
}

// messageSize returns the size of a message as the server counts it: headers and data.
func messageSize(m *nats.Msg) int {
	const version, end = len("NATS/1.0\r\n"), len("\r\n")
	size := version + end + len(m.Data)
	for name, values := range m.Header {
		for _, value := range values {
			size += len(name) + len(": ") + len(value) + end
		}
	}
	return size
}
