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
func (s *Source) deliver(ctx context.Context, j *message) {
	if j.table.abandoned() {
		j.table.remove(j)
		s.scheduler.finish(j, false)
		return
	}
	if ctx.Err() != nil {
		s.nak(ctx, j, 0)
		return
	}
	for {
		step, err := s.delivery.Attempt(ctx, j.delivery)
		switch {
		case err != nil:
			// A stream that gives such an event is broken. The message comes again
			// when its time is over.
			s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "message cannot be encoded; it will be redelivered",
				slog.Uint64("sequence", j.msg.Sequence()), slog.Any("err", err))
			j.table.remove(j)
			s.scheduler.finish(j, false)
		case step.Settled:
			if step.Result.Rejected && j.queue != nil {
				s.scheduler.blockSubject(j)
				s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "subject blocked behind its dead letter until there is a verdict",
					append(delivery.EventAttrs(j.delivery.Event), slog.String("event_subject", j.queue.subject))...)
			}
			s.cfg.Metrics.settled(ctx, step.Result, s.cfg.Now().Sub(j.msg.Arrived()))
			s.acknowledge(ctx, j)
		case ctx.Err() != nil:
			s.nak(ctx, j, 0)
		case step.RetryIn == 0:
			continue // to the dead letter sink
		default:
			if !step.Failed && s.delivery.Failing() != nil {
				j.delivery.Alone = j.delivery.Attempts > 0 // nothing goes through, alone or not
			}
			s.retryLater(ctx, j, step)
		}
		return
	}
}

// retryLater sees to it that a message is tried again: by us, or by whoever the stream
// hands it out to then.
func (s *Source) retryLater(ctx context.Context, j *message, step delivery.Attempt) {
	after := step.RetryIn
	if step.Failed {
		j.attempts.recordFailure(j.msg.Sequence(), j.delivery)
	}
	switch {
	case after >= handBackAfter && (step.Failed || s.delivery.Failing() == nil):
		// It is this event that does not go through, or others do.
	case s.cfg.Now().Sub(later(j.received, j.delivery.Since)) >= restAfter && j.table.crowded(s.windowLimit()):
		after = max(after, j.delivery.Resting.Delay(restAfter, restCap, 0))
	default:
		s.scheduler.retryLater(j, after)
		return
	}
	j.consumer.handBack(j)
	s.nak(ctx, j, after)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// acknowledge tells the stream that a message is done.
func (s *Source) acknowledge(ctx context.Context, j *message) {
	j.table.startAck(j)
	s.notify(ctx, j, j.msg.Ack, "acknowledge")
	if !j.table.abandoned() {
		j.attempts.forget(j.msg.Sequence(), j.delivery)
	}
	j.table.remove(j)
	s.scheduler.finish(j, true)
}

// nak gives a message back to its stream.
func (s *Source) nak(ctx context.Context, j *message, after time.Duration) {
	s.notify(ctx, j, func() error { return j.msg.Nak(after) }, "release")
	j.table.remove(j)
	s.scheduler.finish(j, false)
}

// notify tells the stream what became of a message. If it does not hear it, the
// message comes again, which does no harm.
func (s *Source) notify(ctx context.Context, j *message, verb func() error, what string) {
	if err := j.table.notify(verb); err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "could not notify the stream; the message will be redelivered",
			slog.String("verb", what), slog.Uint64("sequence", j.msg.Sequence()), slog.Any("err", err))
	}
}

// heartbeat tells the streams now and then that the messages held are still at work.
func (s *Source) heartbeat(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.Heartbeat / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := s.cfg.Now()
		for _, in := range s.consumers {
			_, window := in.currentReader()
			if window == nil {
				continue
			}
			for _, j := range window.overdue(now.Add(-s.cfg.Heartbeat/2), now) {
				s.notify(ctx, j, j.msg.InProgress, "heartbeat")
			}
		}
	}
}
