package source

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
)

// acknowledge acknowledges a finished entry. If the acknowledgement is lost, it is sent
// again when the floor has stalled, or when the message is redelivered.
func (s *Source) acknowledge(ctx context.Context, e *inflight.Entry) {
	s.notifyStream(ctx, e, e.Message.Ack, "acknowledge")
}

// handBack returns an entry to its stream when the process ends.
func (s *Source) handBack(ctx context.Context, e *inflight.Entry) {
	s.notifyStream(ctx, e, e.Message.Nak, "release")
}

// handBackAll closes the table and returns to the streams every entry that is in no
// request or lookup.
func (s *Source) handBackAll(ctx context.Context) {
	entries := s.table.Close()
	for _, e := range entries {
		s.handBack(ctx, e)
	}
	s.countLost(ctx, entries)
}

// countLost counts the entries that this process hands back although the stream has deleted
// their messages: no process can deliver them. Entries whose attempts are stored are counted by
// the next process that reads the stream.
func (s *Source) countLost(ctx context.Context, entries []*inflight.Entry) {
	if len(entries) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSaveTimeout)
	defer cancel()
	deleted := map[*consumer][]uint64{}
	for _, e := range entries {
		c, ok := ownerOf(e).(*consumer)
		if ok && !e.Abandoned() && e.Sequence() < c.latestFloor() && (s.cfg.Attempts == nil || !c.currentAttempts().has(e.Sequence())) {
			deleted[c] = append(deleted[c], e.Sequence())
		}
	}
	for c, sequences := range deleted {
		reader := c.currentReader()
		if reader == nil {
			continue
		}
		slices.Sort(sequences)
		if missing, err := missingOf(ctx, reader, sequences); err == nil && len(missing) > 0 {
			c.vanished(ctx, missing[0], uint64(len(missing)))
		}
	}
}

// notifyStream acknowledges an entry to its stream, or returns it, by calling verb, if this
// process is active. If the stream does not receive that, the message is redelivered, which
// is harmless.
func (s *Source) notifyStream(ctx context.Context, e *inflight.Entry, verb func() error, what string) {
	if !s.active() {
		return
	}
	if err := e.Tell(verb); err != nil {
		s.reportUntold(ctx, e.Message, what, err)
	}
}

func (s *Source) reportUntold(ctx context.Context, m eventing.Message, what string, err error) {
	s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "could not notify the stream; the message will be redelivered",
		slog.String("verb", what), slog.Uint64("sequence", m.Sequence()), slog.Any("err", err))
}

// ackAtOnce acknowledges a message that needs no delivery, if this process is active.
func (s *Source) ackAtOnce(ctx context.Context, m eventing.Message) {
	if !s.active() {
		return
	}
	if err := m.Ack(); err != nil {
		s.reportUntold(ctx, m, "acknowledge", err)
	}
}

// heartbeat periodically extends the time until the messages in flight are redelivered.
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
		if !s.active() {
			continue
		}
		for _, c := range s.consumers.current() {
			c.partition.Heartbeat(now.Add(-s.cfg.Heartbeat/2), now, func(m eventing.Message) {
				if err := m.InProgress(); err != nil {
					s.reportUntold(ctx, m, "heartbeat", err)
				}
			})
		}
	}
}
