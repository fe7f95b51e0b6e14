package source

import (
	"context"
	"fmt"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// saveTimeout bounds one question for a position and one save.
	saveTimeout = 3 * time.Second

	// lastSaveTimeout bounds the last saves, for which an ending process waits.
	lastSaveTimeout = time.Second

	// settleInterval is the time between two of these, and settleSaves how many
	// in a row must bring no news: a stream takes acknowledgements in when it has
	// time, and what it has taken in after the last save looks to the next process
	// as if the database had lost it.
	settleInterval = 20 * time.Millisecond
	settleSaves    = 5

	// firstSave is when the first checkpoint is saved: the others see by it that this
	// cluster is at work.
	firstSave = 200 * time.Millisecond

	// saveAnyway is how often progress is saved though nothing happened, so that
	// others can see that this cluster is alive.
	saveAnyway = time.Minute
)

// saveCheckpoints saves the progress of every stream, again and again until ctx ends, and
// then until nothing changes any more.
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

// saveAll reports whether there was anything new.
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

// saveCheckpoint asks where in the stream we are and saves it if that is news; if not, it
// looks whether what was saved is still there. What is acknowledged stays so, and
// what was handed out: if a stream reports less after a restart, what is known
// counts.
func (s *Source) saveCheckpoint(ctx context.Context, c *consumer) (news bool, err error) {
	p := &c.checkpoint
	p.mu.Lock()
	defer p.mu.Unlock()
	reader := c.currentReader()
	if reader == nil || p.known.Epoch != reader.Epoch() {
		return false, nil // the consumer has said why
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	position, err := reader.Position(ctx)
	if err != nil {
		return false, nil // pulling meets the same and says so
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
		return false, fmt.Errorf("save progress in stream %s: %w", c.stream.Name(), err)
	}
	s.saving.Succeeded(ctx)
	return news, nil
}

// verifyCheckpoint looks whether what was saved is still there, and has the stream opened
// again if it is not, which finds the place in it anew.
func (c *consumer) verifyCheckpoint(ctx context.Context, reader eventing.Reader) error {
	p := &c.checkpoint
	stored, timeline, err := c.source.checkpoints.Load(ctx, c.source.cfg.Function, reader.Origin())
	if err != nil {
		return err
	}
	if stored.Epoch == p.known.Epoch && stored.Floor >= p.known.Floor && stored.Timeline == timeline && timeline == p.known.Timeline {
		p.known = stored // by another process, if it is more
		return nil
	}
	c.reopenStream()
	return nil
}
