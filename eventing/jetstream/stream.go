package jetstream

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
)

const (
	// ackWait is when the server hands out again what is neither acknowledged
	// nor said to be in progress. It must exceed a cold start of the function
	// and several heartbeats.
	ackWait = 90 * time.Second

	// reclaimWait is ackWait for the moment in which a new reader takes over.
	reclaimWait = 10 * time.Millisecond

	// reclaimPause is how long that moment is. The server looks through the
	// outstanding messages 100 ms after a change; if it comes too late, they
	// come after ackWait.
	reclaimPause = 300 * time.Millisecond

	// maxAckPending bounds the messages that are handed out and not
	// acknowledged. Well above what a source holds, or one that holds on to its
	// limit gets nothing more.
	maxAckPending = 1 << 16
)

// Stream is a stream of JetStream with the place in it of one cluster and
// function, a durable pull consumer.
type Stream struct {
	conn     *Conn
	cfg      StreamConfig
	consumer string
}

var _ eventing.Stream = (*Stream)(nil)

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// NewStream gives the stream, read for this cluster and function. The consumer,
// tandem-CLUSTER-FUNCTION, is made when the stream is opened, if it is missing; the
// stream is not, since it may have to be a mirror. Of cfg only Name and Domain
// count. The error says which argument is wrong.
func NewStream(conn *Conn, cluster, function string, cfg StreamConfig) (*Stream, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up stream: %w", err)
	}
	for what, name := range map[string]string{"cluster": cluster, "function": function} {
		if !namePattern.MatchString(name) {
			return nil, fmt.Errorf("set up stream: %s %q: want lower-case letters, digits and '-', at most 63, beginning with a letter", what, name)
		}
	}
	return &Stream{conn: conn, cfg: cfg, consumer: "tandem-" + cluster + "-" + function}, nil
}

// Name is the stream's name, with its domain if it was given one.
func (s *Stream) Name() string { return s.cfg.String() }

// Open finds the stream, and finds or makes the consumer. Messages that the
// consumer has handed out already and that nobody acknowledged come again at once:
// who opens a stream is the only one to read it.
func (s *Stream) Open(ctx context.Context) (eventing.Reader, error) {
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
	consumer, err := s.configure(ctx, ackWait, origin)
	if err != nil {
		return nil, err
	}
	if consumer.CachedInfo().NumAckPending > 0 {
		if consumer, err = s.reclaim(ctx, origin); err != nil {
			return nil, err
		}
	}
	return &reader{conn: s.conn, consumer: consumer, origin: origin.name, epoch: origin.epoch}, nil
}

// configure finds or makes the consumer, and changes it only if it is not as it
// should be: the servers that do so may be away while those that hold the stream
// are there.
func (s *Stream) configure(ctx context.Context, ackWait time.Duration, origin origin) (natsjs.Consumer, error) {
	ctx, cancel := s.conn.api(ctx)
	defer cancel()
	js := s.conn.in(s.cfg.Domain)
	var is natsjs.ConsumerConfig
	consumer, err := js.Consumer(ctx, s.cfg.Name, s.consumer)
	if err == nil {
		is = consumer.CachedInfo().Config
	}
	should := is
	should.Durable = s.consumer
	should.Description = "made by Tandem: everything, for one function in one cluster"
	should.DeliverPolicy = natsjs.DeliverAllPolicy
	should.AckPolicy = natsjs.AckExplicitPolicy
	should.AckWait = ackWait
	should.MaxDeliver = -1
	should.MaxAckPending = maxAckPending
	should.Metadata = origin.remember(is.Metadata)
	if err == nil && reflect.DeepEqual(is, should) {
		return consumer, nil
	}
	if err == nil || errors.Is(err, natsjs.ErrConsumerNotFound) {
		consumer, err = js.CreateOrUpdateConsumer(ctx, s.cfg.Name, should)
	}
	if err != nil {
		return nil, fmt.Errorf("find or make consumer %s of stream %s: %w", s.consumer, s.cfg, because(ctx, err))
	}
	return consumer, nil
}

// reclaim has the server hand out again what is outstanding.
func (s *Stream) reclaim(ctx context.Context, origin origin) (natsjs.Consumer, error) {
	if _, err := s.configure(ctx, reclaimWait, origin); err != nil {
		return nil, err
	}
	pause := time.NewTimer(reclaimPause)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done(): // to be undone all the same
	}
	return s.configure(context.WithoutCancel(ctx), ackWait, origin)
}
