package inflight

import "slices"

const (
	// Up to maxStored events, of maxStoredBytes together, are stored behind dead letters.
	// Later ones wait in the stream.
	maxStored      = 100_000
	maxStoredBytes = 1 << 30
)

// stored is the state of a [Table] for the events that are stored behind dead letters, so
// that the stream need not wait for these.
type stored struct {
	behind      map[string]int // stored events, by subject
	storedCount int            // of all of them
	storedBytes int            // of their payload
	toStore     map[*lane]bool // that may have entries to store
	storeReady  chan struct{}  // holds a token when there may be entries to store
	toDeliver   chan struct{}  // holds a token when stored events may be delivered
	storedPart  *Partition     // of the stored events to deliver; nil if order is not kept
}

// StoredPartition returns the partition that receives stored events when they are to be
// delivered; nil if order is not kept.
func (t *Table) StoredPartition() *Partition { return t.storedPart }

// SetStored sets how many events of how many bytes are stored, by subject. It is called
// once, before [Table.Block].
func (t *Table) SetStored(events map[string]int, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for subject, n := range events {
		t.behind[subject] = n
		t.storedCount += n
	}
	t.storedBytes = bytes
	notify(t.toDeliver)
}

// CountStored returns how many events are stored, and whether the limit is reached.
func (t *Table) CountStored() (n int, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.storedCount, t.storedFull()
}

func (t *Table) storedFull() bool {
	return t.storedCount >= maxStored || t.storedBytes >= maxStoredBytes
}

// StoreReady returns a channel that has a token when [Table.NextToStore] may return
// entries.
func (t *Table) StoreReady() <-chan struct{} { return t.storeReady }

// mustStore reports whether the events of l are stored.
func (t *Table) mustStore(p *Partition, l *lane) bool {
	return t.storedPart != nil && p != t.storedPart && p != t.deferredPart && p.complete && t.blocked != nil && (len(t.blocked[l.subject]) > 0 || t.behind[l.subject] > 0)
}

// considerStoring queues the blocked entries of l for storing, if they are behind a dead
// letter.
func (t *Table) considerStoring(p *Partition, l *lane) {
	if t.mustStore(p, l) {
		t.toStore[l] = true
		notify(t.storeReady)
	}
}

// NextToStore returns up to n entries to store, those of one subject in the order of the
// stream. [Table.Stored] reports the result.
func (t *Table) NextToStore(n int) (entries []*Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.storedFull() {
		return nil
	}
	for l := range t.toStore {
		if len(entries) >= n {
			notify(t.storeReady)
			break
		}
		delete(t.toStore, l)
		first := l.first()
		if first == nil || l.running != nil || first.partition.lanes[l.subject] != l || !t.mustStore(first.partition, l) {
			continue
		}
		for _, e := range l.entries {
			if e.state == Finished {
				continue
			}
			if _, dead := t.blocked[l.subject][e.ID]; dead || e.state != stateBlocked {
				break
			}
			if len(entries) >= n {
				t.toStore[l] = true
				break
			}
			e.to(stateStoring)
			entries = append(entries, e)
		}
	}
	return entries
}

// Stored reports which entries were just stored, and the size of each in bytes. Now is nil if
// the result is unknown, and bytes is nil too if none was stored. It returns the entries to
// acknowledge.
//
// Entries that may be stored count as stored. If fewer are stored, delivering them shows it
// ([Table.NoneStored]); an entry that is stored and not counted would never be delivered.
func (t *Table) Stored(entries []*Entry, now []bool, bytes []int) (finished []*Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, e := range entries {
		if bytes != nil && !e.mayBeStored && (now == nil || now[i]) {
			t.behind[e.Subject]++
			t.storedCount++
			t.storedBytes += bytes[i]
		}
		e.mayBeStored = e.mayBeStored || bytes != nil
		switch {
		case e.stale():
			e.to(Finished)
		case now == nil:
			e.to(stateBlocked)
		default:
			e.partition.finish(e)
			finished = append(finished, e)
		}
	}
	for _, e := range entries {
		t.leave(e) // even if it stays: its subject may no longer be blocked
	}
	notify(t.toDeliver)
	return finished
}

// ToDeliver returns a channel that has a token when [Table.Unblocked] may return
// subjects.
func (t *Table) ToDeliver() <-chan struct{} { return t.toDeliver }

// Unblocked returns up to n subjects of which events are stored and may be delivered, while
// none is in flight, with the number of these events.
func (t *Table) Unblocked(n int) (subjects map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.blocked == nil || t.closed {
		return nil
	}
	subjects = map[string]int{}
	for subject, events := range t.behind {
		if len(t.blocked[subject]) > 0 || t.storedPart.lanes[subject] != nil {
			continue
		}
		if len(subjects) == n {
			notify(t.toDeliver)
			break
		}
		subjects[subject] = events
	}
	return subjects
}

// NoneStored reports that no stored events were found of a subject that
// [Table.Unblocked] returned when the given number of its events was stored: a failover
// of the database may have lost them, and then their stream is read again.
func (t *Table) NoneStored(subject string, events int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.behind[subject] != events || t.storedPart.lanes[subject] != nil {
		return
	}
	for _, p := range t.partitions {
		if l := p.lanes[subject]; l != nil && l.storing() {
			return
		}
	}
	t.storedCount -= events
	t.noneBehind(subject)
}

// unstored forgets a stored event, which is finished. New events of its subject are
// delivered after the last stored one.
func (t *Table) unstored(e *Entry) {
	t.storedBytes -= e.Message.Size()
	t.storedCount--
	if t.behind[e.Subject]--; t.behind[e.Subject] <= 0 {
		t.noneBehind(e.Subject)
	}
}

// noneBehind lets new events of a subject run, of which no events are stored any more.
func (t *Table) noneBehind(subject string) {
	if delete(t.behind, subject); t.storedCount == 0 {
		t.storedBytes = 0 // lost ones included
	}
	for _, p := range t.partitions {
		if l := p.lanes[subject]; l != nil && p != t.storedPart {
			for _, e := range l.entries {
				e.mayBeStored = false
			}
			t.advance(p, l)
		}
	}
}

// storing reports whether an entry of l is being stored.
func (l *lane) storing() bool {
	return slices.ContainsFunc(l.entries, func(e *Entry) bool { return e.state == stateStoring })
}
