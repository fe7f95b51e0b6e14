package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/sink"
)

// eventRepeat is how often an event that is tried and tried again is reported.
const eventRepeat = time.Minute

// Delivery is the delivery of one event: to the function, and to the dead letter
// sink if the function refused it or broke on it for too long. It is used by one
// goroutine at a time.
type Delivery struct {
	Event      event.Event
	request    *sink.Request // of what is sent; nil until it is sent first
	DeadLetter bool          // it is for the dead letter sink
	Alone      bool          // it is not sent in a batch, since one with it was not taken
	status     int           // why

	retryBackoff, failedBackoff, deadLetterBackoff, Resting backoff.Backoff

	// Answers of 500, and for how long they came: from each to the next, unless
	// something else came in between.
	Attempts     int
	AttemptedFor time.Duration
	failedAt     time.Time // when the latest answer was 500

	Since, reported time.Time // the first try in vain, and when it was reported last
}

// Attempt is what came of one try.
type Attempt struct {
	Settled bool
	Result  Result

	// Else it is to be tried again, after that long.
	RetryIn time.Duration

	// Failed is true if it is this event that does not go through, and not the
	// function that is not there.
	Failed bool
}

// Attempt tries once. When ctx ends, a try that is under way has
// [Config.Grace] left to finish. The error says that the event cannot be
// sent at all.
func (d *Sender) Attempt(ctx context.Context, e *Delivery) (Attempt, error) {
	if err := d.prepare(e); err != nil {
		return Attempt{}, err
	}
	t := d.function
	if e.DeadLetter {
		t = d.deadLetters
	}
	a := d.send(ctx, t, e.request)
	switch {
	case a.Outcome == Accepted && e.DeadLetter:
		d.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "event rejected; it is a dead letter now",
			append(EventAttrs(e.Event), slog.Int("code", e.status))...)
		return Attempt{Settled: true, Result: Result{Rejected: true}}, nil
	case a.Outcome == Accepted:
		return Attempt{Settled: true, Result: Result{Receipt: a.Receipt}}, nil
	case a.Outcome == Rejected:
		return Attempt{}, d.reject(e, a)
	case ctx.Err() != nil:
		return Attempt{}, nil //nolint:nilerr // what came of it says nothing, and the caller sees why
	}
	d.cfg.Failed(ctx)
	d.reportRetry(ctx, t, e, a)
	if e.DeadLetter {
		return Attempt{RetryIn: e.deadLetterBackoff.Delay(d.cfg.BackoffBase, d.cfg.BackoffCap, a.retryAfter)}, nil
	}
	if a.Outcome != Failed {
		e.failedAt = time.Time{}
		return Attempt{RetryIn: e.retryBackoff.Delay(d.cfg.BackoffBase, d.cfg.BackoffCap, a.retryAfter)}, nil
	}
	if e.recordFailure(d.cfg.Now()); d.exhausted(e) {
		return Attempt{}, d.reject(e, a)
	}
	return Attempt{RetryIn: e.failedBackoff.Delay(d.cfg.BackoffBase, d.failedBackoffCap(), a.retryAfter), Failed: true}, nil
}

// prepare encodes what is to be sent, if that has not been done.
func (d *Sender) prepare(e *Delivery) (err error) {
	if e.request != nil {
		return nil
	}
	if e.request, err = sink.Encode(d.cfg.Sink.Apply(e.Event)); err != nil {
		return fmt.Errorf("encode event for HTTP: %w", err)
	}
	return nil
}

// reject makes a dead letter of the event, which is to be delivered at once.
func (d *Sender) reject(e *Delivery, a Answer) error {
	attempts := e.Attempts
	if a.Outcome == Rejected {
		attempts++
	}
	letter, err := sink.Encode(deadLetter(d.cfg.Sink.Apply(e.Event), d.cfg.Function, d.function.public, a, attempts))
	if err != nil {
		return fmt.Errorf("encode dead letter for HTTP: %w", err)
	}
	e.request, e.DeadLetter, e.status = letter, true, a.Status
	e.Since = time.Time{}
	return nil
}

// Forget gives up what takes memory and can be had again. Who was on the way to the
// dead letter sink asks the function once more.
func (e *Delivery) Forget() {
	e.Event, e.request, e.DeadLetter = event.Event{}, nil, false
}

// Fresh reports whether there is nothing to be remembered.
func (e *Delivery) Fresh() bool { return e.Attempts == 0 && !e.Alone && e.Since.IsZero() }

// reportRetry says now and then that an event is tried in vain.
func (d *Sender) reportRetry(ctx context.Context, t *target, e *Delivery, a Answer) {
	now := d.cfg.Now()
	switch {
	case e.Since.IsZero():
		e.Since, e.reported = now, now
	case now.Sub(e.reported) >= eventRepeat:
		e.reported = now
		d.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "delivery still fails; retrying", append(EventAttrs(e.Event),
			slog.String("url", t.public), slog.Any("err", a.err), slog.Duration("lasting", now.Sub(e.Since)))...)
	}
}

// EventAttrs names an event in the log.
func EventAttrs(e event.Event) []slog.Attr {
	return []slog.Attr{
		slog.String("event_source", e.Source()),
		slog.String("event_id", e.ID()),
		slog.String("event_type", e.Type()),
	}
}
