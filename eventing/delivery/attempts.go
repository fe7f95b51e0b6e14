package delivery

import "time"

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

// recordFailure counts a failed attempt. Only the time between two of them counts, not
// that of outages in between.
func (e *Delivery) recordFailure(now time.Time) {
	e.Attempts++
	if !e.failedAt.IsZero() {
		e.AttemptedFor += max(0, now.Sub(e.failedAt))
	}
	e.failedAt = now
}
