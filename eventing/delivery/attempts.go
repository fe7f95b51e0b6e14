package delivery

import (
	"sync"
	"time"
)

// An event that breaks the function (500) becomes a dead letter after at least
// minAttempts failed attempts over Config.TryFor (TANDEM_TRY_FOR). No other answer
// counts against it.

// minAttempts is the number of attempts that must have failed before an event becomes a
// dead letter, however long they took.
const minAttempts = 3

// failedBackoffCap returns the longest wait between two attempts of an event that breaks
// the function. It allows about thirty attempts before the event becomes a dead letter.
func (d *Sender) failedBackoffCap() time.Duration {
	return max(d.cfg.TryFor/30, d.cfg.BackoffCap)
}

// exhausted reports whether an event has no attempts left.
func (d *Sender) exhausted(e *Delivery) bool {
	return e.AttemptedFor >= d.cfg.TryFor && e.Attempts >= minAttempts
}

// recordFailure counts a failed attempt, and the time since the previous one without
// outages of the function. If the event had another answer in between, the function may
// have been unavailable for this event only; then no more than a usual wait and attempt
// counts.
func (d *Sender) recordFailure(e *Delivery) {
	now := d.cfg.Now()
	outages := d.outages.until(now)
	e.Attempts++
	if !e.failedAt.IsZero() {
		counts := now.Sub(e.failedAt) - (outages - e.outages)
		if e.interrupted {
			counts = min(counts, d.failedBackoffCap()+d.cfg.Timeout)
		}
		e.AttemptedFor += max(0, counts)
	}
	e.failedAt, e.outages, e.interrupted = now, outages, false
}

// outages sums the time during which a function answered nothing.
type outages struct {
	mu    sync.Mutex
	ended time.Duration
	since time.Time // zero while the function answers
}

// note records whether a request was answered.
func (o *outages) note(now time.Time, answered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case answered && !o.since.IsZero():
		o.ended += now.Sub(o.since)
		o.since = time.Time{}
	case !answered && o.since.IsZero():
		o.since = now
	}
}

// until returns the total duration of all outages.
func (o *outages) until(now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return o.ended
	}
	return o.ended + now.Sub(o.since)
}
