package inflight

import (
	"container/heap"
	"iter"
	"slices"
)

// entryQueue is a queue of entries ordered by less. Most are added in that order: they are in
// a list, and only the others are in a heap.
type entryQueue struct {
	run  []*Entry // in order
	head int      // of run
	rest entryHeap
	less func(a, b *Entry) bool
}

func (h *entryQueue) Len() int { return len(h.run) - h.head + len(h.rest.entries) }

func (h *entryQueue) add(e *Entry) {
	if h.head > len(h.run)/2 { // otherwise the list would grow for as long as it is not empty
		n := copy(h.run, h.run[h.head:])
		clear(h.run[n:])
		h.run, h.head = h.run[:n], 0
	}
	if n := len(h.run); n > h.head && h.less(e, h.run[n-1]) {
		h.rest.less = h.less
		heap.Push(&h.rest, e)
		return
	}
	h.run = append(h.run, e)
}

// runLeads reports whether the first entry is in the list.
func (h *entryQueue) runLeads() bool {
	return h.head < len(h.run) && (len(h.rest.entries) == 0 || !h.less(h.rest.entries[0], h.run[h.head]))
}

func (h *entryQueue) first() *Entry {
	if h.runLeads() {
		return h.run[h.head]
	}
	return h.rest.entries[0]
}

// leads reports whether e is the first entry.
func (h *entryQueue) leads(e *Entry) bool { return h.Len() > 0 && h.first() == e }

func (h *entryQueue) take() *Entry {
	if !h.runLeads() {
		e, _ := heap.Pop(&h.rest).(*Entry)
		return e
	}
	e := h.run[h.head]
	h.run[h.head] = nil
	h.head++
	return e
}

// all returns the entries, unordered.
func (h *entryQueue) all() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for _, list := range [][]*Entry{h.run[h.head:], h.rest.entries} {
			for _, e := range list {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// clear removes all entries.
func (h *entryQueue) clear() { h.run, h.head, h.rest.entries = nil, 0, nil }

// rebuild removes the entries for which keep is false and restores the order.
func (h *entryQueue) rebuild(keep func(*Entry) bool) {
	h.rest.entries = keepOnly(h.rest.entries, keep)
	var last *Entry
	h.run = keepOnly(h.run[h.head:], func(e *Entry) bool {
		if !keep(e) {
			return false
		}
		if last != nil && h.less(e, last) {
			h.rest.entries = append(h.rest.entries, e)
			return false
		}
		last = e
		return true
	})
	h.head, h.rest.less = 0, h.less
	heap.Init(&h.rest)
}

// entryHeap implements [heap.Interface].
type entryHeap struct {
	entries []*Entry
	less    func(a, b *Entry) bool
}

func (h *entryHeap) Len() int           { return len(h.entries) }
func (h *entryHeap) Less(i, k int) bool { return h.less(h.entries[i], h.entries[k]) }

func (h *entryHeap) Swap(i, k int) {
	h.entries[i], h.entries[k] = h.entries[k], h.entries[i]
}

// Push implements [heap.Interface].
func (h *entryHeap) Push(x any) {
	e, _ := x.(*Entry)
	h.entries = append(h.entries, e)
}

// Pop implements [heap.Interface].
func (h *entryHeap) Pop() any {
	last := len(h.entries) - 1
	e := h.entries[last]
	h.entries[last], h.entries = nil, h.entries[:last]
	return e
}

// keepOnly removes the entries for which keep is false, in place.
func keepOnly(entries []*Entry, keep func(*Entry) bool) []*Entry {
	kept := entries[:0]
	for _, e := range entries {
		if keep(e) {
			kept = append(kept, e)
		}
	}
	clear(entries[len(kept):])
	return kept
}

// fifo is a queue of entries.
type fifo struct {
	entries []*Entry
	head    int
}

func (q *fifo) len() int      { return len(q.entries) - q.head }
func (q *fifo) push(e *Entry) { q.entries = append(q.entries, e) }

// pushFront adds entries before all others.
func (q *fifo) pushFront(entries []*Entry) {
	q.entries, q.head = append(entries, q.entries[q.head:]...), 0
}

// take removes and returns up to n entries.
func (q *fifo) take(n int) []*Entry {
	n = min(n, q.len())
	taken := make([]*Entry, n)
	copy(taken, q.entries[q.head:q.head+n])
	clear(q.entries[q.head : q.head+n])
	q.head += n
	if q.head == len(q.entries) {
		q.entries, q.head = q.entries[:0], 0
	}
	return taken
}

func (q *fifo) rebuild(keep func(*Entry) bool) {
	q.entries = keepOnly(q.entries[q.head:], keep)
	q.head = 0
}

// serviceList is a list of entries in the order of service. Entries that are not added in
// that order are at its end until they are needed.
type serviceList struct {
	entries []*Entry
	sorted  int // the number of entries in order
}

func (l *serviceList) len() int { return len(l.entries) }

func (l *serviceList) add(e *Entry) {
	if n := len(l.entries); l.sorted == n && (n == 0 || !e.before(l.entries[n-1])) {
		l.sorted++
	}
	l.entries = append(l.entries, e)
}

// addFirst adds entries that are in order and, usually, before all others.
func (l *serviceList) addFirst(entries []*Entry) {
	n := len(entries)
	if n > 0 && len(l.entries) > 0 && !entries[n-1].before(l.entries[0]) {
		for _, e := range entries {
			l.add(e)
		}
		return
	}
	l.entries = slices.Insert(l.entries, 0, entries...)
	l.sorted += n
}

// take removes and returns the entries from index from on, before index to.
func (l *serviceList) take(from, to int) []*Entry {
	l.sort()
	taken := slices.Clone(l.entries[from:to])
	l.entries = slices.Delete(l.entries, from, to)
	l.sorted = len(l.entries)
	return taken
}

// sort moves the entries at the end to their positions.
func (l *serviceList) sort() {
	late := slices.Clone(l.entries[l.sorted:])
	slices.SortFunc(late, func(a, b *Entry) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for i, to := l.sorted, len(l.entries); len(late) > 0; to-- {
		if last := late[len(late)-1]; i > 0 && last.before(l.entries[i-1]) {
			i--
			l.entries[to-1] = l.entries[i]
		} else {
			late = late[:len(late)-1]
			l.entries[to-1] = last
		}
	}
	l.sorted = len(l.entries)
}

// keepOnly removes the entries for which keep is false.
func (l *serviceList) keepOnly(keep func(*Entry) bool) {
	i, sorted := 0, 0
	l.entries = keepOnly(l.entries, func(e *Entry) bool {
		kept := keep(e)
		if kept && i < l.sorted {
			sorted++
		}
		i++
		return kept
	})
	l.sorted = sorted
}
