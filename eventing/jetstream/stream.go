package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions"
)

const (
	// ackWait is the time after which the server redelivers a message that is neither
	// acknowledged nor reported to be in progress. It must exceed a cold start of the
	// function and several heartbeats.
	ackWait = 90 * time.Second

	// rereadLimit is the maximum number of messages that are read again by their sequences,
	// when most of them may be acknowledged; more are left to the consumer.
	rereadLimit = 1 << 16

	// reclaimWait is AckWait while a new reader takes over.
	reclaimWait = 10 * time.Millisecond

	// reclaimPause is how long AckWait is reduced. The server checks the outstanding
	// messages 100 ms after a change; if it is late, they are redelivered after
	// ackWait.
	reclaimPause = 300 * time.Millisecond

	// defaultAckPending is how many messages may be delivered and unacknowledged. It must
	// exceed the messages that a source holds, or a source at its limit would receive
	// nothing more.
	defaultAckPending = 1 << 17
)

// Stream is a stream of JetStream with the durable pull consumer of one cluster and
// function.
type Stream struct {
	conn     *Conn
	cfg      StreamConfig
	consumer string

	damaged uint64 // the floor of a consumer that is deleted and not recreated yet

	rereadLimit uint64

	mu     sync.Mutex
	seen   seen
	reread reread
}

var _ eventing.Stream = (*Stream)(nil)

// NewStream returns the stream, read for this cluster and function. The consumer,
// tandem-CLUSTER-FUNCTION, is created if it is missing when the stream is opened. The
// stream is not created, because it may have to be a mirror. Of cfg only Name and
// Domain are used. The error describes an invalid argument.
func NewStream(conn *Conn, cluster, function string, cfg StreamConfig) (*Stream, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up stream: %w", err)
	}
	for what, name := range map[string]string{"cluster": cluster, "function": function} {
		if !functions.ValidName(name) {
			return nil, fmt.Errorf("set up stream: %s %q: want lower-case letters, digits and '-', at most 63, beginning with a letter", what, name)
		}
	}
	return &Stream{conn: conn, cfg: cfg, consumer: consumerName(cluster, function), rereadLimit: rereadLimit}, nil
}

// Name returns the stream's name, with its domain if one is configured.
func (s *Stream) Name() string { return s.cfg.String() }

// Open finds the stream, and finds or creates the consumer. Messages that the consumer
// has delivered and that are unacknowledged are redelivered at once: a stream must be
// opened by its only reader.
func (s *Stream) Open(ctx context.Context, cfg eventing.OpenConfig) (eventing.Reader, error) {
	found, err := s.conn.findStream(ctx, s.cfg)
	if err != nil {
		return nil, err
	}
	origin, err := s.findOrigin(ctx, found)
	if err != nil {
		return nil, err
	}
	if err := s.alone(origin); err != nil {
		return nil, err
	}
	want := consumerWanted{origin: origin, ackWait: ackWait, open: cfg, state: found.CachedInfo().State}
	want.retention = found.CachedInfo().Config.Retention
	consumer, err := s.configure(ctx, want)
	if err != nil {
		return nil, err
	}
	from, end, reclaim := s.outstanding(origin, consumer.CachedInfo(), !cfg.LooksUp)
	if reclaim {
		if consumer, err = s.reclaim(ctx, want); err != nil {
			// The servers that change consumers are unreachable, for example from the
			// smaller part of a super-cluster, while the stream is reachable. Its
			// messages are delivered, and outstanding ones are redelivered after
			// AckWait.
			var known error
			if consumer, known = s.unchanged(ctx); known != nil {
				return nil, err
			}
			s.conn.logger.LogAttrs(ctx, slog.LevelWarn, "could not redeliver unacknowledged messages at once; the server redelivers them after the acknowledgement timeout",
				slog.String("stream", s.cfg.String()), slog.Duration("after", ackWait), slog.Any("err", err))
		}
	}
	r := &reader{
		conn:     s.conn,
		stream:   s,
		want:     want,
		stored:   found,
		consumer: consumer,
		pullFrom: apiPrefix(s.cfg.Domain) + ".CONSUMER.MSG.NEXT." + s.cfg.Name + "." + s.consumer,
		origin:   origin.name,
		epoch:    origin.epoch,

		gapless:   cfg.Gapless,
		delivered: consumer.CachedInfo().Delivered.Consumer,
		seen:      s.seenOf(origin, consumer.CachedInfo()),

		next:      from,
		end:       end,
		reclaimed: reclaim,
	}
	r.noteRisk(found.CachedInfo().Config, origin)
	return r, nil
}

