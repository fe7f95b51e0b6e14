package eventing

import (
	"context"
	"fmt"
	"time"
)

const (
	// saveTimeout bounds one question for a position and one save.
	saveTimeout = 3 * time.Second

	// lastSaveTimeout bounds the last save, for which an ending process waits.
	lastSaveTimeout = time.Second

	// saveAnyway is how often progress is saved though nothing happened, so that
	// others can see that this cluster is alive.
	saveAnyway = time.Minute
)

// saved is what was saved last for a stream.
type saved struct {
	epoch       string
	floor, head uint64
	hedge       string
	at          time.Time
}

// save saves the progress of every stream, again and again until ctx ends, and
// once more then.
func (s *Source) save(ctx context.Context) {
	last := make(map[*inlet]saved, len(s.inlets))
	ticker := time.NewTicker(s.cfg.SaveInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.saveAll(ctx, last)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSaveTimeout)
			defer cancel()
			s.saveAll(ctx, last)
			return
		}
	}
}

func (s *Source) saveAll(ctx context.Context, last map[*inlet]saved) {
	for _, in := range s.inlets {
		now, err := s.saveOne(ctx, in, last[in])
		if err != nil {
			s.saving.failed(ctx, err)
			continue
		}
		last[in] = now
	}
}

// saveOne asks where in the stream we are and saves it if that is news. What is
// acknowledged stays so, and what was handed out: if a stream reports less after
// a restart, what is known counts.
func (s *Source) saveOne(ctx context.Context, in *inlet, last saved) (saved, error) {
	reader, _ := in.current()
	if reader == nil {
		return last, nil // the inlet has said why
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	position, err := reader.Position(ctx)
	if err != nil {
		return last, nil // pulling meets the same and says so
	}
	s.cfg.Metrics.position(in.stream.Name(), position)
	in.watch(ctx, position)
	if err := s.saveTries(ctx, in, reader, position.Floor); err != nil {
		return last, err
	}

	now := saved{epoch: reader.Epoch(), floor: position.Floor, head: position.Head, hedge: s.agenda.current().String(), at: s.cfg.Now()}
	if now.epoch == last.epoch {
		now.floor, now.head = max(now.floor, last.floor), max(now.head, last.head)
		if now.floor == last.floor && now.head == last.head && now.hedge == last.hedge && now.at.Sub(last.at) < saveAnyway {
			return last, nil
		}
	}
	if err := s.progress.Save(ctx, s.cfg.Function, reader.Origin(), now.epoch, now.floor, now.head, now.hedge); err != nil {
		return last, fmt.Errorf("save progress in stream %s: %w", in.stream.Name(), err)
	}
	s.saving.succeeded(ctx)
	return now, nil
}
