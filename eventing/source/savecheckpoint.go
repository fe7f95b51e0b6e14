package source

import (
	"context"
	"fmt"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// saveTimeout bounds one request for a position and one save.
	saveTimeout = 3 * time.Second

	// lastSaveTimeout bounds the last saves, which an ending process waits for.
	lastSaveTimeout = time.Second

	// settleInterval is the time between two of the last saves, and settleSaves how
	// many consecutive ones must find no change. A stream processes acknowledgements
	// asynchronously; if it processes one after the last save, the next process has to
	// assume that the database has lost the commit.
	settleInterval = 20 * time.Millisecond
	settleSaves    = 5

	// firstSave is when the first checkpoint is saved, by which other clusters see that
	// this one is active.
	firstSave = 200 * time.Millisecond

	// saveAnyway is the time between saves without a change, by which other clusters
	// see that this one is alive.
	saveAnyway = time.Minute
)

// saveCheckpoints saves the checkpoint of every stream repeatedly until ctx ends, and
// then until several saves in a row change nothing.
func (s *Source) saveCheckpoints(ctx context.Context) {
	timer := time.NewTimer(min(firstSave, s.cfg.SaveInterval))
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-timer.C:
			timer.Reset(s.cfg.SaveInterval)
			_ = s.saveAll(ctx)
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSaveTimeout)
	defer cancel()
	for quiet := 0; quiet < settleSaves && ctx.Err() == nil; quiet++ {
		if s.saveAll(ctx) {
			quiet = 0
		}
		time.Sleep(settleInterval)
	}
}

// saveAll reports whether any checkpoint changed.
func (s *Source) saveAll(ctx context.Context) (news bool) {
	if !s.active() {
		return false
	}
	for _, c := range s.consumers.current() {
		now, err := s.saveCheckpoint(ctx, c)
		if err != nil {
			s.saving.Failed(ctx, err)
		}
		news = news || now
	}
	return news
}

// saveCheckpoint reads the consumer's position and saves it if it has changed. If not, it
// verifies that the saved checkpoint still exists. Floor and head never decrease: if a
// stream reports less after a restart, the known values hold.
func (s *Source) saveCheckpoint(ctx context.Context, c *consumer) (news bool, err error) {
	p := &c.checkpoint
	p.mu.Lock()
	defer p.mu.Unlock()
	reader := c.currentReader()
	if reader == nil || p.known.Epoch != reader.Epoch() {
		return false, nil // the consumer has logged why
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	position, err := reader.Position(ctx)
	if err != nil {
		return false, nil // pulling fails for the same reason, and logs it
	}
	s.cfg.Metrics.position(c.stream.Name(), position)
	c.notePosition(position)
	c.reportRisk(ctx, reader)
	c.detectStall(ctx, position)
	if err := s.saveAttempts(ctx, c, reader, position.Floor); err != nil {
		return false, err
	}

	hedge := s.table.Hedge()
	row := ledger.CheckpointUpdate{
		Epoch: reader.Epoch(), Floor: max(position.Floor, p.known.Floor), Head: max(position.Head, p.saved.Head), Hedge: hedge.String(),
	}
	anyway := saveAnyway
	if hedge.Share && !s.ending.Load() {
		anyway = 0
		row.Fit, row.CommitP99 = !s.table.Behind() && s.sender.Ready() == nil, s.table.CommitP99()
	}
	if at := s.cfg.Now(); row != p.saved || at.Sub(p.at) >= anyway {
		var now ledger.Checkpoint
		if now, news, err = s.checkpoints.Save(ctx, s.cfg.Function, reader.Origin(), row, p.known); news {
			p.known, p.saved, p.at = now, row, at
		}
	}
	if err == nil && !news {
		err = c.verifyCheckpoint(ctx, reader)
	}
	if err != nil {
		return false, fmt.Errorf("save checkpoint of stream %s: %w", c.stream.Name(), err)
	}
	s.saving.Succeeded(ctx)
	return news, nil
}

// verifyCheckpoint verifies that the saved checkpoint still exists. If it does not, the
// stream is opened again, which finds the checkpoint from which to read.
func (c *consumer) verifyCheckpoint(ctx context.Context, reader eventing.Reader) error {
	p := &c.checkpoint
	stored, timeline, err := c.source.checkpoints.Load(ctx, c.source.cfg.Function, reader.Origin())
	if err != nil {
		return err
	}
	if stored.Epoch == p.known.Epoch && stored.Floor >= p.known.Floor && stored.Timeline == timeline && timeline == p.known.Timeline {
		p.known = stored // another process may have saved a higher one
		return nil
	}
	c.reopenStream()
	return nil
}
