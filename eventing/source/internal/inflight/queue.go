package inflight

import "container/heap"

// entryHeap is a heap of entries.
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

func (h *entryHeap) add(e *Entry)  { heap.Push(h, e) }
func (h *entryHeap) first() *Entry { return h.entries[0] }

// leads reports whether e is the first entry.
func (h *entryHeap) leads(e *Entry) bool { return h.Len() > 0 && h.first() == e }

func (h *entryHeap) take() *Entry {
	e, _ := heap.Pop(h).(*Entry)
	return e
}

// rebuild drops the entries that keep does not want and restores the order.
func (h *entryHeap) rebuild(keep func(*Entry) bool) {
	h.entries = keepOnly(h.entries, keep)
	heap.Init(h)
}

// keepOnly removes the entries that keep does not want, in place.
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
