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

// Ledger says what is done, in whichever cluster.
type Ledger interface {
	// Done says of each of the events whether function has handled it. That one
	// is not done says nothing about the next moment. An error says that it could
	// not be found out.
	Done(ctx context.Context, function string, events []EventID) ([]bool, error)
}

// EventID is the identity of an event.
type EventID struct {
	Source, ID string
}

// ask asks the ledger about messages whose time has come, many at a time: what is
// done is acknowledged, the rest delivered. It ends when the agenda is closed.
func (s *Source) ask(ctx context.Context) {
	for jobs := s.agenda.takeQuestions(questionSize); jobs != nil; jobs = s.agenda.takeQuestions(questionSize) {
		done, err := s.askOnce(ctx, jobs)
		if err != nil && ctx.Err() == nil {
			s.asking.Failed(ctx, err)
		}
		rest := jobs[:0]
		for i, j := range jobs {
			switch {
			case j.window.abandoned():
				j.window.drop(j)
				s.agenda.left(j, false)
			case err == nil && done[i]:
				s.cfg.Metrics.skippedOne(ctx)
				s.acknowledge(ctx, j)
			case ctx.Err() != nil:
				s.release(ctx, j, 0)
			default:
				rest = append(rest, j)
			}
		}
		s.agenda.notDone(rest)
	}
}

func (s *Source) askOnce(ctx context.Context, jobs []*job) ([]bool, error) {
	ids := make([]EventID, len(jobs))
	for i, j := range jobs {
		ids[i] = EventID{Source: j.errand.Event.Source(), ID: j.errand.Event.ID()}
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	done, err := s.cfg.Ledger.Done(ctx, s.cfg.Function, ids)
	if err == nil {
		s.asking.Succeeded(ctx)
	}
	return done, err
}
