package inflight

import (
	"math/bits"
	"time"
)

const (
	// lookupGrid is the interval at which events of other clusters' shares become due, so
	// that one lookup has many of them.
	lookupGrid = 10 * time.Millisecond

	// sharePatience is how long events of other clusters' shares may make no progress,
	// while there is no idle capacity for them. A dead cluster leaves the view after 3
	// to 4 s.
	sharePatience = time.Second

	// leastHelp is how many events of other clusters' shares may be in requests at
	// once, if fewer of this cluster's own are.
	leastHelp = 16

	// While the requests of this cluster's own events take longer than twice the quickest
	// recent one and helpSlack, the function is busy with them. The quickest is that of the
	// last one or two quickWindow.
	helpSlack   = 5 * time.Millisecond
	quickWindow = 10 * time.Second

	// checked is how many of this cluster's own events are looked up at once before they
	// are sent, because they have waited so long that other clusters may have taken
	// them: for the delay, and at least for checkAgain.
	checked    = 256
	checkAgain = 50 * time.Millisecond

	// A cluster whose lag is more than farBack lets others go first, until its lag is below
	// caughtUpTo.
	farBack    = 10 * time.Second
	caughtUpTo = time.Second
)

// sharing is the state of a [Table] while the clusters share the events.
//
// # Design
//
// An event of another cluster's share waits for the delay, is looked up together with all
// events that are due then, and is left to that cluster if it is not committed. It is taken
// when none of this cluster's own events wait, and while no more of them than of its own are
// in requests: both kinds have about the same capacity, so that the events of a dead cluster
// are processed, and those of one that only stalls do not displace this cluster's own. A
// delay alone would not be enough: after a stall both clusters would compute everything,
// have no time for their own events, and not recover.
//
// Two clusters that both have a backlog must not compute the same part of it. So the last of
// the events that were left are taken first, which the other cluster has not reached, unless
// order is kept; and own events are looked up again if they had to wait for longer than the
// delay.
//
// A cluster that lags a little stays a member. Without it the others would have to do all
// the work, which they cannot if there is little spare capacity; then they lag, and it does
// not, and so on. They take its events as they have capacity.
type sharing struct {
	began         time.Time
	delay         time.Duration // of events of other clusters' shares
	helping       int           // entries taken from other clusters and not answered yet
	sentForOthers int           // events of other clusters that were sent so far
	checking      int           // own entries that are looked up before they are sent
	far           bool          // lags by more than farBack, and has not caught up since
	commits       latencies
	quick         quickest // of recent requests
}

// foreign reports whether another cluster goes first with e, whatever happened to it
// here.
func (t *Table) foreign(e *Entry) bool { return !e.mine && !t.goesFirst(e) }

// SetShareDelay sets how long events of other clusters' shares wait.
func (t *Table) SetShareDelay(delay time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.delay = delay
}

// dueShared returns when an event of another cluster's share is looked up.
func (t *Table) dueShared(e *Entry) time.Time {
	since := e.received.Add(t.delay).Sub(t.began) + lookupGrid - 1
	return t.began.Add(since - since%lookupGrid)
}

// takeShare immediately looks up the events that wait for another cluster if this cluster
// now goes first with them.
func (t *Table) takeShare() {
	t.waiting.rebuild(func(e *Entry) bool {
		if !e.hedged || !t.goesFirst(e) {
			return true
		}
		t.ask(e)
		return false
	})
}

// notCommittedElsewhere decides what happens to an uncommitted entry of another
// cluster's share. It reports whether the caller has to leave it to the other cluster
// again.
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

// help records that e is taken from another cluster.
func (t *Table) help(e *Entry) {
	if !e.helps {
		e.helps = true
		t.helping++
	}
}

// helped records that e is no longer taken from another cluster.
func (t *Table) helped(e *Entry) {
	if e.helps {
		e.helps = false
		t.helping--
	}
}

// Helped returns how many events of other clusters' shares were sent so far.
func (t *Table) Helped() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sentForOthers
}

// idle returns for how many more events of other clusters this one has capacity. While the
// function is unavailable, that is one, which finds out whether it answers again.
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

// quickest is the minimum of recent durations.
type quickest struct {
	now, before time.Duration // 0 means none
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

// least returns the minimum of the durations of this window and the previous one.
func (q *quickest) least() time.Duration {
	if q.before == 0 {
		return q.now
	}
	return min(q.now, q.before)
}

// patience returns how long other clusters may make no progress with the events that were
// left to them.
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

// checkFirst looks up the first of this cluster's own events that have waited so long that
// other clusters may have taken them. It reports whether there are more of these, which
// later ones must not overtake.
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

// checkEnded records that e is no longer looked up before it is sent.
func (t *Table) checkEnded(e *Entry) {
	if e.checks {
		e.checks, e.lookedUp = false, t.cfg.Now()
		t.checking--
	}
}

// CommitP99 returns the time from receipt to commit within which 99 of 100 recent events
// of this cluster's share were committed; 0 if there were none.
func (t *Table) CommitP99() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.commits.p99(t.cfg.Now())
}

// noteCommit records the time from the receipt of an entry that was finished at its
// first attempt, and did not wait in a backlog: backlogs are looked up.
func (t *Table) noteCommit(e *Entry, now time.Time) {
	if t.hedge.Share && e.attempts == 1 && !e.helps && e.lookups == 0 {
		t.commits.add(now, now.Sub(e.received))
	}
}

// latencies are recent durations, in buckets of which each is at most a quarter wider than
// the previous one.
type latencies struct {
	counts [128]float64
	halved time.Time
}

// halfLife is the time after which the weight of a duration is halved.
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

// p99 returns the upper bound of the bucket within which 99 of 100 durations are; 0 if
// there are too few.
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
