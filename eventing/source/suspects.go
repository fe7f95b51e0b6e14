package source

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// leaseExpires is the time after which another cluster may attempt a suspect if this
	// one has disappeared, leaseRenew the time between two renewals, and leaseTimeout
	// bounds one.
	leaseExpires = 15 * time.Second
	leaseRenew   = 2 * time.Second
	leaseTimeout = 2 * time.Second
)

// followLeases takes the leases of suspects that are to be attempted, and renews and
// releases them, until ctx ends.
func (s *Source) followLeases(ctx context.Context) {
	if !s.leases() {
		return
	}
	ticker := time.NewTicker(leaseRenew)
	defer ticker.Stop()
	for {
		select {
		case <-s.table.LeaseWanted():
			if release := s.table.Released(); len(release) > 0 {
				s.releaseLeases(ctx, release)
			}
			if e := s.table.NextLease(); e != nil {
				s.lease(ctx, e)
			}
			continue
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if renew := s.table.Leases(); len(renew) > 0 {
			s.lease(ctx, renew...)
		}
	}
}

// leases reports whether suspects need leases.
func (s *Source) leases() bool { return s.cfg.Suspects != nil && s.cfg.Ledger != nil }

// key returns the key of an event in the ledger.
func (s *Source) key(id EventID) ledger.Key { return ledger.NewKey(s.cfg.Function, id.Source, id.ID) }

// lease takes or extends leases.
func (s *Source) lease(ctx context.Context, entries ...*inflight.Entry) {
	until := s.cfg.Now().Add(leaseExpires)
	suspects := make([]ledger.Key, len(entries))
	for i, e := range entries {
		suspects[i] = s.key(e.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	held, err := s.cfg.Suspects.Lease(ctx, suspects, leaseExpires)
	s.noteLeasing(ctx, err)
	for i, e := range entries {
		if slices.Contains(held, suspects[i]) {
			s.table.SetLease(e, until)
		} else {
			s.table.SetLease(e, time.Time{})
		}
	}
}

// releaseLeases lets other clusters attempt suspects. If it fails, the leases expire.
func (s *Source) releaseLeases(ctx context.Context, ids []EventID) {
	suspects := make([]ledger.Key, len(ids))
	for i, id := range ids {
		suspects[i] = s.key(id)
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	s.noteLeasing(ctx, s.cfg.Suspects.Release(ctx, suspects))
}

func (s *Source) noteLeasing(ctx context.Context, err error) {
	if err == nil {
		s.leasing.Succeeded(ctx)
	} else if !errors.Is(err, context.Canceled) {
		s.leasing.Failed(ctx, err)
	}
}

// findDeadElsewhere records whether a suspect that broke its connection is a dead letter
// of another cluster, so that one strike is enough.
func (s *Source) findDeadElsewhere(ctx context.Context, entries []*inflight.Entry) {
	if !s.leases() || len(entries) > 1 || !entries[0].Suspect() || entries[0].Delivery.DeadElsewhere {
		return
	}
	e := entries[0]
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	dead, err := s.cfg.Suspects.DeadElsewhere(ctx, s.key(e.ID))
	s.noteLeasing(ctx, err)
	e.Delivery.DeadElsewhere = dead // if unknown, more strikes are needed
}

// noteStrikes logs and records strikes, so that they are saved.
func (s *Source) noteStrikes(ctx context.Context, strikes []inflight.Struck) {
	for _, k := range strikes {
		s.cfg.Metrics.struckOne(ctx)
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "the function's process ended while it computed this event alone; after three strikes the event is a dead letter: look at the function's log and memory limit",
			slog.String("event_source", k.Entry.ID.Source), slog.String("event_id", k.Entry.ID.ID), slog.Int("strikes", k.Strikes))
		if c, ok := k.Entry.Partition().Owner.(*consumer); ok && !k.Entry.Abandoned() {
			c.currentAttempts().record(ledger.EventAttempts{
				Sequence: k.Entry.Sequence(), Attempts: k.Attempts, For: k.AttemptedFor, Strikes: k.Strikes,
			})
		}
	}
}
