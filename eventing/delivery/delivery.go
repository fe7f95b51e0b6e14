package delivery

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/sink"
)

// eventRepeat is the time between log lines about an event that is retried.
const eventRepeat = time.Minute

// Delivery is the delivery of one event: to the function, and to the dead letter sink
// if the function rejects the event or breaks on it for too long. It must be used by
// one goroutine at a time.
type Delivery struct {
	Event event.Event

	// DeadLetter reports whether the event is sent to the dead letter sink. Alone
	// reports whether it is sent in a request of its own, because its batch had no
	// answer, it broke the function, or it is pending.
	DeadLetter, Alone bool

	// Unreadable is why the message of the event cannot be delivered: it looks like a
	// CloudEvent and is invalid. It is sent to the dead letter sink without an attempt.
	Unreadable error

	// Attempts is how often the event broke the function, and AttemptedFor over how
	// long, without the times in which the function was unavailable.
	Attempts     int
	AttemptedFor time.Duration
	failedAt     time.Time     // when it last broke the function
	outages      time.Duration // of the function up to that time
	interrupted  bool          // the function was unavailable for the event since then

	// DeferredKey is the event's key in the ledger if the event is deferred: it is
	// stored in the database and acknowledged to its stream. The function deletes it
	// from there with its commit.
	DeferredKey string

	// Lack is what the deployment lacked at the latest answer with
	// [outcome.Deployment].
	Lack Lack

	// Strikes is how often the function's process ended while it computed only this event.
	// DeadElsewhere reports whether the event is a dead letter of another cluster; then
	// one strike is enough.
	Strikes       int
	DeadElsewhere bool
	brokenBy      string // how the connection last broke

	request    *sink.Request // the request with only this event; nil before the first one
	structured bool          // because a proxy rejected its headers

	// Why it is a dead letter, and how often its sink rejected it.
	status   int
	reason   []byte
	attempts int
	refusals int

	retryBackoff, failedBackoff, deadLetterBackoff backoff.Backoff

	failingSince, reported time.Time // the first failed attempt, and the latest log line about it
}

// Step is the next step for an event after a request.
type Step struct {
	// Outcome is the function's, or, of a dead letter, that of its sink.
	Outcome outcome.Outcome

	// Receipt is the function's: [outcome.ReceiptWon], [outcome.ReceiptLost], or
	// another value if the sink is not a function of ours.
	Receipt string

	// Versions is the answer's header Tandem-Versions, for [Sender.VersionOf].
	Versions string

	// Settled reports whether nothing more is to be sent: the event is committed, or the
	// dead letter sink accepted it, in which case Rejected is true.
	Settled, Rejected bool

	// RetryIn is the wait before the next attempt; 0 means none.
	RetryIn time.Duration

	// Failed reports whether the event broke the function.
	Failed bool

	// Broken reports whether the connection broke after the request was sent, and
	// Draining whether the function is shutting down.
	Broken, Draining bool

	// Err is why the event cannot be encoded. No request was sent.
	Err error
}

// Deliver sends the events of ds in one request, each at most once: a single event in
// the binary content mode, several as a batch. It returns the next step for each. When
// ctx ends, a request under way has [Config.Grace] to finish; after that the steps are
// meaningless. Answered reports whether the function answered for an event.
func (d *Sender) Deliver(ctx context.Context, ds []*Delivery) (steps []Step, answered bool) {
	if len(ds) > 1 {
		steps, answered = d.deliverBatch(ctx, ds)
		d.outages.note(d.cfg.Now(), answered)
		return steps, answered
	}
	step, answered := d.deliverAlone(ctx, ds[0])
	if !ds[0].DeadLetter {
		d.outages.note(d.cfg.Now(), answered)
	}
	return []Step{step}, answered
}

// deliverAlone sends one event.
func (d *Sender) deliverAlone(ctx context.Context, e *Delivery) (step Step, answered bool) {
	switch {
	case e.DeadLetter:
	case e.Unreadable != nil:
		if err := d.makeDeadLetter(e, http.StatusBadRequest, []byte(e.Unreadable.Error()), 0); err != nil {
			return Step{Err: err}, true
		}
	case e.Struck():
		if err := d.rejectStruck(e); err != nil {
			return Step{Err: err}, true
		}
	}
	if err := d.prepare(e); err != nil {
		return Step{Err: err}, true
	}
	t := d.function
	if e.DeadLetter {
		t = d.deadLetters
	}
	a := d.send(ctx, t, e.request, 1, !e.Alone, e.brokenBy != "")
	return d.step(ctx, e, a, a.outcome), a.answered
}

