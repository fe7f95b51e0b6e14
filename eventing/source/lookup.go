package source

import (
	"context"
	"time"
)

const (
	// questionSize bounds the events of one question to the ledger.
	questionSize = 4096

	// questionTimeout bounds one. An event waits for two of them at most, and must
	// be delivered within a second of its delay if the ledger is away.
	questionTimeout = 400 * time.Millisecond
)

// EventID is the identity of an event.
type EventID struct {
	Source, ID string
}

// lookUpAll asks the ledger about messages whose time has come, many at a time: what is
// done is acknowledged, the rest delivered. It ends when the scheduler is closed.
func (s *Source) lookUpAll(ctx context.Context) {
	for jobs := s.scheduler.takeLookups(questionSize); jobs != nil; jobs = s.scheduler.takeLookups(questionSize) {
		done, err := s.lookUp(ctx, jobs)
		if err != nil && ctx.Err() == nil {
			s.asking.Failed(ctx, err)
		}
		rest := jobs[:0]
		for i, j := range jobs {
			switch {
			case j.table.abandoned():
				j.table.remove(j)
				s.scheduler.finish(j, false)
			case err == nil && done[i]:
				s.cfg.Metrics.skippedOne(ctx)
				s.acknowledge(ctx, j)
			case ctx.Err() != nil:
				s.nak(ctx, j, 0)
			default:
				rest = append(rest, j)
			}
		}
		s.scheduler.notCommitted(rest)
	}
}

func (s *Source) lookUp(ctx context.Context, jobs []*message) ([]bool, error) {
	ids := make([]EventID, len(jobs))
	for i, j := range jobs {
		ids[i] = EventID{Source: j.delivery.Event.Source(), ID: j.delivery.Event.ID()}
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	done, err := s.cfg.Ledger.Committed(ctx, s.cfg.Function, ids)
	if err == nil {
		s.asking.Succeeded(ctx)
	}
	return done, err
}
