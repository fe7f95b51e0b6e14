package source

import (
	"context"
	"time"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
)

const (
	// lookupSize bounds the events of one lookup, and lookups how many are under way at
	// once: so many are looked up while a database far away answers.
	lookupSize = 4096
	lookups    = 4

	// lookupTimeout bounds one lookup. An event waits for two of them at most, and must
	// be delivered within a second of its delay if the ledger is unavailable.
	lookupTimeout = 400 * time.Millisecond
)

// EventID is the identity of an event.
type EventID = inflight.EventID

// lookUpAll looks entries up in the ledger, many at a time, until the table is closed:
// what is committed is acknowledged, and the rest delivered.
func (s *Source) lookUpAll(ctx context.Context) {
	wait := backoff.Backoff{Base: 10 * time.Millisecond, Limit: 100 * time.Millisecond}
	for entries := s.table.NextLookup(lookupSize); entries != nil; entries = s.table.NextLookup(lookupSize) {
		committed, err := s.lookUp(ctx, entries)
		switch {
		case err == nil:
			s.asking.Succeeded(ctx)
			wait.Reset()
		case ctx.Err() == nil:
			s.asking.Failed(ctx, err)
		}
		finished := s.table.LookedUp(entries, committed)
		s.cfg.Metrics.skippedSome(ctx, len(finished))
		for _, e := range finished {
			ownerOf(e).forgetAttempts(e)
			s.acknowledge(ctx, e)
		}
		if err != nil {
			backoff.Sleep(ctx, &wait)
		}
	}
}

// lookUp returns, for each entry, whether the ledger has it.
func (s *Source) lookUp(ctx context.Context, entries []*inflight.Entry) ([]bool, error) {
	ids := make([]EventID, len(entries))
	for i, e := range entries {
		ids[i] = e.ID
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return s.cfg.Ledger.Committed(ctx, s.cfg.Function, ids)
}
