package inflight

import (
	"slices"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
)

// maxUnconfirmed bounds the acknowledgements of a partition that are remembered until
// the floor has passed them.
const maxUnconfirmed = 1 << 16

// Partition is the part of a [Table] for one partition of a stream. [Partition.Abandon]
// resets it: messages received before are not acknowledged any more.
type Partition struct {
	// Owner belongs to the caller, who sets it before the first Receive.
	Owner any

	table *Table

	telling    sync.RWMutex // held for reading during a call to the stream
	generation int          // changes under telling and the table's lock

	// The rest is guarded by the table's lock.
	entries     entrySet      // unfinished
	finished    sequenceSet   // above the floor
	unconfirmed []unconfirmed // in the order of their acknowledgement
	bytes       int
	evictedAt   time.Time
	counts      [Finished]int    // entries, by their state
	lanes       map[string]*lane // nil if no order is kept
	complete    bool             // no message that was delivered before is on its way
	freed       chan struct{}    // holds a token after an entry is finished or evicted

	lookUpBelow uint64 // messages below it are looked up, whatever the hedge
	lagging     bool
	lag         time.Duration // while lagging
}

// unconfirmed is an acknowledgement that may be lost.
type unconfirmed struct {
	sequence uint64
	message  eventing.Message // without payload
	at       time.Time
}

// Received is the result of [Partition.Receive].
type Received uint8

const (
	// Added means that the message is now in flight.
	Added Received = iota
	// Known means that it was in flight already.
	Known
	// Copy means that it is already acknowledged; acknowledge it again.
	Copy
)

// Receive adds a message, with its delivery, identity and subject.
func (p *Partition) Receive(m eventing.Message, d *delivery.Delivery, id EventID, subject string) Received {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	sequence := m.Sequence()
	if known := p.entries.get(sequence); known != nil {
		return Known
	}
	if p.finished.has(sequence) {
		return Copy
	}
	now, size := t.cfg.Now(), m.Size()
	e := &Entry{
		Message: m, Delivery: d, ID: id, Subject: subject, partition: p, generation: p.generation, sequence: sequence,
		size: size + entryOverhead, payload: size + memberOverhead, received: now, heartbeatAt: now, suspect: d.Strikes > 0,
		failing: p == t.deferredPart,
	}
	t.joinCircuit(e)
	p.entries.add(e)
	p.bytes += e.size
	p.join(e)
	age := now.Sub(m.Arrived())
	t.setLagging(p, p.lags(age, m.Pending()))
	if p.lag = age; !p.lagging {
		p.lag = 0 // the clocks differ, or almost nothing is behind it
	}
	t.admit(e)
	return Added
}

// Abandon invalidates the messages of the partition: their stream was deleted, or its
// position was rewound. Another message may have the same sequence, which an
// acknowledgement of one of these would hit. It returns after the last call to the
// stream about them.
func (p *Partition) Abandon() {
	p.telling.Lock()
	defer p.telling.Unlock()
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := range p.entries.all() {
		t.decided(e, false)
		t.leaveCircuit(e)
		t.helped(e)
		t.checkEnded(e)
	}
	p.generation++
	p.entries, p.finished, p.unconfirmed, p.bytes = entrySet{}, sequenceSet{}, nil, 0
	p.complete, p.lookUpBelow, p.counts = p.lanes == nil, 0, [Finished]int{}
	current := func(e *Entry) bool { return !e.stale() }
	t.waiting.rebuild(current)
	for _, h := range t.sendable() {
		h.rebuild(current)
	}
	t.lookups.rebuild(func(e *Entry) bool {
		if e.stale() && e.wasLeft {
			t.leftAsked--
		}
		return current(e)
	})
	t.left.keepOnly(current)
	t.toDefer = keepOnly(t.toDefer, current)
	for subject, l := range p.lanes {
		l.entries = keepOnly(l.entries, current)
		if l.running != nil && l.running.state != stateSending { // otherwise it may still commit
			l.running = nil
		}
		if l.running == nil {
			delete(p.lanes, subject)
		}
	}
	p.free()
	t.signal()
}

// stale reports whether e's partition was abandoned since. It is called with the
// table's lock held.
func (e *Entry) stale() bool { return e.generation != e.partition.generation }

