package inflight

import (
	"math/bits"
	"time"
)

const (
	// lookupGrid is how often events that other clusters go first with become due, so that
	// one lookup has many of them.
	lookupGrid = 10 * time.Millisecond

	// sharePatience is how long what other clusters go first with may make no progress,
	// while there is no idle capacity for it. A cluster that died leaves the view after
	// 3 to 4 s.
	sharePatience = time.Second

	// leastHelp is how many events that other clusters go first with may be in requests
	// at once, if no more of this cluster's own are.
	leastHelp = 16

	// While the requests of this cluster's own events take longer than twice the quickest of
	// late and helpSlack, the function is busy with them. The quickest is that of the last
	// one or two quickWindow.
	helpSlack   = 5 * time.Millisecond
	quickWindow = 10 * time.Second

	// checked is how many of this cluster's own events are looked up at once before they
	// are sent, as they have waited for so long that others may have taken them: for the
	// delay, and at least checkAgain.
	checked    = 256
	checkAgain = 50 * time.Millisecond

	// A cluster whose lag is more than farBack leaves it to others to go first, until it is
	// below caughtUpTo.
	farBack    = 10 * time.Second
	caughtUpTo = time.Second
)

// sharing is what a [Table] knows while the clusters share the events.
//
// # Design
//
// An event that another cluster goes first with waits for the delay, is looked up with all
// that are due then, and left to that cluster if it is not committed. It is taken when
// nothing of this cluster's own waits, and no more of them than of its own are in requests:
// both sides get about as many, so that the events of a cluster that died find room, and
// those of one that only stalls do not displace this cluster's own. A delay alone would not
// do: after a stall both sides would compute everything, have no time for their own, and
// stay so.
//
// Two clusters that both have a backlog must not compute the same part of it. So the last
// of those that were left are taken first, where the other one is not yet, unless order is
// kept; and own ones are looked up again when they had to wait for longer than the delay.
//
// A cluster that lags a little stays a member. Without it the others would have to do all,
// which they cannot where there is little capacity to spare; then they lag, and it does not,
// and so on. They take its events as they have capacity.
type sharing struct {
	began         time.Time
	delay         time.Duration // of what other clusters go first with
	helping       int           // entries that are taken from other clusters, until they are answered
	sentForOthers int           // events of other clusters that were sent, so far
	checking      int           // own entries that are looked up before they are sent
	far           bool          // lags by more than farBack, and has not caught up since
	commits       latencies
	quick         quickest // of requests
}

// foreign reports whether another cluster goes first with e, whatever became of it here.
func (t *Table) foreign(e *Entry) bool { return !e.mine && !t.goesFirst(e) }

// SetShareDelay sets how long events wait that another cluster goes first with.
func (t *Table) SetShareDelay(delay time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.delay = delay
}

// dueShared returns when an event that another cluster goes first with is looked up.
func (t *Table) dueShared(e *Entry) time.Time {
	since := e.received.Add(t.delay).Sub(t.began) + lookupGrid - 1
	return t.began.Add(since - since%lookupGrid)
}

// takeShare has the events that wait for another cluster looked up at once if this cluster
// goes first with them now.
func (t *Table) takeShare() {
	t.waiting.rebuild(func(e *Entry) bool {
		if !e.hedged || !t.goesFirst(e) {
			return true
		}
		t.ask(e)
		return false
	})
}

// notCommittedElsewhere decides what to do with an entry that another cluster goes first
// with and that is not committed. It reports whether the caller has to leave it to the
// other cluster again.
func (t *Table) notCommittedElsewhere(e *Entry, wasLeft bool) (leftAgain bool) {
	switch {
	case t.cfg.Now().Before(t.dueShared(e)):
		t.waitHedged(e)
	case t.left.len() == 0 && t.idle() > 0:
		e.mine = true
		t.help(e)
		t.ready(e)
	case wasLeft:
		return true
	default:
		t.leaveToOthers(e)
	}
	return false
}

// help notes that e is taken from another cluster.
func (t *Table) help(e *Entry) {
	if !e.helps {
		e.helps = true
		t.helping++
	}
}

// helped notes that e is not taken from another cluster any more.
func (t *Table) helped(e *Entry) {
	if e.helps {
		e.helps = false
		t.helping--
	}
}

// Helped returns how many events that other clusters went first with were sent so far.
func (t *Table) Helped() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sentForOthers
}

