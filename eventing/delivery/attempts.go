package delivery

import (
	"sync"
	"time"
)

// An event that breaks the function (500) is a dead letter after at least minAttempts
// failed attempts over Config.TryFor (TANDEM_TRY_FOR). Nothing else counts against it.

// minAttempts is how many attempts must have failed before an event is a dead letter,
// however long that took.
const minAttempts = 3

// failedBackoffCap returns the longest wait between two attempts of an event that breaks
// the function: about thirty attempts until it is a dead letter.
func (d *Sender) failedBackoffCap() time.Duration {
	return max(d.cfg.TryFor/30, d.cfg.BackoffCap)
}

// exhausted reports whether the attempts of an event have run out.
func (d *Sender) exhausted(e *Delivery) bool {
	return e.AttemptedFor >= d.cfg.TryFor && e.Attempts >= minAttempts
}

// recordFailure counts a failed attempt. The time between two of them counts, but for that
// in which the function answered no event at all. If the event had another answer in
// between, it was perhaps unavailable for this one only: not more than a usual wait and
// attempt counts then.
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

// outages adds up for how long a function answered nothing.
type outages struct {
	mu    sync.Mutex
	ended time.Duration
	since time.Time // zero while it answers
}

// note notes whether a request was answered.
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

// until returns how long all outages were together.
func (o *outages) until(now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return o.ended
	}
	return o.ended + now.Sub(o.since)
}
