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

// rewindTimeout bounds the finding of a place, a rewind included.
const rewindTimeout = 30 * time.Second

// rewindRetry is after what time a rewind is tried again while the stream is read on.
const rewindRetry = 15 * time.Second

// checkpoint is how far a consumer has come, as far as the database knows.
//
// # Design
//
// A failover to a standby that lags loses commits of which the stream was told that
// they are done. Since its log is a prefix of the primary's, a floor that survived
// says that everything below it has survived too; what is above may be gone. So who
// finds that there was a failover (another timeline, or a lower floor than was
// saved) has the stream hand out again everything from the surviving floor on, and
// the ledger tells what is done.
//
// The order is: nothing is acknowledged any more of what was handed out before; it
// is stored that a rewind is due; the stream is rewound; the new timeline is stored.
// Whoever ends in between leaves a row that has the next one begin anew with it.
//
// If the primary of before takes over again, its row has its own timeline and its own floor,
// which may be the higher one: nothing in the database shows that there was another primary in
// between, and that events acknowledged then are not in this one. Only the process knows that,
// from the timeline on which it saved last. So it rewinds whenever that is another one. If a
// second process of the cluster has rewound the stream before, that costs lookups.
//
// A stream that lost messages which were delivered, as Kafka after an unclean election,
// is rewound in the same order, to where it diverges: the floor goes back, and the horizon
// with it, as the messages from there on are others.
//
// A source that begins remembers no floor. The stream's own stands for it: it is
// ahead of the database's by what was acknowledged since the last save. Without a
// failover that is a second's worth; but the database may as well have been put back to an
// older copy of its files. So these messages are read by their sequences, where the stream
// can do that, and looked up; the consumer stays as it is.
type checkpoint struct {
	mu    sync.Mutex              // held while it is sought, and while it is saved
	known ledger.Checkpoint       // as stored last; the zero value if that is not known
	saved ledger.CheckpointUpdate // last; the zero value if that has to be done in any case
	at    time.Time               // and when

	risk string // that was reported last
}

// beginAt says where a place is made if the stream has none: at its beginning, as who
// deleted it wants everything again, unless that was a rewind that did not come to
// its end.
func (c *consumer) beginAt(ctx context.Context, origin, epoch string) (uint64, error) {
	c.checkpoint.mu.Lock()
	remembered := c.checkpoint.known.Epoch == epoch
	c.checkpoint.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	stored, _, err := c.source.checkpoints.Load(ctx, c.source.cfg.Function, origin)
	switch {
	case err != nil && !remembered:
		return 0, fmt.Errorf("ask where to begin: %w", err)
	case err == nil && stored.Epoch == epoch && stored.Timeline == "":
		return stored.Floor, nil
	default:
		return 0, nil
	}
}

// findCheckpoint compares what is stored with what is remembered, and has the stream
// rewound if some of what it took for done may be lost. It gives the sequence before
// which messages may be done all the same; 0 if it was not rewound.
//
// Without an answer of the database nothing is delivered, but by who had one before:
// what is amiss shows when progress is saved.
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
		// The timeline is not the one that this process saved on last. That the floor is as high
		// as that one's does not mean that another process has rewound the stream: it is, too, if
		// the primary of before took over again, without the commits in between.
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

// reread has the messages that were acknowledged after the last save read again, without a
// change of the consumer: most are done, and the ledger has which. It reports false if that
// takes a rewind.
func (c *consumer) reread(ctx context.Context, reader eventing.Reader, floor uint64) (late uint64, ok bool, err error) {
	r, is := reader.(redeliverer)
	if !is {
		return 0, false, nil
	}
	late, ok, err = r.Reread(ctx, floor)
	if ok && err == nil {
		c.source.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "the last checkpoint was not saved; messages since are looked up",
			slog.String("stream", c.stream.Name()), slog.Uint64("from", floor), slog.Uint64("messages", late-min(late, max(floor, 1))))
	}
	return late, ok, err
}

// rewind has the stream hand out again everything that may be lost. Stored is what
// has survived.
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
		late = position.Head + position.Pending // somebody who could not finish has seen to it
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
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the stream lost messages that were delivered; it is re-read from where it diverges, and effects of lost messages remain",
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

// readOn has the stream read on although it could not be rewound, as while the servers that
// change consumers are unreachable, and rewound later. Until then no checkpoint is saved, so
// that what may be lost is still known. With order it returns the cause: an event must not
// overtake one that may be lost.
func (c *consumer) readOn(ctx context.Context, reader eventing.Reader, cause error) error {
	if c.source.cfg.Ordered || c.isTruncated() {
		return cause
	}
	asking, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if _, err := reader.Position(asking); err != nil {
		return cause
	}
	c.source.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "could not rewind the stream; reading on, and what may be lost is re-read later",
		slog.String("stream", c.stream.Name()), slog.Any("err", cause))
	time.AfterFunc(rewindRetry, c.reopenStream)
	return nil
}

// orReopen is the error, or, without one, that another process is at it too: what is
// stored is to be looked at again.
func orReopen(err error) error {
	if err == nil {
		return errReopen
	}
	return err
}

// savedFloor returns the floor that is stored, as far as is known.
func (c *consumer) savedFloor() uint64 {
	c.checkpoint.mu.Lock()
	defer c.checkpoint.mu.Unlock()
	return c.checkpoint.known.Floor
}
