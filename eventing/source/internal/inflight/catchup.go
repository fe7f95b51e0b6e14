package inflight

import (
	"slices"
	"sync"
	"time"
)

const (
	// caughtUp divides the lag at which catching up begins: below the quotient it ends.
	caughtUp = 4

	// blockSize is the number of positions in a block.
	blockSize = 256

	// relookEvery is the time between lookups of entries in blocks that were left to
	// other clusters, relook entries at a time. After a lookup that found most of them
	// committed, the next one follows immediately.
	relookEvery = 50 * time.Millisecond
	relook      = 512

	// While less than one of rarely first lookups finds a commit, only one of sampled
	// blocks is looked up before it is delivered or left.
	rarely  = 16
	sampled = 8

	// leftPatience is how long entries left to other clusters may make no progress, if a
	// request does not take longer: about the claim timeout, after which a dead cluster
	// blocks nothing.
	leftPatience = 250 * time.Millisecond
)

// catchUp is the state of a [Table] for lookups and for its share of a backlog.
type catchUp struct {
	lookups     fifo // to be looked up
	asking      int  // entries that are being looked up
	failing     bool // the latest lookup failed
	lookupReady sync.Cond
	committed   float64 // recent share of committed entries in first lookups

	lagging   bool          // a partition lags
	changed   chan struct{} // holds a token when lagging has changed
	left      serviceList   // to other clusters
	leftAsked int           // of these, entries that are being looked up
	leftMoved time.Time     // when other clusters last committed some
	relooked  time.Time
	prefers   func(e *Entry) bool // reports whether this cluster goes first with an event; nil for all
}

// SetPreference sets the events that this cluster goes first with while it catches up,
// or shares; nil means all. The function is called with the table's lock held.
func (t *Table) SetPreference(prefers func(e *Entry) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prefers = prefers
	t.divide()
	t.signal()
}

// divide takes the events that this cluster now goes first with, and leaves the others.
func (t *Table) divide() {
	t.takeBack(t.goesFirst)
	t.together.rebuild(func(e *Entry) bool {
		if t.leaves(e) {
			t.leaveToOthers(e)
			return false
		}
		return true
	})
	if t.hedge.Share {
		t.takeShare()
	}
}

// Block returns the block of positions that e is in. Clusters that catch up divide the
// blocks between them.
func (e *Entry) Block() uint64 { return e.sequence / blockSize }

// leaves reports whether e is left to another cluster, which goes first with it.
func (t *Table) leaves(e *Entry) bool {
	switch {
	case e.mine || e.attempts > 0 || e.Delivery.DeadLetter || t.goesFirst(e):
		return false
	case t.hedge.Share:
		return true
	default:
		return e.partition.lagging && t.hedge.Race() && e.lane == nil
	}
}

// leaveToOthers leaves e to another cluster.
func (t *Table) leaveToOthers(e *Entry) {
	if e.lane != nil && e.lane.running == e {
		e.lane.running = nil
	}
	e.to(stateLeft)
	if t.left.len() == 0 {
		t.leftMoved = t.cfg.Now()
		t.signal() // the dispatcher has to watch entries left to others from now on
	}
	t.left.add(e)
}

// leaveAgain leaves entries again to the other cluster, which has not committed them
// yet.
func (t *Table) leaveAgain(entries []*Entry) {
	for _, e := range entries {
		e.to(stateLeft)
	}
	t.left.addFirst(entries)
}

// needless reports whether a lookup of e would probably not find it committed.
func (t *Table) needless(e *Entry) bool {
	return t.committed < 1.0/rarely && !t.failing && e.Block()%sampled != 0
}

// goesFirst reports whether this cluster goes first with e.
func (t *Table) goesFirst(e *Entry) bool {
	return t.prefers == nil || t.prefers(e)
}

// takeBack looks up entries that were left to other clusters, and delivers them if they
// are not committed.
func (t *Table) takeBack(which func(*Entry) bool) {
	t.left.keepOnly(func(e *Entry) bool {
		if !which(e) {
			return true
		}
		e.mine = true
		t.ask(e)
		return false
	})
}

// LagChanged returns a channel that has a token when [Table.Lagging] has changed.
func (t *Table) LagChanged() <-chan struct{} { return t.changed }

// Lagging reports whether this cluster catches up.
func (t *Table) Lagging() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lagging
}

// lags reports whether a message of p of this age, with this many messages behind it, is
// part of a backlog.
func (p *Partition) lags(age time.Duration, pending uint64) bool {
	lag := p.table.cfg.CatchUpLag
	if p.lagging {
		return age > lag/caughtUp
	}
	return lag > 0 && age > lag && pending >= uint64(min(blockSize, p.table.cfg.InFlight))
}

// setLagging sets whether p lags. When it does not any more, entries left to other
// clusters are taken back.
func (t *Table) setLagging(p *Partition, lagging bool) {
	if p.lagging == lagging {
		return
	}
	p.lagging = lagging
	if now := slices.ContainsFunc(t.partitions, func(p *Partition) bool { return p.lagging }); now != t.lagging {
		t.lagging = now
		notify(t.changed)
	}
	if !lagging {
		t.takeBack(func(e *Entry) bool { return e.partition == p })
	}
}

// ask queues e for a lookup.
func (t *Table) ask(e *Entry) {
	e.to(stateAsking)
	e.taken = false
	t.lookups.push(e)
	t.lookupReady.Signal()
}

