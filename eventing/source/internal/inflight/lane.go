package inflight

import "slices"

// lane is the queue of the entries of one subject in one partition. Only the first of
// them, in the order of the stream, is delivered; once it is ready, it is the running
// one until it is finished.
type lane struct {
	subject string
	entries []*Entry // by sequence; some are finished
	running *Entry   // ready, being sent, or waiting for a retry; nil if none is
}

// join adds e to its lane, if it has a subject and order is kept.
func (p *Partition) join(e *Entry) {
	if p.lanes == nil || e.Subject == "" {
		return
	}
	l := p.lanes[e.Subject]
	if l == nil {
		l = &lane{subject: e.Subject}
		p.lanes[e.Subject] = l
	}
	e.lane = l
	at := len(l.entries)
	for at > 0 && l.entries[at-1].Sequence() > e.Sequence() {
		at--
	}
	l.entries = slices.Insert(l.entries, at, e)
}

// first returns the first entry that is not finished; nil if there is none.
func (l *lane) first() *Entry {
	for len(l.entries) > 0 && l.entries[0].state == Finished {
		l.entries[0] = nil
		l.entries = l.entries[1:]
	}
	if len(l.entries) == 0 {
		return nil
	}
	return l.entries[0]
}

// mayRun reports whether it is e's turn.
func (t *Table) mayRun(e *Entry) bool {
	l := e.lane
	switch {
	case l == nil || l.running == e: // it was its turn, and still is
		return true
	case !e.partition.complete || l.running != nil || l.first() != e || t.blocked == nil:
		return false
	}
	events := t.blocked[l.subject]
	_, itself := events[e.ID] // the stream does not know that it is dead
	return itself || e.partition == t.deferredPart || len(events) == 0 && (t.behind[l.subject] == 0 || e.partition == t.storedPart)
}

// advance lets the first entry of a lane run if it is its turn.
func (t *Table) advance(p *Partition, l *lane) {
	e := l.first()
	if e == nil {
		if l.running == nil {
			delete(p.lanes, l.subject)
		}
		return
	}
	if e.state != stateBlocked {
		return
	}
	if !t.mayRun(e) {
		t.considerStoring(p, l)
		return
	}
	switch {
	case t.hedge.Standby:
		t.waitHedged(e)
	case t.hedge.Share && !t.foreign(e):
		t.ready(e)
	case !t.hedge.Race():
		t.ask(e) // it may have been committed meanwhile
	default:
		t.ready(e)
	}
	t.signal()
}

// advanceAll lets the first entry of every lane run if it is its turn.
func (t *Table) advanceAll() {
	for _, p := range t.partitions {
		for _, l := range p.lanes {
			t.advance(p, l)
		}
	}
}

// leave frees e's lane for the next entry.
func (t *Table) leave(e *Entry) {
	l, p := e.lane, e.partition
	if l == nil {
		return
	}
	if l.running == e {
		l.running = nil
	}
	if current := p.lanes[l.subject]; current == l {
		t.advance(p, l)
	}
	if p == t.storedPart && t.behind[l.subject] > 0 {
		notify(t.toDeliver)
	}
}

// Complete reports that no message that the stream delivered before is still on its
// way.
func (p *Partition) Complete() {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.complete {
		return
	}
	p.complete = true
	for _, l := range p.lanes {
		t.advance(p, l)
	}
}

// Opened reports that the partition was opened: until [Partition.Complete], no message
// with a subject is delivered that was not running already.
func (p *Partition) Opened() {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	p.complete = p.lanes == nil
}

// Incomplete reports whether messages that were delivered before may still be on their
// way.
func (p *Partition) Incomplete() bool {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return !p.complete
}
