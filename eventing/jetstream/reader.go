package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// sourcedHeader is the header in which the server records, in a stream that copies
// others with "sources", where a message was stored first.
const sourcedHeader = "Nats-Stream-Source"

type reader struct {
	conn     *Conn
	stream   *Stream
	want     consumerWanted
	stored   natsjs.Stream
	consumer natsjs.Consumer
	pullFrom string // the subject of requests for messages
	origin   string
	epoch    string
	changed  atomic.Pointer[error] // the consumer was changed since it was opened
	risk     atomic.Pointer[error] // of the stream's settings
	looks    atomic.Uint64         // number of lookups of the position
	looking  atomic.Bool           // looking up the settings

	originConfig natsjs.StreamConfig // as found last; for noteRisk

	// Each delivery of a message by a consumer, including redeliveries, has the next
	// number.
	gapless   bool
	delivered uint64 // the number of the latest delivery

	seen seen // of the same consumer

	// Before messages are requested from the consumer, those from next on and before end
	// are read again by their sequences.
	next, end uint64
	reclaimed bool // the consumer redelivers its outstanding messages
}

func (r *reader) Origin() string { return r.origin }
func (r *reader) Epoch() string  { return r.epoch }

// Pull passes messages that are read again, or sends one request for n messages. If the next
// message alone is larger than bytes, it sends another request for it.
func (r *reader) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	if err := r.changed.Load(); err != nil {
		return *err
	}
	if passed, err := r.pullAgain(ctx, n, bytes, receive); passed || err != nil {
		return err
	}
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var missed error
	take := func(m *nats.Msg) {
		meta, err := m.Metadata()
		if err != nil {
			// The sender to this inbox is not the server.
			r.conn.logger.LogAttrs(ctx, slog.LevelWarn, "ignored a message without a reply subject, which the server does not send: find the client that publishes to the subject", slog.String("subject", m.Subject), slog.Any("err", err))
			return
		}
		if r.gapless {
			if number := meta.Sequence.Consumer; missed == nil && number != r.delivered+1 {
				missed = fmt.Errorf("%w: number %d comes after %d", eventing.ErrMissed, number, r.delivered)
				giveUp()
			}
			if missed != nil {
				return
			}
			r.delivered++
		}
		r.track(meta)
		receive(&message{conn: r.conn, msg: m, reply: m.Reply, sequence: meta.Sequence.Stream, arrived: meta.Timestamp, pending: meta.NumPending, origin: r.origin})
	}
	err := r.request(ctx, n, bytes, take)
	if errors.Is(err, errTooSmall) {
		err = r.request(ctx, 1, 0, take)
	}
	if missed != nil {
		return missed
	}
	return err
}

func (r *reader) Position(ctx context.Context) (eventing.Position, error) {
	position, err := repeat(ctx, func(ctx context.Context) (eventing.Position, error) {
		position, _, err := r.position(ctx)
		return position, err
	})
	if err == nil {
		r.stream.adjust(&position)
	}
	return position, err
}

// position returns the position, and how many deliveries the consumer has made in its
// lifetime.
func (r *reader) position(ctx context.Context) (position eventing.Position, handedOut uint64, err error) {
	ctx, cancel := r.conn.api(ctx)
	defer cancel()
	if err := r.conn.Ready(); err != nil {
		return eventing.Position{}, 0, err
	}
	info, err := r.consumer.Info(ctx)
	if err != nil {
		return eventing.Position{}, 0, fmt.Errorf("ask for the consumer's position: %w", because(ctx, err))
	}
	r.lookAtSettings(ctx)
	if err := checkConsumer(info); err != nil {
		r.changed.Store(&err) // opening the consumer again corrects it
	}
	return eventing.Position{
		Floor:          info.AckFloor.Stream + 1,
		Head:           info.Delivered.Stream + 1,
		Pending:        info.NumPending,
		Unacknowledged: uint64(max(info.NumAckPending, 0)),
	}, info.Delivered.Consumer, nil
}

// message is one message of a consumer.
type message struct {
	conn     *Conn
	msg      *nats.Msg // nil without the payload
	reply    string    // the subject of answers
	sequence uint64
	arrived  time.Time
	pending  uint64
	origin   string
	stream   *Stream // waits for the acknowledgement too; nil if only the consumer does
}

