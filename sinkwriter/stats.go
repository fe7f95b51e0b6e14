package sinkwriter

import (
	"errors"
	"sync/atomic"
)

// Stats are counts since the [Writer] was made.
type Stats struct {
	// Won and Lost are offers by their receipt; Diverged are among the lost, and
	// so are those of OtherVersion: they computed something else than the winner,
	// which ran another version of the function.
	Won, Lost, Diverged, OtherVersion int64

	// Refused are offers that ended with an [Error].
	Refused int64

	// Batches are transactions that were committed, Retries those that were
	// tried again.
	Batches, Retries int64

	// Published are outputs that this writer sent to the stream itself, Rejected those that
	// were refused there for good.
	Published, Rejected int64
}

// FunctionStats are counts of the offers of one function, in all its versions.
type FunctionStats struct {
	// Won, Lost, Diverged and OtherVersion are as in [Stats].
	Won, Lost, Diverged, OtherVersion int64

	// Refused are offers that ended with an [Error], by its Fault.
	Refused map[Fault]int64
}

type counters struct {
	batches, retries, published, rejected atomic.Int64
}

type functionCounters struct {
	won, lost, diverged, otherVersion atomic.Int64
	refused                           [FaultEvent + 1]atomic.Int64
}

// Stats gives the counts so far. They may be a moment apart from each other.
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

// FunctionStats gives the counts so far of each function that something was offered
// of, by its name. They may be a moment apart from each other.
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

// countWon counts offers that have won. Their twins have lost.
func countWon(won []*offer) {
	for _, o := range won {
		o.counters.won.Add(1)
		countLost(o.duplicate)
	}
}

// countLost counts an offer that has lost, and its twins.
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
