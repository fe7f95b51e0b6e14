package source

import (
	"context"
	"time"
)

const (
	// blockedInterval is how often it is asked whether there is a verdict.
	blockedInterval = time.Second

	// blockedLookup bounds the events of one question.
	blockedLookup = 1000
)

// Blocked knows the dead letters that wait for a verdict, for which a [Source]
// that keeps the order holds back what comes after them.
type Blocked interface {
	// Waiting gives the events of function that are dead in this cluster, have a
	// subject and are handled nowhere.
	Waiting(ctx context.Context, function string) ([]DeadEvent, error)

	// Still says of each of the events whether it waits still: its dead letter is
	// there, and it is handled nowhere.
	Still(ctx context.Context, function string, events []DeadEvent) ([]bool, error)
}

// DeadEvent is an event that has a dead letter.
type DeadEvent struct {
	Subject string
	EventID
}

// followBlocked finds out which subjects are parked, and when there is a verdict,
// until ctx ends.
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
		s.cfg.Metrics.waiting(ctx, s.scheduler.countBlocking())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// loadBlocked asks for what was parked before this process began.
func (s *Source) loadBlocked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	list, err := s.cfg.Blocked.Waiting(ctx, s.cfg.Function)
	if err != nil {
		return err
	}
	s.scheduler.blockSubjects(list)
	return nil
}

// lookUpBlocked asks about those that are parked, not all at once if they are many.
func (s *Source) lookUpBlocked(ctx context.Context) error {
	list := s.scheduler.blockingEvents(blockedLookup)
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
	for i, e := range list {
		if !still[i] {
			gone = append(gone, e)
		}
	}
	s.scheduler.unblockSubjects(gone)
	return nil
}