func (m *message) Sequence() uint64   { return m.sequence }
func (m *message) Arrived() time.Time { return m.arrived }
func (m *message) Pending() uint64    { return m.pending }
func (m *message) Ack() error         { return m.answer(acknowledged) }

func (m *message) WithoutPayload() eventing.Message {
	without := *m
	without.msg = nil
	return &without
}

func (m *message) InProgress() error { return m.answer("+WPI") }
func (m *message) Nak() error        { return m.answer("-NAK") }

const acknowledged = "+ACK"

// answer sends an acknowledgement of JetStream's protocol to the consumer. The client's
// own functions use the subscription, which does not exist any more.
func (m *message) answer(word string) error {
	if m.stream != nil && word == acknowledged {
		m.stream.acknowledgedAgain(m.sequence)
	}
	if err := m.conn.client().Publish(m.reply, []byte(word)); err != nil {
		return fmt.Errorf("answer for message %d: %w", m.sequence, err)
	}
	return nil
}

// Size returns the size of subject, headers and data.
func (m *message) Size() int { return m.msg.Size() }

func (m *message) Event() event.Event {
	if e, err := Decode(m.msg.Header, m.msg.Data); err == nil {
		return e
	}
	return m.foreign()
}

// Unreadable returns why the message, which looks like a CloudEvent, is not one; nil for
// others.
func (m *message) Unreadable() error {
	if err := unreadable(m.msg.Header, m.msg.Data); err != nil {
		return fmt.Errorf("%w; it is message %d on subject %s", err, m.sequence, clip(m.msg.Subject))
	}
	return nil
}

// foreign returns the event for a message that is not a CloudEvent: with the subject
// and time that it has in the stream, and its data unchanged.
func (m *message) foreign() event.Event {
	origin := eventing.Origin{Stream: m.origin, Sequence: m.Sequence()}
	header := m.msg.Header
	if at := header.Get(sourcedHeader); at != "" {
		if sourced, ok := parseSourced(at); ok {
			origin = sourced
		}
		header = without(header, sourcedHeader)
	}
	source, id := origin.Identity(m.msg.Subject, header, m.msg.Data)

	c := &event.EventContextV1{
		ID:   id,
		Type: eventing.MessageType,
		Time: &types.Timestamp{Time: m.Arrived().UTC()},
	}
	if uri := types.ParseURIRef(source); uri != nil {
		c.Source = *uri
	}
	// A message that looks like an event has no subject for ordering: its own subject is
	// unreadable, and another one would hold back unrelated events.
	sign, _ := signOf(m.msg.Header, m.msg.Data)
	if subject := m.msg.Subject; sign == "" && subject != "" && cloudevent.CheckText(subject) == nil {
		c.Subject = &subject
	}
	contentType := header.Get(contentTypeHeader)
	if contentType == "" {
		contentType = header.Get("Content-Type")
	}
	if cloudevent.CheckContentType(contentType) != nil {
		contentType = "application/octet-stream"
	}
	c.DataContentType = &contentType
	e := event.Event{Context: c}
	if data := m.msg.Data; len(data) > 0 {
		e.DataEncoded, e.DataBase64 = data, true
	}
	if err := cloudevent.Check(e); err != nil {
		// The event can be invalid only if NATS does not allow the name of the stream.
		panic("jetstream: event made of a message is invalid: " + err.Error())
	}
	return e
}

// parseSourced parses "STREAM SEQUENCE ...", where STREAM may be followed by ':' and a
// hash of its location.
func parseSourced(header string) (eventing.Origin, bool) {
	fields := strings.Fields(header)
	if len(fields) < 2 {
		return eventing.Origin{}, false
	}
	name, _, _ := strings.Cut(fields[0], ":")
	sequence, err := strconv.ParseUint(fields[1], 10, 64)
	return eventing.Origin{Stream: name, Sequence: sequence}, err == nil && name != ""
}

func without(header nats.Header, name string) nats.Header {
	rest := make(nats.Header, len(header))
	for n, values := range header {
		if n != name {
			rest[n] = values
		}
	}
	return rest
}
