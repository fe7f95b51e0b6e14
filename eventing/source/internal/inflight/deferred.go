package inflight

import (
	"slices"
	"time"
)

// deferral is what a [Table] knows about the events that are deferred: stored in the database
// and acknowledged, until the deployment changes.
type deferral struct {
	toDefer      []*Entry
	deferReady   chan struct{} // holds a token when there is something to defer
	deferredPart *Partition    // of the deferred events that are run; nil if none are deferred
}

// DeferredPartition returns the partition that receives deferred events when they are run; nil
// if none are deferred. They are failing events: they are sent alone, within the budget.
func (t *Table) DeferredPartition() *Partition { return t.deferredPart }

// DeferReady returns a channel that has a token when [Table.NextToDefer] may return something.
func (t *Table) DeferReady() <-chan struct{} { return t.deferReady }

// deferEntry has e deferred.
func (t *Table) deferEntry(e *Entry) {
	e.failing = true
	e.to(stateDeferring)
	t.toDefer = append(t.toDefer, e)
	notify(t.deferReady)
}

// NextToDefer returns up to n entries that are to be deferred. [Table.Deferred] reports the
// result.
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

// Deferred reports which entries are done: deferred, committed or gone. The others are sent
// again after a time. It returns those that are to be acknowledged.
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

// lacks reports whether e failed, for want of something in the deployment, and is not tried
// right now.
func (t *Table) lacks(e *Entry) bool {
	return e.Delivery.Lack.Fingerprint != "" && !e.Delivery.DeadLetter && !e.suspect && e.partition != t.deferredPart
}

// CountLacking returns how many entries wait because something in the deployment is missing for
// them, or for the probe of their type, and how many entries a partition may have.
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

// DeferLacking has all entries deferred that wait because something in the deployment is missing
// for them, and that may be, the oldest first. May must not call the table.
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
