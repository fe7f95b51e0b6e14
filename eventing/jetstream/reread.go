package jetstream

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
)

// reread holds the messages that are read again although they may be acknowledged in the
// consumer: those from a sequence on, after [reader.Reread]. It outlives its reader. The
// consumer is not changed.
//
// # Design
//
// To rewind a consumer, it has to be deleted and recreated, which needs the servers that
// change consumers. A source that starts would rewind by the second since the last save, and
// a source that takes over must not wait for these servers. So the messages are read by
// their sequences. Those that the consumer waits for are acknowledged on the subject that a
// delivery would have: the server finds them by the sequence in it.
type reread struct {
	epoch   string    // of the stream's origin
	created time.Time // of the consumer

	next, below uint64              // messages that are still to be passed on
	passed      map[uint64]struct{} // passed on and unacknowledged
}

// outstanding returns the range of messages that a new reader has to pass on again, from and end:
// those that the consumer has delivered and that are unacknowledged, with others between them,
// and those of [reader.Reread]. Reclaim reports that the former are left to the consumer, because
// they are too many, or because the range must contain no others.
func (s *Stream) outstanding(o origin, info *natsjs.ConsumerInfo, exactly bool) (from, end uint64, reclaim bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, end = info.Delivered.Stream+1, info.Delivered.Stream+1
	if info.NumAckPending > 0 {
		from = info.AckFloor.Stream + 1
	}
	if end-from > s.rereadLimit || exactly && end > from {
		from, reclaim = end, true
	}
	a := &s.reread
	if a.epoch != o.epoch || !a.created.Equal(info.Created) {
		s.reread = reread{}
		return from, end, reclaim
	}
	if lowest, ok := a.lowest(); ok {
		a.next = lowest
		if reclaim {
			end = a.below
		}
		from = min(from, lowest)
	}
	return from, end, reclaim
}

// lowest returns the lowest sequence that is not acknowledged again.
func (a *reread) lowest() (lowest uint64, ok bool) {
	lowest, ok = a.next, a.next < a.below
	for sequence := range a.passed {
		if !ok || sequence < lowest {
			lowest, ok = sequence, true
		}
	}
	return lowest, ok
}

// Reread reads the messages from sequence to on again by their sequences, acknowledged or not,
// and returns the head: below it, messages may be acknowledged. Unlike Rewind it needs only the
// servers of the stream, and does not outlive the process: Position counts these messages as
// unacknowledged until they are acknowledged again. It reports false if they are too many, or the
// stream has deleted them: then Rewind is needed.
func (r *reader) Reread(ctx context.Context, to uint64) (head uint64, ok bool, err error) {
	position, err := repeat(ctx, func(ctx context.Context) (eventing.Position, error) {
		position, _, err := r.position(ctx)
		return position, err
	})
	if err != nil {
		return 0, false, err
	}
	to = max(to, 1, r.want.state.FirstSeq)
	if r.want.retention != natsjs.LimitsPolicy || position.Head-min(to, position.Head) > r.stream.rereadLimit {
		return 0, false, nil
	}
	r.next, r.end = min(to, position.Head), position.Head
	s, info := r.stream, r.consumer.CachedInfo()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reread = reread{epoch: r.epoch, created: info.Created, next: r.next, below: r.end, passed: map[uint64]struct{}{}}
	return position.Head, true, nil
}

// adjust makes a position of the consumer count messages that are read again as
// unacknowledged.
func (s *Stream) adjust(p *eventing.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lowest, ok := s.reread.lowest()
	if !ok {
		return
	}
	p.Floor = min(p.Floor, lowest)
	left := s.reread.below - min(s.reread.next, s.reread.below)
	for sequence := range s.reread.passed {
		if sequence < s.reread.next {
			left++
		}
	}
	p.Unacknowledged = max(p.Unacknowledged, left)
}

// forgetReread forgets the messages that are read again, because the consumer is new.
func (s *Stream) forgetReread() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reread = reread{}
}

// acknowledgedAgain records that a message that was read again is acknowledged.
func (s *Stream) acknowledgedAgain(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reread.passed, sequence)
}

// passOn records that the message at a sequence is passed on, and reports whether its
// acknowledgement is tracked here too.
func (s *Stream) passOn(sequence uint64) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.reread
	if again = sequence < a.below; again {
		a.passed[sequence] = struct{}{}
		a.next = max(a.next, sequence+1)
	}
	return again
}

// readAgainUntil records that the messages before a sequence that were not passed on need not
// be.
func (s *Stream) readAgainUntil(next uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reread.next = min(max(s.reread.next, next), max(s.reread.next, s.reread.below))
}

// Redelivers returns the sequence below which messages that Pull passes may be acknowledged or
// committed; 0 if it passes none of these any more. All reports whether it passes, or has
// passed, every message that was delivered and unacknowledged before it was opened.
func (r *reader) Redelivers() (below uint64, all bool) {
	if r.next < r.end {
		below = r.end
	}
	return below, !r.reclaimed
}

// retryDirect is the wait before a server that does not have a message yet is asked again.
const retryDirect = 50 * time.Millisecond

// pullAgain passes messages that are read again, and reports whether there were any.
func (r *reader) pullAgain(ctx context.Context, n, bytes int, receive func(eventing.Message)) (passed bool, err error) {
	for r.next < r.end && !passed {
		known := r.want.open.Known
		for known != nil && r.next < r.end && known(r.next) {
			r.next++
		}
		r.stream.readAgainUntil(r.next)
		if r.next >= r.end {
			break
		}
		got, next, err := r.getMessages(ctx, r.next, r.end, n, bytes)
		if ctx.Err() != nil {
			return passed, nil //nolint:nilerr // the caller has ended it
		}
		if err != nil {
			return passed, fmt.Errorf("read messages again: %w", err)
		}
		for _, stored := range got {
			if known == nil || !known(stored.Sequence) {
				passed = true
				receive(r.again(stored))
			}
		}
		if len(got) == 0 && next == r.next {
			pause := time.NewTimer(retryDirect)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
			}
		}
		r.next = next
		r.stream.readAgainUntil(next)
	}
	return passed, nil
}

// again returns a message that was read again.
func (r *reader) again(stored *natsjs.RawStreamMsg) *message {
	m := &message{
		conn: r.conn, sequence: stored.Sequence, arrived: stored.Time, pending: r.end - stored.Sequence - 1, origin: r.origin,
		reply: fmt.Sprintf("$JS.ACK.%s.%s.1.%d.0.%d.0", r.stream.cfg.Name, r.stream.consumer, stored.Sequence, stored.Time.UnixNano()),
	}
	m.msg = &nats.Msg{Subject: stored.Subject, Reply: m.reply, Header: stored.Header, Data: stored.Data}
	if r.stream.passOn(stored.Sequence) {
		m.stream = r.stream
	}
	return m
}
