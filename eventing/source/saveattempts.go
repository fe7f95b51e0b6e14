package source

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// maxMissing bounds the events of one request that asks the stream which of them it has
// deleted.
const maxMissing = 256

// attemptsOf are the failed attempts of the events of one epoch of a stream.
type attemptsOf struct {
	epoch string

	mu      sync.Mutex
	known   map[uint64]ledger.EventAttempts // of unfinished events
	news    map[uint64]struct{}             // of these, the unsaved ones
	settled map[uint64]struct{}             // whose stored attempts are to be deleted
}

// loadAttempts returns the attempts of the stream that reader reads: those in memory, or
// else the stored ones. It logs events that were lost with an earlier epoch of the stream,
// unless this process has read that epoch.
func (c *consumer) loadAttempts(ctx context.Context, reader eventing.Reader) (*attemptsOf, error) {
	known := c.currentAttempts()
	if known != nil && known.epoch == reader.Epoch() {
		return known, nil
	}
	t := &attemptsOf{
		epoch: reader.Epoch(), known: map[uint64]ledger.EventAttempts{}, news: map[uint64]struct{}{}, settled: map[uint64]struct{}{},
	}
	if c.source.cfg.Attempts == nil {
		return t, nil
	}
	asking, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	stored, stale, err := c.source.cfg.Attempts.Load(asking, c.source.cfg.Function, reader.Origin(), reader.Epoch())
	if err != nil {
		return nil, err
	}
	for _, e := range stored {
		t.known[e.Sequence] = e
	}
	if known == nil && stale > 0 {
		c.source.cfg.Metrics.vanishedSome(ctx, uint64(stale))
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelError, "stream was deleted and recreated while failing events of it waited for a retry; they are lost for this cluster: publish them again",
			slog.String("stream", c.stream.Name()), slog.Int("messages", stale))
	}
	return t, nil
}

// restore sets the known attempts of a new delivery.
func (t *attemptsOf) restore(sequence uint64, e *delivery.Delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.known[sequence]; ok {
		e.Attempts, e.AttemptedFor, e.Strikes = known.Attempts, known.For, known.Strikes
		e.Alone = true
	}
}

// record records the failed attempts of an event.
func (t *attemptsOf) record(e ledger.EventAttempts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[e.Sequence] = e
	t.news[e.Sequence] = struct{}{}
	delete(t.settled, e.Sequence)
}

// has reports whether an event has failed attempts.
func (t *attemptsOf) has(sequence uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.known[sequence]
	return ok
}

// forget forgets finished events.
func (t *attemptsOf) forget(which func(sequence uint64) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for sequence := range t.known {
		if which(sequence) {
			t.settle(sequence)
		}
	}
}

// forgetOne forgets a finished event.
func (t *attemptsOf) forgetOne(sequence uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.known[sequence]; ok {
		t.settle(sequence)
	}
}

// settle is called with the lock held.
func (t *attemptsOf) settle(sequence uint64) {
	delete(t.known, sequence)
	delete(t.news, sequence)
	t.settled[sequence] = struct{}{}
}

// sequences returns the sequences of the known events that satisfy which, in order.
func (t *attemptsOf) sequences(which func(sequence uint64) bool) []uint64 {
	t.mu.Lock()
	known := slices.Collect(maps.Keys(t.known))
	t.mu.Unlock()
	known = slices.DeleteFunc(known, func(sequence uint64) bool { return !which(sequence) })
	slices.Sort(known)
	return known
}

// currentAttempts returns the attempts of the open stream; nil if none was opened yet.
func (c *consumer) currentAttempts() *attemptsOf {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts
}

// restoreAttempts sets the stored attempts of a new delivery.
func (c *consumer) restoreAttempts(sequence uint64, d *delivery.Delivery) {
	c.currentAttempts().restore(sequence, d)
}

// recordFailure records the failed attempts of an event that broke the function.
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
	c.currentAttempts().forgetOne(e.Sequence())
}

// unsaved returns the attempts to save and the sequences to delete.
func (t *attemptsOf) unsaved() (attempts []ledger.EventAttempts, settled []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for sequence := range t.news {
		attempts = append(attempts, t.known[sequence])
	}
	for sequence := range t.settled {
		settled = append(settled, sequence)
	}
	clear(t.news)
	clear(t.settled)
	return attempts, settled
}

// putBack restores attempts and sequences that could not be saved.
func (t *attemptsOf) putBack(attempts []ledger.EventAttempts, settled []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range attempts {
		if _, ok := t.known[e.Sequence]; ok {
			t.news[e.Sequence] = struct{}{}
		}
	}
	for _, sequence := range settled {
		if _, ok := t.known[sequence]; !ok {
			t.settled[sequence] = struct{}{}
		}
	}
}

// saveAttempts saves the attempts of the events of a stream.
func (s *Source) saveAttempts(ctx context.Context, c *consumer, reader eventing.Reader, floor uint64) error {
	t := c.currentAttempts()
	if s.cfg.Attempts == nil || t == nil || t.epoch != reader.Epoch() {
		return nil
	}
	c.settleBelow(ctx, t, reader, floor)
	attempts, settled := t.unsaved()
	if len(attempts) == 0 && len(settled) == 0 {
		return nil
	}
	if err := s.cfg.Attempts.Save(ctx, s.cfg.Function, reader.Origin(), reader.Epoch(), attempts, settled); err != nil {
		t.putBack(attempts, settled)
		return fmt.Errorf("save attempts in stream %s: %w", c.stream.Name(), err)
	}
	return nil
}

// settleBelow forgets the events below the floor that are not in flight. Those that the
// stream still has were acknowledged by a process that ended before it could save that. The
// others were deleted from the stream while they waited for a retry, and no process can
// deliver them.
func (c *consumer) settleBelow(ctx context.Context, t *attemptsOf, reader eventing.Reader, floor uint64) {
	below := t.sequences(func(sequence uint64) bool {
		if sequence >= floor {
			return false
		}
		inFlight, _ := c.partition.Has(sequence)
		return !inFlight
	})
	select {
	case <-c.ended: // nothing is in flight here; the next process that reads the stream counts
		return
	default:
	}
	if below = below[:min(len(below), maxMissing)]; len(below) == 0 {
		return
	}
	missing, err := missingOf(ctx, reader, below)
	if err != nil {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "could not look up whether the stream has deleted failing events; it will be retried",
			slog.String("stream", c.stream.Name()), slog.Any("err", err))
		return
	}
	if len(missing) > 0 {
		c.vanished(ctx, missing[0], uint64(len(missing)))
	}
	for _, sequence := range below {
		t.forgetOne(sequence)
	}
}

// missingOf returns those of some sequences whose messages a reader's stream has deleted; nil
// if the reader cannot know that.
func missingOf(ctx context.Context, reader eventing.Reader, sequences []uint64) ([]uint64, error) {
	if r, ok := reader.(interface {
		Missing(ctx context.Context, sequences []uint64) ([]uint64, error)
	}); ok {
		return r.Missing(ctx, sequences)
	}
	return nil, nil
}
