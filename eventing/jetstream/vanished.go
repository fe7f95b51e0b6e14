package jetstream

import (
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// seen is how far the messages of a consumer have been delivered to this process.
type seen struct {
	epoch   string    // of the stream's origin
	created time.Time // the consumer
	last    uint64    // the sequence of the latest message that was delivered for the first time
	number  uint64    // of the latest delivery, of all that the consumer makes
	missed  uint64    // deliveries since then that did not arrive
}

// track notes a message that was delivered, and reports those before it that the stream
// deleted before they were delivered: each message that is delivered for the first time
// follows the one before it, unless a delivery was lost on the way.
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

// seenOf returns how far a consumer has delivered: as this process has seen it, since a purge
// moves what the consumer itself reports, or, for another consumer, as that reports.
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
