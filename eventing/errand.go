package eventing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
)

// eventRepeat is how often an event that is tried and tried again is reported.
const eventRepeat = time.Minute

// errand is the delivery of one event: to the function, and to the dead letter
// sink if the function refused it or broke on it for too long. It is used by one
// goroutine at a time.
type errand struct {
	event   event.Event
	request *request // of what is sent; nil until it is sent first
	letter  bool     // it is for the dead letter sink
	alone   bool     // it is not sent in a batch, since one with it was not taken
	status  int      // why

	waiting, brokenWaiting, letterWaiting, resting backoff.Backoff

	// Answers of 500, and for how long they came: from each to the next, unless
	// something else came in between.
	tries   int
	tried   time.Duration
	brokeAt time.Time // when the latest answer was 500

	since, said time.Time // the first try in vain, and when it was reported last
}

// step is what came of one try.
type step struct {
	settled bool
	outcome Outcome

	// Else it is to be tried again, after that long.
	after time.Duration

	// broke is true if it is this event that does not go through, and not the
	// function that is not there.
	broke bool
}

// step tries once. When ctx ends, a try that is under way has
// [DeliveryConfig.Grace] left to finish. The error says that the event cannot be
// sent at all.
func (d *Delivery) step(ctx context.Context, e *errand) (step, error) {
	if err := d.prepare(e); err != nil {
		return step{}, err
	}
	t := d.function
	if e.letter {
		t = d.deadLetters
	}
	a := d.try(ctx, t, e.request)
	switch {
	case a.verdict == taken && e.letter:
		d.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "event rejected, it is a dead letter now",
			append(attrsOf(e.event), slog.Int("code", e.status))...)
		return step{settled: true, outcome: Outcome{Rejected: true}}, nil
	case a.verdict == taken:
		return step{settled: true, outcome: Outcome{Receipt: a.receipt}}, nil
	case a.verdict == refused:
		return step{}, d.bury(e, a)
	case ctx.Err() != nil:
		return step{}, nil //nolint:nilerr // what came of it says nothing, and the caller sees why
	}
	d.cfg.Failed(ctx)
	d.report(ctx, t, e, a)
	if e.letter {
		return step{after: e.letterWaiting.Delay(d.cfg.BackoffBase, d.cfg.BackoffCap, a.retryAfter)}, nil
	}
	if a.verdict != broken {
		e.brokeAt = time.Time{}
		return step{after: e.waiting.Delay(d.cfg.BackoffBase, d.cfg.BackoffCap, a.retryAfter)}, nil
	}
	if e.broke(d.cfg.Now()); e.tried >= d.cfg.TryFor && e.tries >= minTries {
		return step{}, d.bury(e, a)
	}
	return step{after: e.brokenWaiting.Delay(d.cfg.BackoffBase, d.brokenCap(), a.retryAfter), broke: true}, nil
}

// minTries is how often an event must have broken the function at least, however
// long that took, before it is a dead letter.
const minTries = 3

// brokenCap bounds the wait between two tries of an event that breaks the
// function: about thirty tries until it is a dead letter.
func (d *Delivery) brokenCap() time.Duration {
	return max(d.cfg.TryFor/30, d.cfg.BackoffCap)
}

// broke counts an answer of 500.
func (e *errand) broke(now time.Time) {
	e.tries++
	if !e.brokeAt.IsZero() {
		e.tried += max(0, now.Sub(e.brokeAt))
	}
	e.brokeAt = now
}

// prepare encodes what is to be sent, if that has not been done.
func (d *Delivery) prepare(e *errand) (err error) {
	if e.request != nil {
		return nil
	}
	if e.request, err = encode(d.cfg.Sink.apply(e.event)); err != nil {
		return fmt.Errorf("encode event for HTTP: %w", err)
	}
	return nil
}

// bury makes a dead letter of the event, which is to be delivered at once.
func (d *Delivery) bury(e *errand, a answer) error {
	attempts := e.tries
	if a.verdict == refused {
		attempts++
	}
	letter, err := encode(deadLetter(d.cfg.Sink.apply(e.event), d.cfg.Function, d.function.public, a, attempts))
	if err != nil {
		return fmt.Errorf("encode dead letter for HTTP: %w", err)
	}
	e.request, e.letter, e.status = letter, true, a.status
	e.since = time.Time{}
	return nil
}

// rest gives up what takes memory and can be had again. Who was on the way to the
// dead letter sink asks the function once more.
func (e *errand) rest() {
	e.event, e.request, e.letter = event.Event{}, nil, false
}

// untried reports whether there is nothing to be remembered.
func (e *errand) untried() bool { return e.tries == 0 && !e.alone && e.since.IsZero() }

// report says now and then that an event is tried in vain.
func (d *Delivery) report(ctx context.Context, t *target, e *errand, a answer) {
	now := d.cfg.Now()
	switch {
	case e.since.IsZero():
		e.since, e.said = now, now
	case now.Sub(e.said) >= eventRepeat:
		e.said = now
		d.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "event is still not taken and tried again", append(attrsOf(e.event),
			slog.String("url", t.public), slog.Any("err", a.err), slog.Duration("lasting", now.Sub(e.since)))...)
	}
}

// attrsOf names an event in the log.
func attrsOf(e event.Event) []slog.Attr {
	return []slog.Attr{
		slog.String("event_source", e.Source()),
		slog.String("event_id", e.ID()),
		slog.String("event_type", e.Type()),
	}
}
