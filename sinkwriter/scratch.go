package sinkwriter

// maxScratch bounds the memory that a connection keeps for its next attempt.
const maxScratch = 4 << 20

// scratch is the memory in which an attempt builds what it sends. It belongs to a connection,
// whose next attempt reuses it: batches take a megabyte each, and a connection whose COMMIT was
// left to itself is not used again. The zero scratch is ready to use.
type scratch struct{ buf []byte }

// take returns an empty slice with room for n bytes. A slice that grows beyond them moves
// elsewhere.
func (m *scratch) take(n int) []byte {
	from := len(m.buf)
	if cap(m.buf)-from < n {
		m.buf, from = make([]byte, 0, max(n, min(2*cap(m.buf), maxScratch), 64<<10)), 0
	}
	m.buf = m.buf[:from+n]
	return m.buf[from:from:len(m.buf)]
}

// reset ends the use of all that was taken.
func (m *scratch) reset() {
	if cap(m.buf) > maxScratch {
		m.buf = nil
	}
	m.buf = m.buf[:0]
}
