package sinkwriter

// maxScratch bounds the memory that a connection keeps for its next attempt.
const maxScratch = 4 << 20

// scratch is the memory in which an attempt builds its messages. It belongs to a connection,
// whose next attempt reuses it, because a batch takes about a megabyte. A connection whose
// COMMIT runs in the background is not used again. The zero scratch is ready to use.
type scratch struct{ buf []byte }

// take returns an empty slice with capacity n. A slice that grows beyond it is
// reallocated elsewhere.
func (m *scratch) take(n int) []byte {
	from := len(m.buf)
	if cap(m.buf)-from < n {
		m.buf, from = make([]byte, 0, max(n, min(2*cap(m.buf), maxScratch), 64<<10)), 0
	}
	m.buf = m.buf[:from+n]
	return m.buf[from:from:len(m.buf)]
}

// reset releases all slices for reuse.
func (m *scratch) reset() {
	if cap(m.buf) > maxScratch {
		m.buf = nil
	}
	m.buf = m.buf[:0]
}
