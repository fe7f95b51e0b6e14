package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// pullWait bounds one request for messages. The server forgets it a little
// earlier, so that none is on its way when it ends.
const pullWait = 5 * time.Second

// sourcedHeader is where the server notes, in a stream that copies others with
// "sources", where a message was stored first.
const sourcedHeader = "Nats-Stream-Source"

type reader struct {
	conn     *Conn
	consumer natsjs.Consumer
	origin   string
	epoch    string
}

func (r *reader) Origin() string { return r.origin }
func (r *reader) Epoch() string  { return r.epoch }

// Pull is one request for n messages.
func (r *reader) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	came := false
	err := r.fetch(ctx, n, func(m eventing.Message) {
		came = true
		receive(m)
	}, natsjs.FetchMaxBytes(bytes))
	if came || err != nil || ctx.Err() != nil {
		return err
	}
	// There is none, or the next one is larger: the client does not tell.
	return r.fetch(ctx, 1, receive)
}

func (r *reader) fetch(ctx context.Context, n int, receive func(eventing.Message), opts ...natsjs.FetchOpt) error {
	lost := r.conn.loss()
	if err := r.conn.Ready(); err != nil {
		return err
	}
	pull, cancel := context.WithTimeout(ctx, pullWait)
	defer cancel()
	batch, err := r.consumer.Fetch(n, append(opts, natsjs.FetchContext(pull))...)
	if err != nil {
		return fmt.Errorf("ask for messages: %w", err)
	}
	messages := batch.Messages()
	for {
		select {
		case <-lost:
			// The server, or its successor, knows nothing of the request. What
			// has come so far is here.
			cancel()
			lost = nil
		case m, more := <-messages:
			if !more {
				return pulled(batch.Error(), lost == nil, r.conn.where)
			}
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("read metadata of message on %s: %w", m.Subject(), err)
			}
			receive(&message{msg: m, meta: meta, origin: r.origin})
		}
	}
}

// pulled says how a pull went. That it ended early, on request or since nothing
// came, is no error.
func pulled(err error, lost bool, where string) error {
	switch {
	case lost:
		return &notConnectedError{where: where}
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return nil
	}
	return fmt.Errorf("ask for messages: %w", err)
}

func (r *reader) Position(ctx context.Context) (eventing.Position, error) {
	ctx, cancel := r.conn.api(ctx)
	defer cancel()
	if err := r.conn.Ready(); err != nil {
		return eventing.Position{}, err
	}
	info, err := r.consumer.Info(ctx)
	if err != nil {
		return eventing.Position{}, fmt.Errorf("ask for the consumer's position: %w", because(ctx, err))
	}
	return eventing.Position{
		Floor:          info.AckFloor.Stream + 1,
		Head:           info.Delivered.Stream + 1,
		Pending:        info.NumPending,
		Unacknowledged: uint64(max(info.NumAckPending, 0)),
	}, nil
}

// message is one message of a consumer.
type message struct {
	msg    natsjs.Msg
	meta   *natsjs.MsgMetadata
	origin string
}

func (m *message) Sequence() uint64   { return m.meta.Sequence.Stream }
func (m *message) Arrived() time.Time { return m.meta.Timestamp }
func (m *message) Ack() error         { return m.msg.Ack() }
func (m *message) InProgress() error  { return m.msg.InProgress() }

func (m *message) Release(after time.Duration) error {
	if after <= 0 {
		return m.msg.Nak()
	}
	return m.msg.NakWithDelay(after)
}

// Size is that of subject, headers and data.
func (m *message) Size() int {
	size := len(m.msg.Subject()) + len(m.msg.Data())
	for name, values := range m.msg.Headers() {
		for _, value := range values {
			size += len(name) + len(value)
		}
	}
	return size
}

func (m *message) Event() event.Event {
	if e, err := Decode(m.msg.Headers(), m.msg.Data()); err == nil {
		return e
	}
	return m.foreign()
}

// foreign makes an event of a message that is none: with the subject and the
// time that it has in the stream, and its data as it is.
func (m *message) foreign() event.Event {
	origin := eventing.Origin{Stream: m.origin, Sequence: m.Sequence()}
	header := m.msg.Headers()
	if at := header.Get(sourcedHeader); at != "" {
		if sourced, ok := parseSourced(at); ok {
			origin = sourced
		}
		header = without(header, sourcedHeader)
	}
	source, id := origin.Identity(m.msg.Subject(), header, m.msg.Data())

	c := &event.EventContextV1{
		ID:   id,
		Type: eventing.MessageType,
		Time: &types.Timestamp{Time: m.Arrived().UTC()},
	}
	if uri := types.ParseURIRef(source); uri != nil {
		c.Source = *uri
	}
	if subject := m.msg.Subject(); subject != "" && cloudevent.CheckText(subject) == nil {
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
	if data := m.msg.Data(); len(data) > 0 {
		e.DataEncoded, e.DataBase64 = data, true
	}
	if err := cloudevent.Check(e); err != nil {
		// Only a name of a stream that NATS does not allow leads here.
		panic("jetstream: event made of a message is invalid: " + err.Error())
	}
	return e
}

// parseSourced reads "STREAM SEQUENCE ...", where STREAM may be followed by ':'
// and a hash of where it is.
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
