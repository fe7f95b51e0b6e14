package sinkwriter

import "sync/atomic"

// Stats are counts since the [Writer] was made.
type Stats struct {
	// Won and Lost are offers by their receipt; Diverged are among the lost.
	Won, Lost, Diverged int64

	// Refused are offers that ended with an [Error].
	Refused int64

	// Batches are transactions that were committed, Retries those that were
	// tried again.
	Batches, Retries int64

	// Published are outputs that this writer sent to the stream itself.
	Published int64
}

type counters struct {
	won, lost, diverged, refused, batches, retries, published atomic.Int64
}

// Stats gives the counts so far. They may be a moment apart from each other.
func (w *Writer) Stats() Stats {
	c := &w.stats
	return Stats{
		Won: c.won.Load(), Lost: c.lost.Load(), Diverged: c.diverged.Load(), Refused: c.refused.Load(),
		Batches: c.batches.Load(), Retries: c.retries.Load(), Published: c.published.Load(),
	}
}
