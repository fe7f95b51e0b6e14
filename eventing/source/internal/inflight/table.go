package inflight

import (
	"slices"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// standbyLookup is how long a cluster that stands by waits before it looks a
	// message up for the first time; standbyLookupCap bounds the time between two
	// lookups.
	standbyLookup    = time.Second
	standbyLookupCap = 30 * time.Second
)

// Config is the configuration of a [Table]. The functions are required.
type Config struct {
	// Now is the clock.
	Now func() time.Time

	// InFlight is the maximum number of events in requests.
	InFlight int

	// Rate is the maximum number of events delivered per second; 0 means no limit.
	Rate int

	// MaxBatch returns how many events, and how many bytes of them, one request may
	// currently have; 0 events means one, until the limit is known.
	MaxBatch func() (events, bytes int)

	// MaxBytes bounds the memory of all messages together.
	MaxBytes int

	// CatchUpLag is the age from which on a message is part of a backlog, whose
	// messages are looked up before they are delivered; 0 means never.
	CatchUpLag time.Duration

	// Ledger makes suspects be looked up before they are tried.
	Ledger bool

	// Lease makes each suspect be tried only with a lease ([Table.SetLease]). Needs Ledger.
	Lease bool

	// Ordered keeps the order of messages with the same subject in a partition.
	Ordered bool

	// Defers enables deferring events ([Defer]).
	Defers bool
}

// Table holds the messages of a source. Create it with [New]. It is safe for concurrent
// use.
type Table struct {
	cfg Config

	mu         sync.Mutex
	partitions []*Partition
	hedge      eventing.Hedge
	closed     bool
	wake       chan struct{} // holds a token when there may be work

	waiting entryQueue // by when they are due
	requests
	budget
	circuits
	suspects
	catchUp
	sharing

	stored
	deferral
	blocked     map[string]map[EventID]struct{} // by subject; nil until it is known
	blockedTurn []ledger.BlockedEvent           // those that Blocking has not returned yet in this round
}

// New returns a Table. Until [Table.SetHedge], it delivers nothing.
func New(cfg Config) *Table {
	t := &Table{cfg: cfg, hedge: eventing.Hedge{Standby: true}, wake: make(chan struct{}, 1)}
	t.began = cfg.Now()
	t.waiting.less = func(a, b *Entry) bool { return a.due.Before(b.due) }
	t.together.less = (*Entry).before
	t.alone.less = (*Entry).before
	t.slow.less = (*Entry).before
	t.again.less = func(a, b *Entry) bool { return a.due.Before(b.due) } // otherwise a few of the first could use the whole budget
	t.leaseWanted = make(chan struct{}, 1)
	t.queue.less = func(a, b *Entry) bool {
		if a.chosen != b.chosen {
			return a.chosen
		}
		if a.breaks != b.breaks {
			return a.breaks < b.breaks
		}
		if harm, other := a.typeHarm(), b.typeHarm(); harm != other {
			return harm < other
		}
		return a.due.Before(b.due)
	}
	t.types, t.deadLetters = map[string]*circuit{}, *newCircuit("")
	t.lookupReady.L, t.changed = &t.mu, make(chan struct{}, 1)
	t.committed = 1 // until the first lookup
	if cfg.Ordered {
		t.behind, t.toStore = map[string]int{}, map[*lane]bool{}
		t.storeReady, t.toDeliver = make(chan struct{}, 1), make(chan struct{}, 1)
		t.storedPart = t.AddPartition()
		t.storedPart.complete = true
	}
	t.deferReady = make(chan struct{}, 1)
	if cfg.Defers {
		t.deferredPart = t.AddPartition()
		t.deferredPart.complete = true
	}
	return t
}

// AddPartition returns a new partition.
func (t *Table) AddPartition() *Partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := &Partition{table: t, freed: make(chan struct{}, 1), complete: !t.cfg.Ordered}
	if t.cfg.Ordered {
		p.lanes = map[string]*lane{}
	}
	t.partitions = append(t.partitions, p)
	return p
}

// RemovePartition abandons a partition, which receives no more messages. Its entries that
// are being sent or looked up are still reported as usual, and then forgotten.
func (t *Table) RemovePartition(p *Partition) {
	p.Abandon()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLagging(p, false)
	t.partitions = slices.DeleteFunc(t.partitions, func(other *Partition) bool { return other == p })
	t.signal()
}

// Wake returns a channel that has a token when [Table.NextRequest] may return a request
// that it did not return before.
func (t *Table) Wake() <-chan struct{} { return t.wake }

func (t *Table) signal() { notify(t.wake) }

// notify puts a token in a channel that holds one.
func notify(channel chan<- struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}

// share returns the memory of one partition, in bytes.
func (t *Table) share() int { return t.cfg.MaxBytes / t.streams() }

// streams returns the number of partitions that are read from streams; at least 1.
func (t *Table) streams() int {
	n := len(t.partitions)
	for _, of := range []*Partition{t.storedPart, t.deferredPart} {
		if of != nil {
			n--
		}
	}
	return max(n, 1)
}

