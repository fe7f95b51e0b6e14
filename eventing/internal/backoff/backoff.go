// Package backoff waits between attempts: exponentially longer, up to a limit, with
// jitter, and at least as long as the server requested.
package backoff

import (
	"context"
	"time"

	"github.com/sethvargo/go-retry"
)

// jitterPercent spreads attempts that would otherwise coincide.
const jitterPercent = 25

// Backoff is the state of one repeated attempt. It allocates nothing before the first
// failure. The zero value is for [Backoff.Delay]. It is not safe for concurrent use.
type Backoff struct {
	Base, Limit time.Duration // the first and the longest wait; each wait is twice the one before
	AtLeast     time.Duration // requested by the latest answer; 0 if nothing was
	next        retry.Backoff
}

// Next returns the wait until the next attempt. There always is one: the second result
// is always false, as [retry.Backoff] requires.
func (b *Backoff) Next() (time.Duration, bool) {
	if b.next == nil {
		b.next = retry.WithJitterPercent(jitterPercent, retry.WithCappedDuration(b.Limit, retry.NewExponential(b.Base)))
	}
	wait, stop := b.next.Next()
	if wait < b.AtLeast {
		wait = b.AtLeast + wait/4 // clients with the same requested wait must not return at the same time
	}
	return wait, stop
}

// Reset forgets all failures.
func (b *Backoff) Reset() { b.next = nil }

// Delay returns the wait until the next attempt. Base and limit count in the first
// call after the zero value or a Reset.
func (b *Backoff) Delay(base, limit, atLeast time.Duration) time.Duration {
	b.Base, b.Limit, b.AtLeast = base, limit, atLeast
	wait, _ := b.Next()
	return wait
}

// Sleep waits until b's next attempt. It reports false if ctx ended first.
func Sleep(ctx context.Context, b *Backoff) bool {
	wait, _ := b.Next()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
