package inflight

import (
	"slices"
	"sync"
	"time"
)

const (
	// caughtUp is the share of the lag at which catching up begins below which it ends.
	caughtUp = 4

	// blockSize is how many positions belong to one block.
	blockSize = 256

	// relookEvery is how often it is looked up what the others have committed of the
	// blocks that were left to them, relook entries at a time; at once after one that
	// found most of them.
	relookEvery = 50 * time.Millisecond
	relook      = 512

	// While less than a part in rarely of what is looked up first is committed, only one
	// block of sampled is looked up before it is delivered or left.
	rarely  = 16
	sampled = 8

	// leftPatience is how long what was left to others may make no progress, if a request
	// does not take longer: about the claim timeout, after which a cluster that died
	// holds nothing back any more.
	leftPatience = 250 * time.Millisecond
)

// catchUp is what a [Table] knows about lookups and about its share of a backlog.
type catchUp struct {
	lookups     fifo // to be looked up
	asking      int  // entries that are being looked up
	failing     bool // the latest lookup failed
	lookupReady sync.Cond
	committed   float64 // share of what was looked up first, of late

	lagging   bool          // a partition lags
	changed   chan struct{} // holds a token when that has changed
	left      serviceList   // to other clusters
	leftAsked int           // of these, that are being looked up
	leftMoved time.Time     // when others committed some last
	relooked  time.Time
	prefers   func(e *Entry) bool // whether this cluster goes first with an event; nil for all
}

// SetPreference sets which events this cluster goes first with while it catches up, or
// shares; nil for all. The function is called with the table's lock held.
func (t *Table) SetPreference(prefers func(e *Entry) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.prefers = prefers
	t.divide()
	t.signal()
}

// divide takes the events that this cluster goes first with now, and leaves the others.
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
		t.signal() // nothing has looked after them so far
	}
	t.left.add(e)
}

// leaveAgain leaves entries to the other cluster that has not committed them yet.
func (t *Table) leaveAgain(entries []*Entry) {
	for _, e := range entries {
		e.to(stateLeft)
	}
	t.left.addFirst(entries)
}

// needless reports whether a lookup of e would hardly find it committed.
func (t *Table) needless(e *Entry) bool {
	return t.committed < 1.0/rarely && !t.failing && e.Block()%sampled != 0
}

// goesFirst reports whether this cluster goes first with e.
func (t *Table) goesFirst(e *Entry) bool {
	return t.prefers == nil || t.prefers(e)
}

// takeBack has entries looked up that were left to others, and delivered if they are not
// committed.
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

// lags reports whether a message of p that is so old, and has so many behind it, is part
// of a backlog.
func (p *Partition) lags(age time.Duration, pending uint64) bool {
	lag := p.table.cfg.CatchUpLag
	if p.lagging {
		return age > lag/caughtUp
	}
	return lag > 0 && age > lag && pending >= uint64(min(blockSize, p.table.cfg.InFlight))
}

// setLagging notes whether p lags. What was left to other clusters is not any more when
// it does not.
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

// ask has e looked up.
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

// LookedUp reports which entries the ledger has, and returns these, which are to be
// acknowledged. Without an answer, when committed is nil, some are delivered all the
// same, and the rest is looked up again: the database must not get the load of all at
// once.
func (t *Table) LookedUp(entries []*Entry, committed []bool) (finished []*Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asking -= len(entries)
	t.failing = committed == nil
	if committed != nil {
		t.noteCommitted(entries, committed)
	} else {
		t.leftMoved = t.cfg.Now() // what the others do is not known
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
		t.relooked = time.Time{} // they are further
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

// noteCommitted notes which share of the entries that were looked up first is committed.
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

// notCommitted decides what to do with an entry that the ledger does not have. It reports
// whether the caller has to leave it to the other cluster again.
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

// takeLeft takes some of what was left to others: to deliver it, if there is little else
// to do, from the far end, where they are not yet; and to see what they have committed.
// What they make no progress with is not left to them any more, from the head on. It
// returns the time after which to call it again; 0 for no such time.
func (t *Table) takeLeft() (again time.Duration) {
	left := t.left.len()
	if left == 0 || t.leftAsked > 0 {
		return 0 // LookedUp signals
	}
	now := t.cfg.Now()
	if n := min(t.spare(), left); n > 0 {
		from := left - n
		if t.hedge.Share && t.cfg.Ordered {
			from = 0 // the last of a subject would wait for the first
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

// askLeft has a part of what was left to others, by its place in the order of service,
// looked up. If mine is set, what is not committed is delivered.
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

// spare returns how many of the entries that were left to others this cluster has capacity
// for. While the function is away, that is one, which finds out whether it answers again,
// if there is no other event to send.
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
