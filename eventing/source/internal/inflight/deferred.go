package inflight

import (
	"slices"
	"time"
)

// deferral is the state of a [Table] for events that are deferred: stored in the database and
// acknowledged, until the deployment changes.
type deferral struct {
	toDefer      []*Entry
	deferReady   chan struct{} // holds a token when there is an entry to defer
	deferredPart *Partition    // of the deferred events that run; nil if none are deferred
}

// DeferredPartition returns the partition that receives deferred events when they run; nil if
// none are deferred. They are failing events: they are sent alone, within the budget.
func (t *Table) DeferredPartition() *Partition { return t.deferredPart }

// DeferReady returns a channel that has a token when [Table.NextToDefer] may return entries.
func (t *Table) DeferReady() <-chan struct{} { return t.deferReady }

// deferEntry queues e for deferring.
func (t *Table) deferEntry(e *Entry) {
	e.failing = true
	e.to(stateDeferring)
	t.toDefer = append(t.toDefer, e)
	notify(t.deferReady)
}

// NextToDefer returns up to n entries to defer. [Table.Deferred] reports the result.
func (t *Table) NextToDefer(n int) (entries []*Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	n = min(n, len(t.toDefer))
	entries = slices.Clone(t.toDefer[:n])
	t.toDefer = slices.Delete(t.toDefer, 0, n)
	for _, e := range entries {
		e.to(stateStoring)
	}
	return entries
}

// Deferred reports which entries are done: deferred, committed or deleted from the stream.
// The others are sent again after a time. It returns the entries to acknowledge.
func (t *Table) Deferred(entries []*Entry, done []bool, after time.Duration) (finished []*Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	for i, e := range entries {
		switch {
		case e.stale():
			e.to(Finished)
			t.leave(e)
		case done[i]:
			e.partition.finish(e)
			finished = append(finished, e)
			t.leave(e)
		default:
			t.retryAt(e, now.Add(after))
		}
	}
	t.signal()
	return finished
}

// lacks reports whether e failed because the deployment lacks something, and is not being
// attempted.
func (t *Table) lacks(e *Entry) bool {
	return e.Delivery.Lack.Fingerprint != "" && !e.Delivery.DeadLetter && !e.suspect && e.partition != t.deferredPart
}

// CountLacking returns how many entries wait because the deployment lacks something for them,
// or for the probe of their type, and how many entries a partition may have.
func (t *Table) CountLacking() (n, most int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range []*entryQueue{&t.waiting, &t.again} {
		for e := range h.all() {
			if t.lacks(e) {
				n++
			}
		}
	}
	for _, c := range t.probed {
		if c.lacking {
			n += c.held.Len()
		}
	}
	return n, t.maxEntries()
}

// DeferLacking defers all entries that wait because the deployment lacks something for them, and
// that may be deferred, the oldest first. May must not call the table.
func (t *Table) DeferLacking(may func(*Entry) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	var found []*Entry
	keep := func(e *Entry) bool {
		if !t.lacks(e) || !may(e) {
			return true
		}
		found = append(found, e)
		return false
	}
	t.waiting.rebuild(func(e *Entry) bool { return !e.retry || keep(e) })
	t.again.rebuild(keep)
	for _, c := range t.probed {
		c.held.rebuild(keep)
	}
	slices.SortFunc(found, func(a, b *Entry) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for _, e := range found {
		t.deferEntry(e)
	}
	t.signal()
}
