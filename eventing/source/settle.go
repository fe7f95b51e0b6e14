package source

import (
	"context"
	"log/slog"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
)

const (
	// handBackAfter is the shortest wait for which a message is handed back to its
	// stream that breaks the function, or that does not go through while others
	// do: it would take a place that others could have. Shorter, and it comes and
	// goes all the time.
	handBackAfter = time.Second

	// restAfter is when messages are handed back though nothing goes through, if
	// they leave no room for others: perhaps it is just these. Each time they rest
	// for longer, so that a function that is away is not asked for ever more of
	// them.
	restAfter = 10 * time.Second
	restCap   = 5 * time.Minute
)

// deliver tries a message once and sees to what comes of it. If ctx ends before,
// it gives the message back.
func (s *Source) deliver(ctx context.Context, j *job) {
	if j.window.abandoned() {
		j.window.drop(j)
		s.agenda.left(j, false)
		return
	}
	if ctx.Err() != nil {
		s.release(ctx, j, 0)
		return
	}
	for {
		step, err := s.delivery.Attempt(ctx, j.errand)
		switch {
		case err != nil:
			// A stream that gives such an event is broken. The message comes again
			// when its time is over.
			s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "message cannot be delivered, it will come again",
				slog.Uint64("sequence", j.message.Sequence()), slog.Any("err", err))
			j.window.drop(j)
			s.agenda.left(j, false)
		case step.Settled:
			if step.Result.Rejected && j.lane != nil {
				s.agenda.park(j)
				s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "what comes after a dead letter of its subject waits for the verdict",
					append(delivery.EventAttrs(j.errand.Event), slog.String("event_subject", j.lane.subject))...)
			}
			s.cfg.Metrics.settled(ctx, step.Result, s.cfg.Now().Sub(j.message.Arrived()))
			s.acknowledge(ctx, j)
		case ctx.Err() != nil:
			s.release(ctx, j, 0)
		case step.RetryIn == 0:
			continue // to the dead letter sink
		default:
			if !step.Failed && s.delivery.Failing() != nil {
				j.errand.Alone = j.errand.Attempts > 0 // nothing goes through, alone or not
			}
			s.putOff(ctx, j, step)
		}
		return
	}
}

// putOff sees to it that a message is tried again: by us, or by whoever the stream
// hands it out to then.
func (s *Source) putOff(ctx context.Context, j *job, step delivery.Attempt) {
	after := step.RetryIn
	if step.Failed {
		j.tries.broke(j.message.Sequence(), j.errand)
	}
	switch {
	case after >= handBackAfter && (step.Failed || s.delivery.Failing() == nil):
		// It is this event that does not go through, or others do.
	case s.cfg.Now().Sub(later(j.received, j.errand.Since)) >= restAfter && j.window.crowded(s.windowLimit()):
		after = max(after, j.errand.Resting.Delay(restAfter, restCap, 0))
	default:
		s.agenda.later(j, after)
		return
	}
	j.in.handBack(j)
	s.release(ctx, j, after)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// acknowledge tells the stream that a message is done.
func (s *Source) acknowledge(ctx context.Context, j *job) {
	j.window.leave(j)
	s.tell(ctx, j, j.message.Ack, "acknowledge")
	if !j.window.abandoned() {
		j.tries.settle(j.message.Sequence(), j.errand)
	}
	j.window.drop(j)
	s.agenda.left(j, true)
}

// release gives a message back to its stream.
func (s *Source) release(ctx context.Context, j *job, after time.Duration) {
	s.tell(ctx, j, func() error { return j.message.Release(after) }, "release")
	j.window.drop(j)
	s.agenda.left(j, false)
}

// tell tells the stream what became of a message. If it does not hear it, the
// message comes again, which does no harm.
func (s *Source) tell(ctx context.Context, j *job, verb func() error, what string) {
	if err := j.window.tell(verb); err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "stream not told, the message will come again",
			slog.String("verb", what), slog.Uint64("sequence", j.message.Sequence()), slog.Any("err", err))
	}
}

// beat tells the streams now and then that the messages held are still at work.
func (s *Source) beat(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.Heartbeat / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := s.cfg.Now()
		for _, in := range s.inlets {
			_, window := in.current()
			if window == nil {
				continue
			}
			for _, j := range window.overdue(now.Add(-s.cfg.Heartbeat/2), now) {
				s.tell(ctx, j, j.message.InProgress, "heartbeat")
			}
		}
	}
}