// NextLookup waits for entries to look up and returns up to n of them, in order; nil
// after [Table.Close]. While lookups fail, only one is under way.
func (t *Table) NextLookup(n int) []*Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.closed && (t.lookups.len() == 0 || t.failing && t.asking > 0) {
		t.lookupReady.Wait()
	}
	if t.closed {
		return nil
	}
	entries := t.lookups.take(n)
	for _, e := range entries {
		e.taken = true
	}
	t.asking += len(entries)
	return entries
}

// LookedUp reports which entries the ledger has, and returns these; the caller
// acknowledges them. If committed is nil, the lookup failed: some entries are delivered
// anyway, and the rest is looked up again, to protect the database from the load of all
// at once.
func (t *Table) LookedUp(entries []*Entry, committed []bool) (finished []*Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asking -= len(entries)
	t.failing = committed == nil
	if committed != nil {
		t.noteCommitted(entries, committed)
	} else {
		t.leftMoved = t.cfg.Now() // the progress of the other clusters is unknown
	}
	unsure, foundLeft := 0, 0
	var again, leftAgain []*Entry
	for i, e := range entries {
		wasLeft := e.wasLeft
		if wasLeft {
			e.wasLeft = false
			t.leftAsked--
			if committed != nil && committed[i] {
				t.leftMoved = t.cfg.Now()
				foundLeft++
			}
		}
		switch {
		case e.stale():
			e.to(Finished)
			t.leave(e)
		case committed != nil && committed[i]:
			e.partition.finish(e)
			t.leave(e)
			finished = append(finished, e)
		case committed == nil && !t.hedge.Standby && (t.hedge.Share && (e.helps || t.foreign(e)) || unsure >= max(1, t.cfg.InFlight/4)):
			again = append(again, e)
		default:
			unsure++
			if t.notCommitted(e, wasLeft) {
				leftAgain = append(leftAgain, e)
			}
		}
	}
	t.leaveAgain(leftAgain)
	if foundLeft > len(entries)/2 {
		t.relooked = time.Time{} // the other clusters have advanced
	}
	if len(again) > 0 {
		for _, e := range again {
			e.taken = false
		}
		t.lookups.pushFront(again)
	}
	t.lookupReady.Broadcast()
	t.signal()
	return finished
}

// noteCommitted records the share of committed entries among those that were looked up
// first.
func (t *Table) noteCommitted(entries []*Entry, committed []bool) {
	var first, found float64
	for i, e := range entries {
		if e.lookups > 0 || e.wasLeft {
			continue
		}
		first++
		if committed[i] {
			found++
		}
	}
	if first > 0 {
		t.committed += (found/first - t.committed) * min(1, first/blockSize)
	}
}

// notCommitted decides what happens to an uncommitted entry. It reports whether the
// caller has to leave it to the other cluster again.
func (t *Table) notCommitted(e *Entry, wasLeft bool) (leftAgain bool) {
	e.lookups++
	early := e.early
	e.early = false
	switch {
	case t.hedge.Standby:
		e.received = t.cfg.Now() // for the next lookup
		t.waitHedged(e)
	case early && t.cfg.Now().Before(t.dueHedged(e)):
		t.waitHedged(e)
	case t.hedge.Share && t.leaves(e):
		return t.notCommittedElsewhere(e, wasLeft)
	case t.leaves(e) && wasLeft:
		return true
	case t.leaves(e):
		t.leaveToOthers(e)
	default:
		t.ready(e)
	}
	return false
}

// takeLeft takes some of the entries that were left to other clusters: to deliver them,
// if there is little else to do, from the far end, which the others have not reached;
// and to find those that the others have committed. If the others make no progress, it
// takes the entries back from the head on. It returns the time after which to call it
// again; 0 if it need not be.
func (t *Table) takeLeft() (again time.Duration) {
	left := t.left.len()
	if left == 0 || t.leftAsked > 0 {
		return 0 // LookedUp notifies
	}
	now := t.cfg.Now()
	if n := min(t.spare(), left); n > 0 {
		from := left - n
		if t.hedge.Share && t.cfg.Ordered {
			from = 0 // otherwise the last event of a subject would wait for the first
		}
		t.askLeft(from, from+n, true)
		return 0
	}
	if wait := relookEvery - now.Sub(t.relooked); wait > 0 {
		return wait
	}
	t.relooked = now
	if now.Sub(t.leftMoved) > max(t.patience(), 2*t.takes) {
		t.leftMoved = now
		t.askLeft(0, min(blockSize, left), true)
		return 0
	}
	t.askLeft(0, min(relook, left), false)
	return 0
}

// askLeft looks up a range of the entries that were left to other clusters, by their
// positions in the order of service. If mine is set, uncommitted ones are delivered.
func (t *Table) askLeft(from, to int, mine bool) {
	for _, e := range t.left.take(from, to) {
		e.mine = mine
		e.wasLeft = true
		if mine && t.hedge.Share {
			t.help(e)
		}
		t.ask(e)
	}
	t.leftAsked += to - from
}

// spare returns for how many of the entries left to other clusters this cluster has
// capacity. While the function is unavailable, it is one, which finds out whether the
// function answers again, if there is no other event to send.
func (t *Table) spare() int {
	if t.hedge.Share {
		return t.idle()
	}
	own := t.together.Len() + t.alone.Len() + t.slow.Len() + t.sending
	switch {
	case t.silent < silentRequests && own < max(1, t.cfg.InFlight/4):
		return blockSize
	case t.silent >= silentRequests && own+t.waiting.Len()+t.again.Len()+t.countHeld() == 0:
		return 1
	default:
		return 0
	}
}
