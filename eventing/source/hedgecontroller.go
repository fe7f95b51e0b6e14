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
	// hedgeInterval is the time between reads of the configured hedge.
	hedgeInterval = time.Second

	// hedgeTimeout bounds one read of the hedge, and one request to stand by.
	hedgeTimeout = 2 * time.Second
)

// errAllStandBy is why a cluster does not stand by although its hedge is standby.
var errAllStandBy = errors.New("no other cluster has been at work in the last 3 minutes, so no cluster would process events: switch another cluster first")

// errBrokerRaces is why a cluster with a Broker can only race.
var errBrokerRaces = errors.New("a Broker commits nothing that another cluster could look up: want 0")

// hedgeController follows the wanted hedge. A hedge set at run time takes precedence over
// the configured one. While the database is unavailable, its last answer holds.
type hedgeController struct {
	wanted   eventing.Hedge // set at run time, or configured
	known    bool           // the database has answered, so wanted is known
	decided  bool           // the table has received a wanted hedge
	reading  *failurelog.Log
	standing *failurelog.Log
}

// followHedge follows the wanted hedge until ctx ends.
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

// updateHedge switches to the wanted hedge. Nothing is delivered until the hedge is
// known for the first time.
//
// The database grants standby, and is asked again while standby lasts, because a
// failover may have lost the grant. Standby ends in the database after delivery has
// started. That is repeated too, since this process does not know whether the previous
// one, which may have crashed, stood by.
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
		// The hedge does not change. A cluster that starts delivers nothing meanwhile,
		// and could not, since the database is unavailable.
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

// readHedge reads the wanted hedge. If the database does not answer, or returns a value
// that this source does not accept, the last hedge holds. A source that starts with such
// a value uses the configured hedge.
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

// wantedHedge returns the hedge that is set at run time. If none is set, without a
// ledger, or with an error, it returns the configured one. Answered is false if the
// database did not answer.
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
		return s.cfg.Hedge, true, fmt.Errorf("read the hedge set at run time: %w", err)
	}
	return want, true, nil
}

func (s *Source) standBy(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, hedgeTimeout)
	defer cancel()
	return s.checkpoints.StandBy(ctx, s.cfg.Function)
}

// endStandBy allows other clusters to stand by. An error is not reported: the call is
// retried a second later, and saving the checkpoint fails for the same reason.
func (s *Source) endStandBy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hedgeTimeout)
	defer cancel()
	_ = s.checkpoints.EndStandBy(ctx, s.cfg.Function)
}

// changeHedge sets the hedge, unless it is set already. When standby ends, it logs the
// backlog first.
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

// reportBacklog logs the number of unfinished messages of each stream. All of them are
// looked up before they are delivered.
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
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "standby ended; the size of the backlog is unknown, and all of it is looked up in the ledger: nothing to do",
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
