package source

import (
	"context"
	"log/slog"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// blockedInterval is the time between lookups of verdicts on dead letters.
	blockedInterval = time.Second

	// blockedLookup bounds the events of one lookup.
	blockedLookup = 1000
)

// followBlocked keeps the blocked subjects up to date until ctx ends.
func (s *Source) followBlocked(ctx context.Context) {
	if !s.cfg.Ordered {
		return
	}
	ticker := time.NewTicker(blockedInterval)
	defer ticker.Stop()
	known := false
	for {
		var err error
		if !known {
			err = s.loadBlocked(ctx)
			known = err == nil
		} else {
			err = s.lookUpBlocked(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.verdicts.Failed(ctx, err)
		default:
			s.verdicts.Succeeded(ctx)
		}
		s.cfg.Metrics.waiting(ctx, s.table.CountBlocking())
		s.reportStored(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// loadBlocked loads the subjects that were blocked before this process started.
func (s *Source) loadBlocked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	list, err := s.cfg.Blocked.List(ctx, s.cfg.Function)
	if err != nil {
		return err
	}
	stored, err := s.cfg.Blocked.Stored(ctx, s.cfg.Function)
	if err != nil {
		return err
	}
	events, bytes := map[string]int{}, 0
	for _, subject := range stored {
		events[subject.Subject] += int(subject.Events)
		bytes += int(subject.Bytes)
	}
	s.table.SetStored(events, bytes)
	s.table.Block(list...)
	return nil
}

// lookUpBlocked unblocks subjects whose dead letters have a verdict. Many dead letters take
// several rounds.
func (s *Source) lookUpBlocked(ctx context.Context) error {
	list := s.table.Blocking(blockedLookup)
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	still, err := s.cfg.Blocked.Still(ctx, s.cfg.Function, list)
	if err != nil {
		return err
	}
	gone := list[:0]
	for _, e := range list {
		if !still[ledger.BlockedEvent{Source: e.Source, ID: e.ID}] {
			gone = append(gone, e)
		}
	}
	s.table.Unblock(gone)
	return nil
}

// block holds back the events behind a dead one of the same subject.
func (s *Source) block(ctx context.Context, e *inflight.Entry) {
	s.table.Block(ledger.BlockedEvent{Subject: e.Subject, Source: e.ID.Source, ID: e.ID.ID})
	s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "subject is blocked behind its dead letter; later events of it wait: replay or drop the dead letter (tandem dead-letters list)",
		append(delivery.EventAttrs(e.Delivery.Event), slog.String("event_subject", e.Subject))...)
}
