package source

import (
	"context"
	"log/slog"
	"time"

	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// leaseExpires is the time after which another cluster may try suspects if this one
	// has gone, leaseRenew the time between two renewals, and leaseCheck the time between
	// two looks at whether the lease is needed.
	leaseExpires = 15 * time.Second
	leaseRenew   = 2 * time.Second
	leaseCheck   = 250 * time.Millisecond
)

// followLease holds the lease of suspects while there are any, until ctx ends.
func (s *Source) followLease(ctx context.Context) {
	if !s.leases() {
		return
	}
	ticker := time.NewTicker(leaseCheck)
	defer ticker.Stop()
	var renewed time.Time
	held := false
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if held {
				s.releaseLease(context.WithoutCancel(ctx))
			}
			return
		}
		now := s.cfg.Now()
		switch wanted := s.table.WantsLease(); {
		case wanted && (!held || now.Sub(renewed) >= leaseRenew):
			var err error
			if held, err = s.renewLease(ctx); err != nil && ctx.Err() == nil {
				s.leasing.Failed(ctx, err)
			}
			renewed = now
		case !wanted && held:
			held = false
			s.table.SetLease(time.Time{})
			s.releaseLease(ctx)
		}
	}
}

// leases reports whether suspects need a lease.
func (s *Source) leases() bool { return s.cfg.Suspects != nil && s.cfg.Ledger != nil }

// renewLease takes or extends the lease, and reports whether this cluster has it.
func (s *Source) renewLease(ctx context.Context) (held bool, err error) {
	begun := s.cfg.Now()
	ctx, cancel := context.WithTimeout(ctx, leaseRenew)
	defer cancel()
	until := time.Time{}
	if held, err = s.cfg.Suspects.Lease(ctx, s.cfg.Function, leaseExpires); err == nil && held {
		until = begun.Add(leaseExpires)
	}
	if err == nil {
		s.leasing.Succeeded(ctx)
	}
	s.table.SetLease(until)
	return held && err == nil, err
}

// releaseLease lets other clusters try suspects. If that fails, the lease expires.
func (s *Source) releaseLease(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaseRenew)
	defer cancel()
	if err := s.cfg.Suspects.Release(ctx, s.cfg.Function); err != nil {
		s.leasing.Failed(ctx, err)
	}
}

// findDeadElsewhere notes whether a suspect that broke its connection is a dead letter of
// another cluster, so that one strike is enough.
func (s *Source) findDeadElsewhere(ctx context.Context, entries []*inflight.Entry) {
	if !s.leases() || len(entries) > 1 || !entries[0].Suspect() || entries[0].Delivery.DeadElsewhere {
		return
	}
	e := entries[0]
	ctx, cancel := context.WithTimeout(ctx, leaseRenew)
	defer cancel()
	dead, err := s.cfg.Suspects.DeadElsewhere(ctx, s.cfg.Function, e.ID.Source, e.ID.ID)
	if err != nil {
		s.leasing.Failed(ctx, err) // it takes more strikes
		return
	}
	e.Delivery.DeadElsewhere = dead
}

// noteStrikes reports and records strikes, so that they are saved.
func (s *Source) noteStrikes(ctx context.Context, strikes []inflight.Struck) {
	for _, k := range strikes {
		s.cfg.Metrics.struckOne(ctx)
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "the function's process ended while it computed this event alone",
			slog.String("event_source", k.Entry.ID.Source), slog.String("event_id", k.Entry.ID.ID), slog.Int("strikes", k.Strikes))
		if c, ok := k.Entry.Partition().Owner.(*consumer); ok && !k.Entry.Abandoned() {
			c.currentAttempts().record(ledger.EventAttempts{
				Sequence: k.Entry.Sequence(), Attempts: k.Attempts, For: k.AttemptedFor, Strikes: k.Strikes,
			})
		}
	}
}
