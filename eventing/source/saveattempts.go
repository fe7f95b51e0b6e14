package source

import (
	"context"
	"fmt"
	"sync"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// attemptsOf are the tries of one making of a stream.
type attemptsOf struct {
	epoch string

	mu      sync.Mutex
	stored  map[uint64]ledger.EventAttempts // by who read the stream before
	news    map[uint64]ledger.EventAttempts
	settled map[uint64]struct{}
}

// loadAttempts returns the attempts of the stream that reader reads: those that are known
// already, or else those that are stored.
func (c *consumer) loadAttempts(ctx context.Context, reader eventing.Reader) (*attemptsOf, error) {
	known := c.currentAttempts()
	if known != nil && known.epoch == reader.Epoch() {
		return known, nil
	}
	t := &attemptsOf{
		epoch: reader.Epoch(), stored: map[uint64]ledger.EventAttempts{}, news: map[uint64]ledger.EventAttempts{}, settled: map[uint64]struct{}{},
	}
	if c.source.cfg.Attempts == nil {
		return t, nil
	}
	asking, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	stored, err := c.source.cfg.Attempts.Load(asking, c.source.cfg.Function, reader.Origin(), reader.Epoch())
	if err != nil {
		return nil, err
	}
	for _, e := range stored {
		t.stored[e.Sequence] = e
	}
	return t, nil
}

// restore sets the stored attempts of a new delivery.
func (t *attemptsOf) restore(sequence uint64, e *delivery.Delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.stored[sequence]; ok {
		e.Attempts, e.AttemptedFor, e.Strikes = known.Attempts, known.For, known.Strikes
		e.Alone = true
	}
}

// record notes how often an event has failed.
func (t *attemptsOf) record(e ledger.EventAttempts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.news[e.Sequence] = e
}

// forget forgets an event.
func (t *attemptsOf) forget(sequence uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.news, sequence)
	delete(t.stored, sequence)
	t.settled[sequence] = struct{}{}
}

// forgetFrom forgets the events from a sequence on.
func (t *attemptsOf) forgetFrom(sequence uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, attempts := range []map[uint64]ledger.EventAttempts{t.stored, t.news} {
		for s := range attempts {
			if s >= sequence {
				delete(attempts, s)
				t.settled[s] = struct{}{}
			}
		}
	}
}

// currentAttempts returns the attempts of the stream that is open; nil before it is.
func (c *consumer) currentAttempts() *attemptsOf {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts
}

// restoreAttempts sets the stored attempts of a new delivery.
func (c *consumer) restoreAttempts(sequence uint64, d *delivery.Delivery) {
	c.currentAttempts().restore(sequence, d)
}

// recordFailure notes that an event broke the function.
func (c *consumer) recordFailure(e *inflight.Entry) {
	if !e.Abandoned() {
		d := e.Delivery
		c.currentAttempts().record(ledger.EventAttempts{Sequence: e.Sequence(), Attempts: d.Attempts, For: d.AttemptedFor, Strikes: d.Strikes})
	}
}

// forgetAttempts forgets the attempts of a finished event.
func (c *consumer) forgetAttempts(e *inflight.Entry) {
	if e.Delivery.Attempts == 0 && e.Delivery.Strikes == 0 || e.Abandoned() {
		return
	}
	c.currentAttempts().forget(e.Sequence())
}

// unsaved returns what is to be saved. Below floor everything is settled, also what this
// process has never seen.
func (t *attemptsOf) unsaved(floor uint64) (tries []ledger.EventAttempts, settled []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for sequence := range t.stored {
		if sequence < floor {
			delete(t.stored, sequence)
			t.settled[sequence] = struct{}{}
		}
	}
	for _, e := range t.news {
		tries = append(tries, e)
	}
	for sequence := range t.settled {
		settled = append(settled, sequence)
	}
	clear(t.news)
	clear(t.settled)
	return tries, settled
}

// putBack takes back what could not be saved, unless there is news.
func (t *attemptsOf) putBack(tries []ledger.EventAttempts, settled []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range tries {
		_, newer := t.news[e.Sequence]
		if _, gone := t.settled[e.Sequence]; !newer && !gone {
			t.news[e.Sequence] = e
		}
	}
	for _, sequence := range settled {
		t.settled[sequence] = struct{}{}
	}
}

// saveAttempts saves the tries of a stream.
func (s *Source) saveAttempts(ctx context.Context, c *consumer, reader eventing.Reader, floor uint64) error {
	t := c.currentAttempts()
	if s.cfg.Attempts == nil || t == nil || t.epoch != reader.Epoch() {
		return nil
	}
	tries, settled := t.unsaved(floor)
	if len(tries) == 0 && len(settled) == 0 {
		return nil
	}
	if err := s.cfg.Attempts.Save(ctx, s.cfg.Function, reader.Origin(), reader.Epoch(), tries, settled); err != nil {
		t.putBack(tries, settled)
		return fmt.Errorf("save tries in stream %s: %w", c.stream.Name(), err)
	}
	return nil
}
