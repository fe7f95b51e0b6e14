package source

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// rewindTimeout bounds finding the checkpoint, including a rewind.
const rewindTimeout = 30 * time.Second

// rewindRetry is the time after which a failed rewind is retried while reading
// continues.
const rewindRetry = 15 * time.Second

// checkpoint is the progress of a consumer as saved in the database.
//
// # Design
//
// A failover to a lagging standby loses commits of events that were already acknowledged to
// the stream. The standby's log is a prefix of the primary's, so if a floor survived, the
// commits of all events below it survived too; commits above it may be lost. Therefore a
// process that detects a failover (another timeline, or a floor lower than the one it saved)
// makes the stream redeliver everything from the surviving floor on, and looks up in the
// ledger which events are committed.
//
// The order of the steps: acknowledgements of messages that were delivered before stop; a row
// records that a rewind is due; the stream is rewound; the new timeline is saved. If a process
// ends between two steps, the row makes the next process start over with the rewind.
//
// If the former primary takes over again, its row has its own timeline and its own floor,
// which may be the higher one. Nothing in the database then shows that there was another
// primary in between, and that events acknowledged at that time are missing. Only the process
// knows, from the timeline on which it saved last; it rewinds whenever the timeline differs.
// If a second process of the cluster has already rewound the stream, this costs only lookups.
//
// If a stream lost messages that were delivered, like Kafka after an unclean election, it is
// rewound in the same order to the point of divergence: the floor is lowered, and the horizon
// with it, because other messages have the sequences from there on.
//
// A source that starts remembers no floor and takes the stream's. It is ahead of the saved
// floor by the messages acknowledged since the last save. Without a failover these are a
// second's worth; but the database may also have been restored from an older copy. So these
// messages are read by their sequences, if the stream can do that, and looked up. The consumer
// is not changed.
type checkpoint struct {
	mu    sync.Mutex              // held while the checkpoint is found, and while it is saved
	known ledger.Checkpoint       // as stored last; the zero value if unknown
	saved ledger.CheckpointUpdate // last; the zero value forces a save
	at    time.Time               // when saved was saved

	risk string // the latest reported risk
}

// beginAt returns the sequence at which a new consumer starts. In a cluster without a
// checkpoint it is the horizon, below which nothing is delivered. In others it is the
// beginning, because an operator who deletes a consumer wants everything redelivered, unless
// the consumer was deleted by a rewind that did not complete.
func (c *consumer) beginAt(ctx context.Context, origin, epoch string) (uint64, error) {
	c.checkpoint.mu.Lock()
	remembered := c.checkpoint.known.Epoch == epoch
	c.checkpoint.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	stored, _, err := c.source.checkpoints.Load(ctx, c.source.cfg.Function, origin)
	switch {
	case err != nil && !remembered:
		return 0, fmt.Errorf("load the checkpoint at which the consumer begins: %w", err)
	case err != nil:
		return 0, nil
	case stored.Epoch != epoch:
		return c.source.checkpoints.Horizon(ctx, c.source.cfg.Function, origin, epoch)
	case stored.Timeline == "":
		return stored.Floor, nil
	}
	return 0, nil
}

// findCheckpoint compares the stored checkpoint with the remembered one, and rewinds
// the stream if commits may be lost. It returns the sequence below which messages may
// nevertheless be committed; 0 if the stream was not rewound.
//
// If the database is unavailable, nothing is delivered, unless this process has loaded
// the checkpoint before: saving the next one then detects a failover.
func (c *consumer) findCheckpoint(ctx context.Context, reader eventing.Reader, horizon uint64) (late uint64, err error) {
	p := &c.checkpoint
	p.mu.Lock()
	defer p.mu.Unlock()
	asking, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	remembered := p.known.Epoch == reader.Epoch()
	stored, timeline, err := c.source.checkpoints.Load(asking, c.source.cfg.Function, reader.Origin())
	switch {
	case err != nil && remembered && !c.isTruncated():
		return 0, nil
	case err != nil:
		return 0, err
	case c.isTruncated():
	case stored.Epoch != reader.Epoch() || stored.Timeline != timeline:
	case remembered && stored.Floor >= p.known.Floor && p.known.Timeline == timeline:
		p.known = stored
		return 0, nil
	case remembered:
		// The timeline differs from the one on which this process saved last. A floor at least as
		// high as the remembered one does not prove that another process has rewound the stream:
		// the former primary may have taken over again, without the commits made in between.
	default:
		position, err := reader.Position(ctx)
		if err != nil {
			return 0, err
		}
		floor := max(stored.Floor, horizon)
		if position.Floor <= floor {
			p.known = stored
			return 0, nil
		}
		if late, ok, err := c.reread(ctx, reader, floor); ok || err != nil {
			p.known = stored
			return late, err
		}
	}
	return c.rewind(ctx, reader, horizon, stored, timeline)
}

