package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
)

const (
	// hedgeInterval is how often a source reads how much redundancy is wanted.
	hedgeInterval = time.Second

	// hedgeTimeout bounds one read of it, and one question whether the cluster may stand
	// by.
	hedgeTimeout = 2 * time.Second
)

// errAllStandBy is why a cluster does not stand by although that is wanted.
var errAllStandBy = errors.New("no other cluster has been at work in the last 3 minutes, and nothing would be done: switch another one first")

// errBrokerRaces is why a cluster with a Broker does nothing but race.
var errBrokerRaces = errors.New("a Broker commits nothing that another cluster could look up; want 0")

// hedgeController follows how much redundancy is wanted. What is set at run time wins over
// the configuration. While the database does not answer, its last answer holds.
type hedgeController struct {
	wanted   eventing.Hedge // set at run time, or configured
	known    bool           // wanted is known: the database has answered
	decided  bool           // the table has a hedge that was wanted
	reading  *failurelog.Log
	standing *failurelog.Log
}

// followHedge follows what is wanted until ctx ends.
func (s *Source) followHedge(ctx context.Context) {
	ticker := time.NewTicker(hedgeInterval)
	defer ticker.Stop()
	for {
		s.updateHedge(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// updateHedge changes to the wanted hedge. Nothing is delivered until it is known for
// the first time.
//
// Standby is granted by the database, and asked for again while it lasts: a failover
// may have lost the grant. It ends there after delivery has started, and that is
// repeated too, since this process does not know whether the one before it, which may
// have crashed, stood by.
func (s *Source) updateHedge(ctx context.Context) {
	s.readHedge(ctx)
	want := s.hedge.wanted
	switch {
	case ctx.Err() != nil || !s.hedge.known:
		return
	case !want.Standby:
		s.hedge.standing.Succeeded(ctx)
		s.changeHedge(ctx, want)
		s.endStandBy(ctx)
		return
	}
	granted, err := s.standBy(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		// The hedge stays as it is. A cluster that starts delivers nothing meanwhile, and
		// could not, since the database is unavailable.
		s.hedge.standing.Failed(ctx, err)
	case granted:
		s.hedge.standing.Succeeded(ctx)
		s.changeHedge(ctx, want)
	case err == nil:
		s.hedge.standing.Failed(ctx, errAllStandBy)
		if !s.hedge.decided || s.table.Hedge().Standby {
			s.changeHedge(ctx, eventing.Hedge{})
		}
	}
}

// readHedge reads which hedge is wanted. If the database does not answer, or with a value
// that this source does not accept, the last one holds. A source that starts with such a
// value takes the configured hedge.
func (s *Source) readHedge(ctx context.Context) {
	want, answered, err := s.wantedHedge(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		s.hedge.reading.Succeeded(ctx)
		s.hedge.wanted, s.hedge.known = want, true
	default:
		s.hedge.reading.Failed(ctx, err)
		if !s.hedge.known {
			s.hedge.wanted, s.hedge.known = want, answered
		}
	}
}

// wantedHedge returns the hedge that is set at run time. If none is, without a ledger, or
// with an error, it returns the configured one. Answered is false if the database did not
// answer.
func (s *Source) wantedHedge(ctx context.Context) (want eventing.Hedge, answered bool, err error) {
	if s.cfg.Ledger == nil {
		return s.cfg.Hedge, true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, hedgeTimeout)
	defer cancel()
	value, err := s.checkpoints.Hedge(ctx, s.cfg.Function)
	if err != nil || value == "" {
		return s.cfg.Hedge, err == nil, err
	}
	if want, err = eventing.ParseHedge(value); err == nil && s.sender.Broker() && !want.Race() {
		err = fmt.Errorf("%q: %w", value, errBrokerRaces)
	}
	if err != nil {
		return s.cfg.Hedge, true, fmt.Errorf("the hedge that was set: %w", err)
	}
	return want, true, nil
}

func (s *Source) standBy(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, hedgeTimeout)
	defer cancel()
	return s.checkpoints.StandBy(ctx, s.cfg.Function)
}

// endStandBy lets other clusters stand by. An error is not reported: it is retried a
// second later, and saving the checkpoint fails for the same reason.
func (s *Source) endStandBy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hedgeTimeout)
	defer cancel()
	_ = s.checkpoints.EndStandBy(ctx, s.cfg.Function)
}

// changeHedge sets the hedge, unless it is set already. At the end of standby, the
// backlog is logged first.
func (s *Source) changeHedge(ctx context.Context, to eventing.Hedge) {
	from := s.table.Hedge()
	if s.hedge.decided && from == to {
		return
	}
	if s.hedge.decided && from.Standby {
		s.reportBacklog(ctx)
	}
	s.table.SetHedge(to)
	if s.hedge.decided || !to.Race() {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "hedge switched",
			slog.String("hedge", to.String()), slog.String("hedge_before", s.hedgeBefore(from)))
	}
	s.hedge.decided = true
}

func (s *Source) hedgeBefore(from eventing.Hedge) string {
	if !s.hedge.decided {
		return "none"
	}
	return from.String()
}

// reportBacklog says for each stream what is not done yet. All of it is asked
// about before it is delivered.
func (s *Source) reportBacklog(ctx context.Context) {
	for _, c := range s.consumers.current() {
		reader := c.currentReader()
		if reader == nil {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, hedgeTimeout)
		position, err := reader.Position(asking)
		cancel()
		if err != nil {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "standby ended; the backlog is unknown",
				slog.String("stream", c.stream.Name()), slog.Any("err", err))
			continue
		}
		c.partition.LookUpBelow(position.Head + position.Pending)
		_, oldest := c.partition.Oldest(s.cfg.Now())
		s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "standby ended",
			slog.String("stream", c.stream.Name()), slog.Uint64("messages", position.Pending+position.Unacknowledged),
			slog.String("oldest", oldest.Round(time.Millisecond).String()))
	}
}