// step returns the next step for an event.
func (d *Sender) step(ctx context.Context, e *Delivery, a answer, o outcome.Outcome) Step {
	step := Step{Outcome: o, Draining: a.draining, Versions: a.versions}
	switch {
	case a.status == http.StatusRequestHeaderFieldsTooLarge && o.Kind == outcome.Rejected && !e.structured:
		// A proxy rejected the headers as too large. The event is sent again, with the
		// attributes in the body. A dead letter is encoded again too, after the function's
		// answer.
		e.structured, e.Alone, e.DeadLetter, e.request = true, true, false, nil
		step.Outcome = outcome.Outcome{Kind: outcome.Pending}
		return step
	case ctx.Err() != nil && o.Kind != outcome.Committed && o.Kind != outcome.Rejected:
		return step // the outcome is meaningless, and the caller checks ctx
	case e.DeadLetter:
		return d.stepDeadLetter(ctx, e, a, step)
	}
	switch o.Kind {
	case outcome.Committed:
		step.Settled, step.Receipt = true, a.receipt
		if a.outcomes != nil {
			step.Receipt = outcome.ReceiptLost
			if o.Won {
				step.Receipt = outcome.ReceiptWon
			}
		}
		return step
	case outcome.Rejected:
		step.Err = d.reject(e, a, o)
		return step
	case outcome.Pending:
		e.Alone = true
		return step
	case outcome.Failed:
		e.Alone, step.Failed = true, true
		d.cfg.Failed(ctx)
		if d.recordFailure(e); d.exhausted(e) {
			step.Err = d.reject(e, a, o)
			return step
		}
		step.RetryIn = e.failedBackoff.Delay(d.cfg.BackoffBase, d.failedBackoffCap(), o.RetryAfter)
	case outcome.Deployment, outcome.Unavailable:
		e.interrupted = true
		if o.Kind == outcome.Deployment {
			e.failedAt = time.Time{}
			d.recordLack(e, o, a.versions)
		}
		if a.brokenBy != "" {
			step.Broken, e.Alone, e.brokenBy = true, true, a.brokenBy
		}
		d.cfg.Failed(ctx)
		step.RetryIn = e.retryBackoff.Delay(d.cfg.BackoffBase, d.cfg.BackoffCap, min(o.RetryAfter, d.cfg.RetryAfterCap))
	}
	d.reportRetry(ctx, d.function, e, a, o)
	return step
}

// stepDeadLetter returns the next step for a dead letter. Everything but a 2xx is
// retried.
func (d *Sender) stepDeadLetter(ctx context.Context, e *Delivery, a answer, step Step) Step {
	if step.Outcome.Kind == outcome.Committed {
		if e.Unreadable != nil {
			d.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "message looks like a CloudEvent but cannot be read; it is a dead letter now: see tandem dead-letters list",
				append(EventAttrs(e.Event), slog.Any("err", e.Unreadable))...)
		} else {
			d.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "event rejected; it is a dead letter now: see tandem dead-letters list",
				append(EventAttrs(e.Event), slog.Int("code", e.status))...)
		}
		step.Settled, step.Rejected = true, true
		return step
	}
	if step.Outcome.Kind == outcome.Rejected && d.saveRefused(ctx, e, a.status) {
		step.Settled, step.Rejected = true, true
		return step
	}
	d.cfg.Failed(ctx)
	d.reportRetry(ctx, d.deadLetters, e, a, step.Outcome)
	step.RetryIn = e.deadLetterBackoff.Delay(d.cfg.BackoffBase, d.cfg.BackoffCap, step.Outcome.RetryAfter)
	return step
}

// prepare encodes the request of a single event, once.
func (d *Sender) prepare(e *Delivery) (err error) {
	if e.request != nil {
		return nil
	}
	encode := sink.EncodeFitting
	if e.structured {
		encode = sink.EncodeStructured
	}
	if e.request, err = encode(d.cfg.Sink.Apply(e.Event)); err != nil {
		return fmt.Errorf("encode event for HTTP: %w", err)
	}
	e.request.Once()
	if e.DeferredKey != "" {
		e.request.With(outcome.KeyHeader, e.DeferredKey)
	}
	return nil
}

// reject turns the event into a dead letter, to be sent at once.
func (d *Sender) reject(e *Delivery, a answer, o outcome.Outcome) error {
	attempts := e.Attempts + e.Strikes
	if o.Kind == outcome.Rejected {
		attempts++
	}
	reason := a.body
	if a.outcomes != nil {
		reason = []byte(o.Reason)
	}
	return d.makeDeadLetter(e, o.Status, reason, attempts)
}

// makeDeadLetter encodes the event as a dead letter.
func (d *Sender) makeDeadLetter(e *Delivery, status int, reason []byte, attempts int) error {
	reason = bytes.ToValidUTF8(reason, []byte("\ufffd")) // it may have been cut within a character
	encode := sink.EncodeFitting
	if e.structured {
		encode = sink.EncodeStructured
	}
	letter, err := encode(deadLetter(d.cfg.Sink.Apply(e.Event), d.cfg.Function, d.function.public, status, reason, attempts))
	if err != nil {
		return fmt.Errorf("encode dead letter for HTTP: %w", err)
	}
	e.request, e.DeadLetter = letter, true
	e.status, e.reason, e.attempts, e.refusals = status, reason, attempts, 0
	e.failingSince = time.Time{}
	return nil
}

// Forget drops the event and its request, which can be recreated. A dead letter is then
// sent to the function once more.
func (e *Delivery) Forget() {
	e.Event, e.request, e.DeadLetter = event.Event{}, nil, false
}

// reportRetry logs an event that is retried, at intervals of eventRepeat.
func (d *Sender) reportRetry(ctx context.Context, t *target, e *Delivery, a answer, o outcome.Outcome) {
	now := d.cfg.Now()
	switch {
	case e.failingSince.IsZero():
		e.failingSince, e.reported = now, now
	case now.Sub(e.reported) >= eventRepeat:
		e.reported = now
		cause := a.err
		if cause == nil {
			cause = &sink.StatusError{Code: o.Status}
		}
		d.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "delivery still fails; retrying: see err and the function's log", append(EventAttrs(e.Event),
			slog.String("url", t.public), slog.Any("err", cause), slog.String("reason", o.Reason), slog.String("lasting", now.Sub(e.failingSince).Round(time.Millisecond).String()))...)
	}
}

// EventAttrs returns the log attributes that identify an event.
func EventAttrs(e event.Event) []slog.Attr {
	return []slog.Attr{
		slog.String("event_source", e.Source()),
		slog.String("event_id", e.ID()),
		slog.String("event_type", e.Type()),
	}
}