// consumerWanted describes the wanted consumer.
type consumerWanted struct {
	origin  origin
	ackWait time.Duration
	open    eventing.OpenConfig
	state   natsjs.StreamState

	retention natsjs.RetentionPolicy // of the stream
	corrected bool                   // only remove changes made by hand

	recreated bool // because the server could not change it
}

// configure finds or creates the consumer, and changes it only if its settings differ:
// the servers that change consumers may be unreachable while those that hold the stream
// are reachable.
func (s *Stream) configure(ctx context.Context, want consumerWanted) (natsjs.Consumer, error) {
	ctx, cancel := s.conn.api(ctx)
	defer cancel()
	js := s.conn.in(s.cfg.Domain)
	var is natsjs.ConsumerConfig
	var floor uint64
	consumer, err := js.Consumer(ctx, s.cfg.Name, s.consumer)
	if err == nil {
		is, floor = consumer.CachedInfo().Config, consumer.CachedInfo().AckFloor.Stream
		if setting := changedByHand(is); setting != "" && !want.corrected {
			return s.readAgain(ctx, want, setting)
		}
	}
	should := is
	should.FilterSubject, should.FilterSubjects, should.HeadersOnly = "", nil, false
	should.BackOff, should.InactiveThreshold, should.RateLimit = nil, 0, 0
	should.MaxRequestBatch, should.MaxRequestExpires, should.MaxRequestMaxBytes = 0, 0, 0
	should.Durable = s.consumer
	should.Description = "made by Tandem: everything, for one function in one cluster"
	should.AckPolicy = natsjs.AckExplicitPolicy
	should.AckWait = want.ackWait
	should.MaxDeliver = -1
	should.MaxAckPending = maxAckPending(want.open)
	should.Metadata = want.origin.remember(is.Metadata)
	if err == nil && reflect.DeepEqual(is, should) {
		s.damaged = 0
		return consumer, nil
	}
	if errors.Is(err, natsjs.ErrConsumerNotFound) {
		if should.OptStartSeq, err = want.begin(ctx); err != nil {
			return nil, fmt.Errorf("find the sequence at which to begin with stream %s: %w", s.cfg, err)
		}
		if should.OptStartSeq == 0 && s.damaged > 0 {
			should.OptStartSeq = s.damaged + 1
		}
		if should.OptStartSeq > 0 {
			should.DeliverPolicy = natsjs.DeliverByStartSequencePolicy
		}
	}
	if err == nil {
		consumer, err = js.CreateOrUpdateConsumer(ctx, s.cfg.Name, should)
	}
	var refused *natsjs.APIError
	if !want.recreated && errors.As(err, &refused) && refused.ErrorCode == natsjs.JSErrCodeConsumerCreate {
		// Its files are incomplete, for example after an interrupted deletion.
		s.damaged = max(s.damaged, floor)
		return s.recreate(ctx, want, err)
	}
	if err != nil {
		return nil, fmt.Errorf("find or create consumer %s of stream %s: %w", s.consumer, s.cfg, because(ctx, err))
	}
	s.damaged = 0
	return consumer, nil
}

// begin returns the sequence at which a new consumer begins; 0 means the beginning of
// the stream. A sequence that the stream has not reached belongs to messages that it
// has lost: other messages will have their sequences.
func (w consumerWanted) begin(ctx context.Context) (uint64, error) {
	if w.open.Begin == nil {
		return 0, nil
	}
	sequence, err := w.open.Begin(ctx, w.origin.name, w.origin.epoch)
	if sequence <= w.state.FirstSeq || sequence > w.state.LastSeq+1 {
		sequence = 0
	}
	return sequence, err
}

// maxAckPending returns how many unacknowledged messages the consumer may have.
func maxAckPending(cfg eventing.OpenConfig) int {
	return cmp.Or(cfg.MaxOutstanding, defaultAckPending)
}

// unchanged returns the consumer if its settings are as wanted.
func (s *Stream) unchanged(ctx context.Context) (natsjs.Consumer, error) {
	ctx, cancel := s.conn.api(ctx)
	defer cancel()
	consumer, err := s.conn.in(s.cfg.Domain).Consumer(ctx, s.cfg.Name, s.consumer)
	if err == nil {
		err = checkConsumer(consumer.CachedInfo())
	}
	return consumer, err
}

// reclaim makes the server redeliver outstanding messages.
func (s *Stream) reclaim(ctx context.Context, want consumerWanted) (natsjs.Consumer, error) {
	soon := want
	soon.ackWait = reclaimWait
	if _, err := s.configure(ctx, soon); err != nil {
		return nil, err
	}
	pause := time.NewTimer(reclaimPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done(): // AckWait must still be restored
	}
	return s.configure(context.WithoutCancel(ctx), want)
}