// reread reads the messages that were acknowledged after the last save again, without
// changing the consumer. Most are committed, and are looked up in the ledger. It reports
// false if this needs a rewind.
func (c *consumer) reread(ctx context.Context, reader eventing.Reader, floor uint64) (late uint64, ok bool, err error) {
	r, is := reader.(redeliverer)
	if !is {
		return 0, false, nil
	}
	late, ok, err = r.Reread(ctx, floor)
	if ok && err == nil {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the last checkpoint was not saved; messages acknowledged since are looked up",
			slog.String("stream", c.stream.Name()), slog.Uint64("from", floor), slog.Uint64("messages", late-min(late, max(floor, 1))))
	}
	return late, ok, err
}

// rewind makes the stream redeliver every message whose commit may be lost. Stored is
// the checkpoint that survived.
func (c *consumer) rewind(ctx context.Context, reader eventing.Reader, horizon uint64, stored ledger.Checkpoint, timeline string) (late uint64, err error) {
	p, s := &c.checkpoint, c.source
	running := ctx
	ctx, cancel := context.WithTimeout(ctx, rewindTimeout)
	defer cancel()
	c.partition.Abandon()
	crash := p.known == ledger.Checkpoint{} && stored.Epoch == reader.Epoch() && stored.Timeline == timeline
	p.known, p.saved = ledger.Checkpoint{}, ledger.CheckpointUpdate{}

	position, err := reader.Position(ctx)
	if err != nil {
		return 0, err
	}
	row := ledger.CheckpointUpdate{Epoch: reader.Epoch(), Floor: horizon, Hedge: eventing.Hedge{}.String(), Rewind: true}
	if stored.Epoch == reader.Epoch() {
		row.Floor = max(stored.Floor, horizon)
	}
	truncated := c.isTruncated()
	if truncated {
		row.Floor, row.Truncated = min(row.Floor, position.Floor), true
	}
	row.Head = max(position.Head, row.Floor)
	now, ok, err := s.checkpoints.Save(ctx, s.cfg.Function, reader.Origin(), row, stored)
	if err != nil || !ok {
		return 0, orReopen(err)
	}
	if late, err = reader.Rewind(ctx, row.Floor); err != nil {
		return 0, c.readOn(running, reader, fmt.Errorf("rewind stream %s to %d: %w", c.stream.Name(), row.Floor, err))
	}
	if late == 0 && stored.Epoch == reader.Epoch() && stored.Timeline == "" {
		late = position.Head + position.Pending // an interrupted rewind has done this already
	}
	row.Rewind, row.Adopt, row.Truncated = false, true, false
	now, ok, err = s.checkpoints.Save(ctx, s.cfg.Function, reader.Origin(), row, now)
	if err != nil || !ok {
		return 0, orReopen(err)
	}
	p.known = now
	if truncated {
		c.setTruncated(false)
		s.cfg.Metrics.rewoundOne(ctx)
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the stream lost messages that were delivered; it is re-read from the point of divergence, and effects of the lost messages remain in the database: publish the lost messages again for the other clusters",
			slog.String("stream", c.stream.Name()), slog.Uint64("from", row.Floor), slog.Uint64("diverges", position.Floor), slog.Uint64("floor_before", stored.Floor))
		return max(late, position.Head), nil
	}
	if late == 0 {
		return 0, nil
	}
	s.cfg.Metrics.rewoundOne(ctx)
	attrs := []slog.Attr{
		slog.String("stream", c.stream.Name()), slog.Uint64("from", row.Floor), slog.Uint64("messages", late-max(row.Floor, 1)),
		slog.String("timeline", timeline), slog.String("timeline_before", stored.Timeline),
	}
	if crash {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the last checkpoint was not saved; the stream is re-read from it", attrs...)
	} else {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "the database may have lost commits; the stream is re-read from the checkpoint that survived", attrs...)
	}
	return late, nil
}

// readOn keeps reading a stream that could not be rewound, for example because the servers
// that change consumers are unreachable, and schedules another rewind. Until that succeeds
// no checkpoint is saved, so that it remains known which commits may be lost. If the source
// keeps the order, readOn returns the cause, because an event must not overtake one whose
// commit may be lost.
func (c *consumer) readOn(ctx context.Context, reader eventing.Reader, cause error) error {
	if c.source.cfg.Ordered || c.isTruncated() {
		return cause
	}
	asking, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if _, err := reader.Position(asking); err != nil {
		return cause
	}
	c.source.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "could not rewind the stream; reading continues, and the rewind is retried: check that the stream's servers have a quorum",
		slog.String("stream", c.stream.Name()), slog.Any("err", cause))
	time.AfterFunc(rewindRetry, c.reopenStream)
	return nil
}

// orReopen returns err. If err is nil, another process changed the checkpoint at the
// same time, and orReopen returns errReopen, so that the checkpoint is loaded again.
func orReopen(err error) error {
	if err == nil {
		return errReopen
	}
	return err
}

// savedFloor returns the floor of the latest known checkpoint.
func (c *consumer) savedFloor() uint64 {
	c.checkpoint.mu.Lock()
	defer c.checkpoint.mu.Unlock()
	return c.checkpoint.known.Floor
}
