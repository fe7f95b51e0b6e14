package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// recreateTimeout bounds the deletion and creation of a consumer, also while the
// process ends.
const recreateTimeout = 20 * time.Second

// Rewind recreates the consumer, because not every server can rewind one. A stream that
// deletes acknowledged messages cannot be read again; Rewind then logs this, and does
// not change the consumer.
func (r *reader) Rewind(ctx context.Context, to uint64) (head uint64, err error) {
	stream, err := r.conn.findStream(ctx, r.stream.cfg)
	if err != nil {
		return 0, err
	}
	position, handedOut, err := r.position(ctx)
	if err != nil {
		return 0, err
	}
	info := stream.CachedInfo()
	wanted := max(to, 1)
	to = max(wanted, info.State.FirstSeq)
	if handedOut == 0 || position.Head <= to || position.Unacknowledged >= position.Head-to {
		// A purge while no process ran has moved the consumer.
		if end := min(to, r.seen.last+1); end > wanted && info.Config.Retention == natsjs.LimitsPolicy {
			r.vanished(wanted, end-wanted)
		}
		return 0, nil
	}
	if info.Config.Retention != natsjs.LimitsPolicy {
		r.conn.logger.LogAttrs(ctx, slog.LevelError, "stream has deleted acknowledged messages, which cannot be re-read: set its retention to limits",
			slog.String("stream", r.stream.cfg.String()), slog.String("retention", info.Config.Retention.String()), slog.Uint64("from", to))
		return 0, nil
	}

	if to > wanted {
		r.vanished(wanted, to-wanted)
	}

	if err := r.stream.checkChangeable(ctx, r.consumer.CachedInfo().Config); err != nil {
		return 0, err
	}

	// From here on a restart must not interrupt it: a half-deleted consumer cannot be
	// opened.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recreateTimeout)
	defer cancel()
	if err := r.stream.deleteConsumer(ctx); err != nil {
		return 0, err
	}
	want := r.want
	want.state = info.State
	want.open.Begin = func(context.Context, string, string) (uint64, error) { return to, nil }
	r.consumer, err = repeat(ctx, func(ctx context.Context) (natsjs.Consumer, error) { return r.stream.configure(ctx, want) })
	if err != nil {
		return 0, err
	}
	r.delivered = r.consumer.CachedInfo().Delivered.Consumer
	r.seen = r.stream.seenOf(want.origin, r.consumer.CachedInfo())
	r.next, r.end, r.reclaimed = 0, 0, false
	r.stream.forgetReread()
	return position.Head, nil
}

// checkChangeable returns an error if the servers that change consumers do not answer. It
// changes nothing.
func (s *Stream) checkChangeable(ctx context.Context, is natsjs.ConsumerConfig) error {
	ctx, cancel := s.conn.api(ctx)
	defer cancel()
	if _, err := s.conn.in(s.cfg.Domain).UpdateConsumer(ctx, s.cfg.Name, is); err != nil {
		return fmt.Errorf("change consumer %s of stream %s: %w", s.consumer, s.cfg, because(ctx, err))
	}
	return nil
}

// deleteConsumer deletes the consumer if it exists.
func (s *Stream) deleteConsumer(ctx context.Context) error {
	_, err := repeat(ctx, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := s.conn.api(ctx)
		defer cancel()
		err := s.conn.in(s.cfg.Domain).DeleteConsumer(ctx, s.cfg.Name, s.consumer)
		return struct{}{}, because(ctx, err)
	})
	if err != nil && !errors.Is(err, natsjs.ErrConsumerNotFound) {
		return fmt.Errorf("delete consumer %s of stream %s: %w", s.consumer, s.cfg, err)
	}
	return nil
}

// recreate deletes a consumer that the server can neither create nor change, and
// creates it again at the sequence of [eventing.OpenConfig.Begin], or else at its own
// floor.
func (s *Stream) recreate(ctx context.Context, want consumerWanted, cause error) (natsjs.Consumer, error) {
	s.conn.logger.LogAttrs(ctx, slog.LevelWarn, "consumer is damaged; it is deleted and recreated, and its unacknowledged messages are redelivered",
		slog.String("stream", s.cfg.String()), slog.String("consumer", s.consumer), slog.Uint64("floor", s.damaged), slog.Any("err", cause))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recreateTimeout)
	defer cancel()
	if err := s.deleteConsumer(ctx); err != nil {
		return nil, err
	}
	want.recreated = true
	return repeat(ctx, func(ctx context.Context) (natsjs.Consumer, error) { return s.configure(ctx, want) })
}
