package sinkwriter

import (
	"errors"
	"sync/atomic"
)

// Stats are counts since the [Writer] was created.
type Stats struct {
	// Won and Lost count offers by their receipt. Diverged and OtherVersion count
	// lost offers whose effects differ from the winner's: Diverged those of the
	// winner's version of the function, OtherVersion those of another version.
	Won, Lost, Diverged, OtherVersion int64

	// Refused counts offers that ended with an [Error].
	Refused int64

	// Batches counts committed transactions, Retries repeated attempts.
	Batches, Retries int64

	// Published counts outputs that this writer itself published, Rejected outputs that the
	// stream rejected for good.
	Published, Rejected int64
}

// FunctionStats are counts of the offers of one function, over all its versions.
type FunctionStats struct {
	// Won, Lost, Diverged and OtherVersion are as in [Stats].
	Won, Lost, Diverged, OtherVersion int64

	// Refused counts offers that ended with an [Error], by its Fault.
	Refused map[Fault]int64
}

type counters struct {
	batches, retries, published, rejected atomic.Int64
}

type functionCounters struct {
	won, lost, diverged, otherVersion atomic.Int64
	refused                           [FaultEvent + 1]atomic.Int64
}

// Stats returns the counts so far. They are not an atomic snapshot.
func (w *Writer) Stats() Stats {
	s := Stats{Batches: w.stats.batches.Load(), Retries: w.stats.retries.Load(), Published: w.stats.published.Load(), Rejected: w.stats.rejected.Load()}
	for _, f := range w.FunctionStats() {
		s.Won += f.Won
		s.Lost += f.Lost
		s.Diverged += f.Diverged
		s.OtherVersion += f.OtherVersion
		for _, n := range f.Refused {
			s.Refused += n
		}
	}
	return s
}

// FunctionStats returns the counts so far of each function that had an offer, by
// name. They are not an atomic snapshot.
func (w *Writer) FunctionStats() map[string]FunctionStats {
	all := map[string]FunctionStats{}
	w.functions.Range(func(name, value any) bool {
		c := value.(*functionCounters)
		s := FunctionStats{
			Won: c.won.Load(), Lost: c.lost.Load(), Diverged: c.diverged.Load(), OtherVersion: c.otherVersion.Load(),
			Refused: map[Fault]int64{},
		}
		for fault := range c.refused {
			if n := c.refused[fault].Load(); n > 0 {
				s.Refused[Fault(fault)] = n
			}
		}
		all[name.(string)] = s
		return true
	})
	return all
}

func (w *Writer) countersOf(function string) *functionCounters {
	c, ok := w.functions.Load(function)
	if !ok {
		c, _ = w.functions.LoadOrStore(function, new(functionCounters))
	}
	return c.(*functionCounters)
}

// countWon counts offers that have won. Their duplicates have lost.
func countWon(won []*offer) {
	for _, o := range won {
		o.counters.won.Add(1)
		countLost(o.duplicate)
	}
}

// countLost counts an offer that has lost, and its duplicates.
func countLost(o *offer) {
	for ; o != nil; o = o.duplicate {
		o.counters.lost.Add(1)
	}
}

// countRefused counts offers of a function that ended with an error.
func (c *functionCounters) countRefused(err error, offers int64) {
	var known *Error
	if errors.As(err, &known) {
		c.refused[known.Fault].Add(offers)
	}
}
