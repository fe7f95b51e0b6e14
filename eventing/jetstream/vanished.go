package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
)

// seen is how far the messages of a consumer were delivered to this process.
type seen struct {
	epoch   string    // of the stream's origin
	created time.Time // of the consumer
	last    uint64    // the sequence of the latest first delivery
	number  uint64    // of the latest delivery, among all of the consumer
	missed  uint64    // deliveries since then that did not arrive
}

// track records a delivered message, and reports the messages before it that the stream
// deleted before they were delivered. Each message that is delivered for the first time
// follows the previous one, unless a delivery was lost.
func (r *reader) track(meta *nats.MsgMetadata) {
	s := &r.seen
	if number := meta.Sequence.Consumer; number > s.number {
		s.missed += number - s.number - 1
		s.number = number
	}
	if meta.NumDelivered == 1 && meta.Sequence.Stream > s.last {
		if gap := meta.Sequence.Stream - s.last - 1; gap > s.missed {
			r.vanished(s.last+1, gap-s.missed)
		}
		s.last, s.missed = meta.Sequence.Stream, 0
	}
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	r.stream.seen = *s
}

// seenOf returns how far a consumer has delivered: as this process has observed, because a
// purge moves the consumer's own report, or, for another consumer, as reported.
func (s *Stream) seenOf(o origin, info *natsjs.ConsumerInfo) seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen.epoch == o.epoch && s.seen.created.Equal(info.Created) {
		return s.seen
	}
	return seen{epoch: o.epoch, created: info.Created, last: info.Delivered.Stream, number: info.Delivered.Consumer}
}

// vanished reports messages, from a sequence on, that were deleted before they were delivered.
func (r *reader) vanished(from, messages uint64) {
	if report := r.want.open.Vanished; report != nil && messages > 0 {
		report(from, messages)
	}
}

// Missing returns the sequences whose messages the stream has deleted. In a stream that
// deletes acknowledged messages, the result is meaningless.
func (r *reader) Missing(ctx context.Context, sequences []uint64) (missing []uint64, err error) {
	if r.want.retention != natsjs.LimitsPolicy {
		return nil, nil
	}
	info, err := repeat(ctx, func(ctx context.Context) (*natsjs.StreamInfo, error) {
		ctx, cancel := r.conn.api(ctx)
		defer cancel()
		info, err := r.stored.Info(ctx)
		return info, because(ctx, err)
	})
	if err != nil {
		return nil, fmt.Errorf("look up which messages stream %s has: %w", r.stream.cfg, err)
	}
	for _, sequence := range sequences {
		gone := sequence < info.State.FirstSeq
		if !gone {
			if gone, err = r.isMissing(ctx, sequence); err != nil {
				return nil, err
			}
		}
		if gone {
			missing = append(missing, sequence)
		}
	}
	return missing, nil
}

func (r *reader) isMissing(ctx context.Context, sequence uint64) (bool, error) {
	_, err := r.getMessage(ctx, sequence)
	if errors.Is(err, eventing.ErrGone) {
		return true, nil
	}
	return false, err
}