// idle returns for how many more events of other clusters this one has capacity. While the
// function is away, that is one, which finds out whether it answers again.
func (t *Table) idle() int {
	own := t.together.Len() + t.alone.Len() + t.slow.Len() + t.checking
	switch {
	case t.silent >= silentRequests:
		return max(0, 1-own-t.sending-t.helping)
	case own > 0 || t.sending > t.helping && t.takes > 2*t.quick.least()+helpSlack:
		return 0
	default:
		return max(0, max(leastHelp, t.sending-t.helping)-t.helping)
	}
}

// quickest is the least of some durations of late.
type quickest struct {
	now, before time.Duration // 0 for none
	since       time.Time     // of now
}

func (q *quickest) add(at time.Time, d time.Duration) {
	if at.Sub(q.since) > quickWindow {
		q.before, q.now, q.since = q.now, 0, at
	}
	if q.now == 0 || d < q.now {
		q.now = d
	}
}

// least returns the least of the durations of this window and the one before it.
func (q *quickest) least() time.Duration {
	if q.before == 0 {
		return q.now
	}
	return min(q.now, q.before)
}

// patience is how long others may make no progress with the events that were left to them.
func (t *Table) patience() time.Duration {
	if t.hedge.Share {
		return sharePatience
	}
	return leftPatience
}

// Behind reports whether this cluster lags so much that others should go first with all
// events.
func (t *Table) Behind() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, lag := t.cfg.Now(), time.Duration(0)
	for _, p := range t.partitions {
		lag = max(lag, p.lag)
	}
	if t.together.Len() > 0 {
		lag = max(lag, now.Sub(t.together.first().received))
	}
	t.far = lag > farBack || t.far && lag > caughtUpTo
	return t.far
}

// checkFirst has the first of this cluster's own events looked up that have waited for so
// long that other clusters may have taken them. It reports whether there are more of these,
// which later ones must not overtake.
func (t *Table) checkFirst(now time.Time) (more bool) {
	wait := max(t.delay, checkAgain)
	for t.together.Len() > 0 {
		e := t.together.first()
		if e.helps || now.Sub(e.received) <= wait || now.Sub(e.lookedUp) <= wait {
			return false
		}
		if t.checking >= checked {
			return true
		}
		t.together.take()
		e.checks = true
		t.checking++
		t.ask(e)
	}
	return false
}

// checkEnded notes that e is not looked up any more before it is sent.
func (t *Table) checkEnded(e *Entry) {
	if e.checks {
		e.checks, e.lookedUp = false, t.cfg.Now()
		t.checking--
	}
}

// CommitP99 returns within what time of their receipt 99 of 100 events that this cluster
// went first with were committed of late; 0 if there were none.
func (t *Table) CommitP99() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.commits.p99(t.cfg.Now())
}

// noteCommit notes the time from the receipt of an entry that was finished at its first
// attempt, and did not wait in a backlog: that is looked up.
func (t *Table) noteCommit(e *Entry, now time.Time) {
	if t.hedge.Share && e.attempts == 1 && !e.helps && e.lookups == 0 {
		t.commits.add(now, now.Sub(e.received))
	}
}

// latencies are durations of late, in buckets of which each is at most a quarter wider than
// the one before it.
type latencies struct {
	counts [128]float64
	halved time.Time
}

// halfLife is after what time a duration counts half.
const halfLife = 5 * time.Second

func (l *latencies) add(now time.Time, d time.Duration) {
	l.fade(now)
	l.counts[bucketOf(d)]++
}

// fade halves the counts when it is time.
func (l *latencies) fade(now time.Time) {
	if l.halved.IsZero() {
		l.halved = now
	}
	for ; now.Sub(l.halved) >= halfLife; l.halved = l.halved.Add(halfLife) {
		if now.Sub(l.halved) > 64*halfLife {
			*l = latencies{halved: now}
			return
		}
		for i := range l.counts {
			l.counts[i] /= 2
		}
	}
}

// p99 returns the upper bound of the bucket that 99 of 100 durations are in or below; 0 if
// there are hardly any.
func (l *latencies) p99(now time.Time) time.Duration {
	l.fade(now)
	all := 0.0
	for _, n := range l.counts {
		all += n
	}
	if all < 1 {
		return 0
	}
	above := 0.0
	for i := len(l.counts) - 1; i > 0; i-- {
		if above += l.counts[i]; above > all/100 {
			return boundOf(i)
		}
	}
	return boundOf(0)
}

// bucketOf returns the bucket of a duration: four for each power of two of microseconds.
func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 4))
	exponent := bits.Len64(us) - 1
	return min(4*(exponent-2)+int(us>>(exponent-2)&3), len(latencies{}.counts)-1)
}

// boundOf returns the upper bound of a bucket.
func boundOf(bucket int) time.Duration {
	return time.Duration(5+bucket&3) << (bucket / 4) * time.Microsecond
}
