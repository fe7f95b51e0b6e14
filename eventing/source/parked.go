package source

import (
	"context"
	"time"
)

const (
	// parkedInterval is how often it is asked whether there is a verdict.
	parkedInterval = time.Second

	// parkedQuestion bounds the events of one question.
	parkedQuestion = 1000
)

// Verdicts knows the dead letters that wait for a verdict, for which a [Source]
// that keeps the order holds back what comes after them.
type Verdicts interface {
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

// followVerdicts finds out which subjects are parked, and when there is a verdict,
// until ctx ends.
func (s *Source) followVerdicts(ctx context.Context) {
	if !s.cfg.Ordered {
		return
	}
	ticker := time.NewTicker(parkedInterval)
	defer ticker.Stop()
	known := false
	for {
		var err error
		if !known {
			err = s.loadParked(ctx)
			known = err == nil
		} else {
			err = s.askVerdicts(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.verdicts.Failed(ctx, err)
		default:
			s.verdicts.Succeeded(ctx)
		}
		s.cfg.Metrics.waiting(ctx, s.agenda.countParked())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// loadParked asks for what was parked before this process began.
func (s *Source) loadParked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	list, err := s.cfg.Verdicts.Waiting(ctx, s.cfg.Function)
	if err != nil {
		return err
	}
	s.agenda.parkAll(list)
	return nil
}

// askVerdicts asks about those that are parked, not all at once if they are many.
func (s *Source) askVerdicts(ctx context.Context) error {
	list := s.agenda.parkedEvents(parkedQuestion)
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	still, err := s.cfg.Verdicts.Still(ctx, s.cfg.Function, list)
	if err != nil {
		return err
	}
	gone := list[:0]
	for i, e := range list {
		if !still[i] {
			gone = append(gone, e)
		}
	}
	s.agenda.unpark(gone)
	return nil
}
