package source

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
)

const (
	// modeInterval is how often a source looks how much redundancy is wanted.
	modeInterval = time.Second

	// modeTimeout bounds one look, and one question whether it may stand by.
	modeTimeout = 2 * time.Second
)

// errAllStandBy says why a cluster does not stand by though it is told to.
var errAllStandBy = errors.New("no other cluster has been at work in the last 3 minutes, and nothing would be done: switch another one first")

// mode follows how much redundancy is wanted. What the switch says wins; if it
// cannot be asked, what it said last; then the configuration.
type mode struct {
	wanted   eventing.Hedge // by the switch, or the configuration
	decided  bool           // the agenda has a hedge that was wanted
	reading  *failurelog.Log
	standing *failurelog.Log
}

// followMode follows what is wanted until ctx ends.
func (s *Source) followMode(ctx context.Context) {
	ticker := time.NewTicker(modeInterval)
	defer ticker.Stop()
	for {
		s.lookAtMode(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookAtMode finds out what is wanted, and does it. Until it is known for the
// first time nothing is delivered.
func (s *Source) lookAtMode(ctx context.Context) {
	s.mode.wanted = s.wanted(ctx)
	want, now := s.mode.wanted, s.agenda.current()
	switch {
	case ctx.Err() != nil || s.mode.decided && want == now:
		return
	case !want.Standby:
		s.mode.standing.Succeeded(ctx)
		s.change(ctx, want)
		return
	}
	granted, err := s.standBy(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		// It stays as it is. A cluster that begins delivers nothing meanwhile, and
		// could not, since the database is away.
		s.mode.standing.Failed(ctx, err)
	case granted:
		s.mode.standing.Succeeded(ctx)
		s.change(ctx, want)
	case err == nil:
		s.mode.standing.Failed(ctx, errAllStandBy)
		if !s.mode.decided {
			s.change(ctx, eventing.Hedge{})
		}
	}
}

// wanted asks the switch.
func (s *Source) wanted(ctx context.Context) eventing.Hedge {
	if s.cfg.Switch == nil {
		return s.cfg.Hedge
	}
	asking, cancel := context.WithTimeout(ctx, modeTimeout)
	defer cancel()
	value, err := s.cfg.Switch.Hedge(asking, s.cfg.Function)
	want := s.cfg.Hedge
	if err == nil && value != "" {
		want, err = eventing.ParseHedge(value)
	}
	if err != nil {
		if ctx.Err() == nil {
			s.mode.reading.Failed(ctx, err)
		}
		return s.mode.wanted
	}
	s.mode.reading.Succeeded(ctx)
	return want
}

func (s *Source) standBy(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, modeTimeout)
	defer cancel()
	return s.progress.StandBy(ctx, s.cfg.Function)
}

// change makes a hedge the one that counts. Who stops standing by says first what
// has been left lying.
func (s *Source) change(ctx context.Context, to eventing.Hedge) {
	from := s.agenda.current()
	if s.mode.decided && from.Standby {
		s.reportBacklog(ctx)
	}
	s.agenda.set(to)
	if s.mode.decided || !to.Race() {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "redundancy is switched",
			slog.String("hedge", to.String()), slog.String("hedge_before", s.hedgeBefore(from)))
	}
	s.mode.decided = true
}

func (s *Source) hedgeBefore(from eventing.Hedge) string {
	if !s.mode.decided {
		return "none"
	}
	return from.String()
}

// reportBacklog says for each stream what is not done yet. All of it is asked
// about before it is delivered.
func (s *Source) reportBacklog(ctx context.Context) {
	for _, in := range s.inlets {
		reader, window := in.current()
		if reader == nil {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, modeTimeout)
		position, err := reader.Position(asking)
		cancel()
		if err != nil {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "standing by ends, the backlog is not known",
				slog.String("stream", in.stream.Name()), slog.Any("err", err))
			continue
		}
		in.late(position.Head + position.Pending)
		_, oldest := window.holds(s.cfg.Now())
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "standing by ends, this is the backlog",
			slog.String("stream", in.stream.Name()), slog.Uint64("messages", position.Pending+position.Unacknowledged),
			slog.String("oldest", oldest.Round(time.Millisecond).String()))
	}
}
