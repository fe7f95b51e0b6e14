package eventing

import (
	"context"
	"time"

	"github.com/sethvargo/go-retry"
)

// jitterPercent spreads tries that would otherwise come together.
const jitterPercent = 25

// backoff is how long to wait between tries: base, then twice as long each time
// up to limit, each give or take a quarter.
func backoff(base, limit time.Duration) retry.Backoff {
	return retry.WithJitterPercent(jitterPercent, retry.WithCappedDuration(limit, retry.NewExponential(base)))
}

// patience is a [retry.Backoff] that costs nothing before the first failure and
// waits at least as long as the other side asked for.
type patience struct {
	base, limit time.Duration
	atLeast     time.Duration // asked for with the latest answer; 0 if not
	next        retry.Backoff
}

// Next never stops.
func (p *patience) Next() (time.Duration, bool) {
	if p.next == nil {
		p.next = backoff(p.base, p.limit)
	}
	wait, stop := p.next.Next()
	if wait < p.atLeast {
		// Who was told the same must not come back at the same moment.
		wait = p.atLeast + wait/4
	}
	return wait, stop
}

// reset forgets all failures.
func (p *patience) reset() { p.next = nil }

// after is how long to wait until the next try, with the given bounds, which are
// those of the first call.
func (p *patience) after(base, limit, atLeast time.Duration) time.Duration {
	p.base, p.limit, p.atLeast = base, limit, atLeast
	wait, _ := p.Next()
	return wait
}

// sleep waits as long as b asks for and reports whether ctx is still there.
func sleep(ctx context.Context, b *patience) bool {
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
