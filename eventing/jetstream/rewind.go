package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// Rewind makes the consumer anew: not every server can put one back. From a stream
// that drops what is acknowledged nothing can be read again; that is said, and the
// consumer left alone.
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
	to = max(to, info.State.FirstSeq, 1)
	if handedOut == 0 || position.Head <= to || position.Unacknowledged >= position.Head-to {
		return 0, nil
	}
	if info.Config.Retention != natsjs.LimitsPolicy {
		r.conn.logger.LogAttrs(ctx, slog.LevelError, "stream has dropped what was acknowledged, which cannot be read again: give it retention limits",
			slog.String("stream", r.stream.cfg.String()), slog.String("retention", info.Config.Retention.String()), slog.Uint64("from", to))
		return 0, nil
	}

	deleting, cancel := r.conn.api(ctx)
	defer cancel()
	err = r.conn.in(r.stream.cfg.Domain).DeleteConsumer(deleting, r.stream.cfg.Name, r.stream.consumer)
	if err != nil && !errors.Is(err, natsjs.ErrConsumerNotFound) {
		return 0, fmt.Errorf("delete consumer %s of stream %s: %w", r.stream.consumer, r.stream.cfg, because(deleting, err))
	}
	want := r.want
	want.state = info.State
	want.open.Begin = func(context.Context, string, string) (uint64, error) { return to, nil }
	if r.consumer, err = r.stream.configure(ctx, want); err != nil {
		return 0, err
	}
	r.delivered = r.consumer.CachedInfo().Delivered.Consumer
	return position.Head, nil
}