// admit decides what happens to a received message.
func (t *Table) admit(e *Entry) {
	leaves := t.leaves(e) // with share it needs a hash
	switch {
	case !t.hedge.Race() && (!t.hedge.Share || leaves && !e.partition.lagging):
		t.waitHedged(e)
	case e.Sequence() < e.partition.lookUpBelow, e.partition.lagging && !t.needless(e):
		t.ask(e)
	case leaves:
		t.leaveToOthers(e)
	default:
		t.ready(e)
	}
	// Behind another entry, it is found when that one is served.
	if t.waiting.leads(e) || t.together.leads(e) || t.alone.leads(e) || t.slow.leads(e) || t.again.leads(e) || t.queue.leads(e) || e.state == stateHeld && e.circuit.held.leads(e) {
		t.signal()
	}
}

// ready queues e for delivery.
func (t *Table) ready(e *Entry) {
	e.retry = false
	if !t.mayRun(e) {
		e.to(stateBlocked)
		t.considerStoring(e.partition, e.lane)
		return
	}
	if e.lane != nil {
		e.lane.running = e
	}
	if e.mayTry() {
		t.queueSuspect(e)
		return
	}
	if t.hold(e) {
		return
	}
	if e.failing || e.slow {
		e.to(stateDue)
		if e.failing {
			t.again.add(e)
		} else {
			t.slow.add(e)
		}
		return
	}
	e.to(stateReady)
	if !e.GoesTogether() {
		t.alone.add(e)
		return
	}
	t.together.add(e)
}

// waitHedged makes e wait according to the hedge.
func (t *Table) waitHedged(e *Entry) {
	e.to(stateWaiting)
	e.retry, e.hedged, e.due = false, true, t.dueHedged(e)
	t.waiting.add(e)
}

// dueHedged returns when a message without an attempt is looked up.
func (t *Table) dueHedged(e *Entry) time.Time {
	switch {
	case t.hedge.Share:
		return t.dueShared(e)
	case !t.hedge.Standby:
		return e.received.Add(t.hedge.Delay)
	}
	return e.received.Add(min(standbyLookup<<min(e.lookups, 10), standbyLookupCap))
}

// moveDue moves the entries that are due, and returns the time until the next one; idle
// if there is none.
func (t *Table) moveDue(idle time.Duration) time.Duration {
	now := t.cfg.Now()
	for t.waiting.Len() > 0 {
		e := t.waiting.first()
		if left := e.due.Sub(now); left > 0 {
			return min(left, idle)
		}
		t.waiting.take()
		if !e.Delivery.DeadLetter && (!e.retry || !t.hedge.Race()) {
			t.ask(e)
		} else {
			t.ready(e)
		}
	}
	return idle
}

// Hedge returns the hedge.
func (t *Table) Hedge() eventing.Hedge {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hedge
}

// SetHedge changes the hedge, including for messages that wait already.
func (t *Table) SetHedge(h eventing.Hedge) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hedge = h
	if h.Standby {
		t.holdReady()
	}
	if h.Race() || h.Share {
		t.takeBack(func(e *Entry) bool { return !t.leaves(e) })
	} else {
		for _, e := range t.left.entries {
			t.waitHedged(e)
		}
		t.left = serviceList{}
	}
	for e := range t.waiting.all() {
		if e.hedged {
			e.due = t.dueHedged(e)
		}
	}
	t.waiting.rebuild(func(*Entry) bool { return true })
	if h.Share {
		t.divide()
	}
	t.signal()
}

// holdReady makes ready and blocked entries wait for the next lookup instead, except
// dead letters.
func (t *Table) holdReady() {
	hold := func(e *Entry) bool {
		if e.Delivery.DeadLetter {
			return true
		}
		if e.lane != nil && e.lane.running == e {
			e.lane.running = nil
		}
		t.waitHedged(e)
		return false
	}
	for _, h := range t.sendable() {
		h.rebuild(hold)
	}
	for _, p := range t.partitions {
		for _, l := range p.lanes {
			for _, e := range l.entries {
				if e.state == stateBlocked {
					t.waitHedged(e)
				}
			}
		}
	}
}

// Close ends [Table.NextRequest] and [Table.NextLookup], and forgets and returns the entries that
// are in no request or lookup and are not being stored. Called again when these have ended, it
// returns the entries that they did not finish.
func (t *Table) Close() (left []*Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.lookupReady.Broadcast()
	t.signal()
	for _, p := range t.partitions {
		for e := range p.entries.all() {
			if e.state != stateSending && e.state != stateStoring && (e.state != stateAsking || !e.taken) {
				p.forget(e)
				left = append(left, e)
			}
		}
	}
	for _, h := range t.sendable() {
		h.clear()
	}
	t.waiting.clear()
	t.lookups, t.left, t.toDefer = fifo{}, serviceList{}, nil
	return left
}

// Counts returns how many entries are in each state.
func (t *Table) Counts() (counts [Finished]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.partitions {
		for state, n := range p.counts {
			counts[state] += n
		}
	}
	return counts
}