// Tell calls verb, which tells the stream something about e, unless e's partition was
// abandoned.
func (e *Entry) Tell(verb func() error) error {
	e.partition.telling.RLock()
	defer e.partition.telling.RUnlock()
	if e.stale() {
		return nil
	}
	return verb()
}

// Abandoned reports whether e's partition was abandoned since.
func (e *Entry) Abandoned() bool {
	e.partition.telling.RLock()
	defer e.partition.telling.RUnlock()
	return e.stale()
}

// free notifies the caller that waits for room.
func (p *Partition) free() { notify(p.freed) }

// forget removes e, which is no longer in flight.
func (p *Partition) forget(e *Entry) {
	e.to(Finished)
	p.entries.remove(e.sequence)
	p.bytes -= e.size
}

// finish moves e to the finished entries.
func (p *Partition) finish(e *Entry) {
	p.forget(e)
	if p == p.table.deferredPart { // its owner knows when the event is deleted
		return
	}
	p.finished.add(e.sequence)
	if p == p.table.storedPart {
		p.table.unstored(e)
		p.free()
		return
	}
	if len(p.unconfirmed) >= maxUnconfirmed {
		p.unconfirmed = slices.Delete(p.unconfirmed, 0, maxUnconfirmed/2) // these are redelivered when they are due
	}
	p.unconfirmed = append(p.unconfirmed, unconfirmed{e.sequence, e.Message.WithoutPayload(), p.table.cfg.Now()})
	p.free()
}

// Confirm forgets the finished messages below the stream's floor. If again is set, it
// calls ack for messages whose acknowledgement was sent before a time and has not
// arrived, because the stream waits for nothing else, and returns their number.
func (p *Partition) Confirm(floor uint64, again bool, before time.Time, ack func(eventing.Message)) int {
	p.telling.RLock()
	defer p.telling.RUnlock()
	lost := p.confirm(floor, again, before)
	for _, m := range lost {
		ack(m)
	}
	return len(lost)
}

func (p *Partition) confirm(floor uint64, again bool, before time.Time) (lost []eventing.Message) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.finished.dropBelow(floor)
	p.unconfirmed = slices.DeleteFunc(p.unconfirmed, func(u unconfirmed) bool { return u.sequence < floor })
	if !again {
		return nil
	}
	lowest := ^uint64(0) // the lowest unfinished sequence
	for e := range p.entries.all() {
		lowest = min(lowest, e.sequence)
	}
	for _, u := range p.unconfirmed {
		if u.sequence < lowest && u.at.Before(before) {
			lost = append(lost, u.message)
		}
	}
	return lost
}

// Has reports whether the message at a sequence is in flight, and how many are.
func (p *Partition) Has(sequence uint64) (has bool, inFlight int) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return p.entries.get(sequence) != nil, p.entries.len()
}

// Knows reports whether the message at a sequence is in flight, or finished and not confirmed.
func (p *Partition) Knows(sequence uint64) bool {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return p.entries.get(sequence) != nil || p.finished.has(sequence)
}

// LookUpBelow makes messages below a sequence be looked up before they are delivered,
// whatever the hedge: some may be committed.
func (p *Partition) LookUpBelow(sequence uint64) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.lookUpBelow = sequence
}

// Heartbeat calls tell with the messages without a heartbeat since a time, and records one
// now.
func (p *Partition) Heartbeat(since, now time.Time, tell func(eventing.Message)) {
	p.telling.RLock()
	defer p.telling.RUnlock()
	for _, m := range p.overdue(since, now) {
		tell(m)
	}
}

func (p *Partition) overdue(since, now time.Time) (due []eventing.Message) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	for e := range p.entries.all() {
		if !e.heartbeatAt.After(since) {
			e.heartbeatAt = now
			due = append(due, e.Message)
		}
	}
	return due
}

// Oldest returns how many messages are in flight, and the time since the arrival in the
// stream of the oldest, by the stream's clock and this one; 0 if there is none.
func (p *Partition) Oldest(now time.Time) (messages int, age time.Duration) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	for e := range p.entries.all() {
		age = max(age, now.Sub(e.Message.Arrived()))
	}
	return p.entries.len(), age
}
