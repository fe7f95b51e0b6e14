package source

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing"
)

// # Design
//
// A source that races delivers at once, and what it delivers another cluster has
// computed as well. Where much waits in the stream, as after an outage, nothing is
// delivered at once any more: there it is better to find out what is done meanwhile.
// Whoever is behind then catches up as fast as the ledger answers, and not only as fast
// as its function computes for nothing; and two clusters that are behind both do half of
// it each, since each takes what waits in an order of its own.

// fromTheHead is how often, of so many times, what has waited longest is taken: nothing
// waits for ever.
const fromTheHead = 8

// behindWindow is how many times as many messages as are delivered at once are held when
// the source is behind. With few, all clusters are at the same ones.
const behindWindow = 32

// lagging reports whether so much waits in the stream behind a message that the ledger is
// asked first. Where an order is kept, it is that of the stream.
func (c Config) lagging(m eventing.Message) bool {
	return c.Ledger != nil && c.CatchUpLag > 0 && !c.Ordered && m.Pending() >= uint64(c.CatchUpLag)
}

// backlog are the messages that were received while much waited: they are neither
// asked about nor delivered yet.
type backlog struct {
	jobs []*message
	low  int         // more are asked about when fewer than these are to be delivered
	some int         // that many at a time
	away func() bool // whether the function is
	fed  time.Time   // when some were asked about last
}

// awayInterval is the shortest time after which some more are tried though the function
// is away.
const awayInterval = time.Second

// feedInterval is how often it is looked whether to ask about some of the backlog though
// nobody has taken anything.
const feedInterval = 100 * time.Millisecond

// hungry reports whether some of the backlog should be asked about. While the function
// is away, what is tried again and again is enough; but that may have been handed back.
func (a *scheduler) hungry() bool {
	left := a.ready.len() + a.batched.len()
	switch {
	case len(a.backlog.jobs) == 0 || left >= a.backlog.low:
		return false
	case a.backlog.away():
		return left == 0 && len(a.waiting) == 0 && a.now().Sub(a.backlog.fed) >= awayInterval
	}
	return true
}

// feed has some of the backlog asked about if little is to be delivered.
func (a *scheduler) feed() {
	if a.hungry() {
		a.lookupReady.Signal()
	}
}

// lookUpBacklog moves some of the backlog, next to each other, to what is asked about.
func (a *scheduler) lookUpBacklog() {
	b := &a.backlog
	b.fed = a.now()
	n, at := min(b.some, len(b.jobs)), 0
	if rand.IntN(fromTheHead) > 0 {
		at = rand.IntN(len(b.jobs) - n + 1)
	}
	a.lookups = append(a.lookups, b.jobs[at:at+n]...)
	b.jobs = slices.Delete(b.jobs, at, at+n)
}

// isLagging reports whether there is a backlog.
func (a *scheduler) isLagging() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.backlog.jobs) > 0
}
