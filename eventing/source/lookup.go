package source

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// lookupSize bounds the events of one lookup, and lookups the concurrent lookups,
	// so that a distant database is kept busy.
	lookupSize = 4096
	lookups    = 4

	// lookupTimeout bounds one lookup. An event waits for at most two of them, and must
	// be delivered within a second of its delay if the ledger is unavailable.
	lookupTimeout = 400 * time.Millisecond
)

// EventID is the identity of an event.
type EventID = inflight.EventID

// lookUpAll looks entries up in the ledger, many at a time, until the table is closed.
// Committed ones are acknowledged, and the others delivered.
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
	types, ids := make([]string, len(entries)), make([]EventID, len(entries))
	for i, e := range entries {
		types[i], ids[i] = e.Type, e.ID
	}
	committed, err := s.committed(ctx, types, ids)
	if err == nil {
		err = s.findDead(ctx, entries, committed)
	}
	if err == nil && slices.Contains(committed, false) && s.sender.Types() == nil {
		s.typesCheck.wantNames()
	}
	return committed, err
}

// findDead marks the redelivered entries, for example after a restart, that are dead letters of
// this cluster: like committed ones they are finished, and are not attempted again.
func (s *Source) findDead(ctx context.Context, entries []*inflight.Entry, settled []bool) error {
	if s.cfg.Blocked == nil {
		return nil
	}
	asked := map[ledger.BlockedEvent][]int{}
	for i, e := range entries {
		if c, ok := ownerOf(e).(*consumer); ok && !settled[i] && e.Sequence() < c.redeliversBelow() {
			event := ledger.BlockedEvent{Source: e.ID.Source, ID: e.ID.ID}
			asked[event] = append(asked[event], i)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	dead, err := s.cfg.Blocked.Still(ctx, s.cfg.Function, slices.Collect(maps.Keys(asked)))
	for event, is := range dead {
		for _, i := range asked[event] {
			settled[i] = is
		}
	}
	return err
}

// committed returns, for each event, whether the ledger has it under the name of the function
// of its type. It makes one concurrent lookup for each function.
func (s *Source) committed(ctx context.Context, types []string, ids []EventID) ([]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	byFunction := map[string][]int{}
	for i, t := range types {
		function := s.functionOf(t)
		byFunction[function] = append(byFunction[function], i)
	}
	committed, errs := make([]bool, len(ids)), make([]error, len(byFunction))
	var asking sync.WaitGroup
	for n, function := range slices.Sorted(maps.Keys(byFunction)) {
		asking.Go(func() {
			of := byFunction[function]
			ask := make([]EventID, len(of))
			for k, i := range of {
				ask[k] = ids[i]
			}
			found, err := s.cfg.Ledger.Committed(ctx, function, ask)
			if errs[n] = err; err != nil {
				return
			}
			for k, i := range of {
				committed[i] = found[k]
			}
		})
	}
	asking.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return committed, nil
}

// functionOf returns the name under which the ledger has events of a type. An image may have
// several functions.
func (s *Source) functionOf(eventType string) string {
	return cmp.Or(s.sender.FunctionOf(eventType), s.cfg.Function)
}
