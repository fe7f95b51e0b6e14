package offsetstream

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/tandem-fn/tandem/eventing"
)

const (
	// idle is how long Pull waits for messages.
	idle = time.Second

	// commitEvery is how many acknowledgements are committed together.
	commitEvery = 50
)

// Stream is one partition of a topic, as read by a group.
type Stream struct {
	client    *Client
	group     string
	partition int

	mu     sync.Mutex
	reader *reader // the latest opened one: acknowledgements go to it
}

// Name implements [eventing.Stream].
func (s *Stream) Name() string { return s.client.server.topic + "/" + strconv.Itoa(s.partition) }

// Open implements [eventing.Stream].
func (s *Stream) Open(ctx context.Context, cfg eventing.OpenConfig) (eventing.Reader, error) {
	server := s.client.server
	server.mu.Lock()
	err := s.client.usable()
	r := &reader{stream: s, id: server.id, restarts: server.restarts, entries: map[uint64]*entry{}}
	_, found := server.committed[r.place()]
	server.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.Name(), err)
	}
	var begin uint64
	if !found && cfg.Begin != nil {
		if begin, err = cfg.Begin(ctx, r.Origin(), r.Epoch()); err != nil {
			return nil, err
		}
	}

	server.mu.Lock()
	defer server.mu.Unlock()
	if err := r.usable(); err != nil {
		return nil, fmt.Errorf("open %s: %w", s.Name(), err)
	}
	log := server.partitions[s.partition]
	at, found := server.committed[r.place()]
	if !found {
		if begin > log.end {
			begin = 0
		}
		at = log.at(begin)
		server.committed[r.place()] = at
	}
	if to := log.diverges(at); to < at.offset {
		r.truncated = true
		at = log.at(to)
	}
	r.next, r.floor = at, at
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reader = r
	return r, nil
}

// at returns the position at an offset.
func (p *partition) at(offset uint64) position {
	_, before := p.from(offset)
	return position{offset, before}
}

// reader reads a [Stream] from the committed offset on.
type reader struct {
	stream   *Stream
	id       int
	restarts int

	// The rest is guarded by the server's lock.
	truncated bool     // the partition diverges below a position of this consumer
	next      position // to be read
	floor     position
	queue     []*entry // in the order of reading, starting at the floor
	entries   map[uint64]*entry
	acked     int // since the last commit
}

// entry is a message that was read.
type entry struct {
	offset uint64
	epoch  int
	done   bool
}

func (r *reader) place() place { return place{r.stream.group, r.id, r.stream.partition} }

// Origin implements [eventing.Reader].
func (r *reader) Origin() string { return r.stream.Name() }

// Epoch implements [eventing.Reader].
func (r *reader) Epoch() string { return "topic-" + strconv.Itoa(r.id) }

// usable returns why the reader cannot be used any more; nil if it can.
func (r *reader) usable() error {
	server := r.stream.client.server
	switch err := r.stream.client.usable(); {
	case err != nil:
		return err
	case r.restarts != server.restarts:
		return errUnavailable
	case r.id != server.id:
		return fmt.Errorf("topic %s was deleted", server.topic)
	}
	return nil
}

// Pull implements [eventing.Reader].
func (r *reader) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	ctx, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	for ctx.Err() == nil {
		messages, changed, err := r.fetch(n, bytes)
		if err != nil {
			return fmt.Errorf("read %s: %w", r.stream.Name(), err)
		}
		for _, m := range messages {
			receive(m)
		}
		if len(messages) > 0 {
			return nil
		}
		watch(ctx, changed, idle)
	}
	return nil
}

// fetch returns the next messages.
func (r *reader) fetch(n, bytes int) (messages []*message, changed <-chan struct{}, err error) {
	server := r.stream.client.server
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := r.usable(); err != nil {
		return nil, nil, err
	}
	log := server.partitions[r.stream.partition]
	if to := log.diverges(r.next); r.truncated || to < r.next.offset {
		r.truncated = true
		return nil, nil, fmt.Errorf("offset %d of epoch %d: %w", r.next.offset, r.next.epoch, eventing.ErrTruncated)
	}
	records, _ := log.from(r.next.offset)
	for _, record := range records {
		if bytes -= record.size; len(messages) == n || bytes < 0 && len(messages) > 0 {
			return messages, nil, nil
		}
		e := &entry{offset: record.offset, epoch: record.epoch}
		r.queue = append(r.queue, e)
		r.entries[e.offset] = e
		r.next = position{record.offset + 1, record.epoch}
		messages = append(messages, &message{reader: r, record: record, pending: log.end - r.next.offset})
	}
	r.next.offset = log.end // after the markers
	r.popDone()
	return messages, server.changed, nil
}

// ack records that a message is acknowledged.
func (r *reader) ack(offset uint64, epoch int) {
	e := r.entries[offset]
	if e == nil || e.epoch != epoch || e.done {
		return
	}
	e.done = true
	r.popDone()
	if r.acked++; r.acked >= commitEvery {
		r.commit()
	}
}

// popDone advances the floor.
func (r *reader) popDone() {
	for len(r.queue) > 0 && r.queue[0].done {
		e := r.queue[0]
		r.floor = position{e.offset + 1, e.epoch}
		delete(r.entries, e.offset)
		r.queue = r.queue[1:]
	}
	if len(r.queue) == 0 {
		r.floor = r.next
	}
}

// commit commits the floor, unless the partition diverges: then the committed offset
// shows this to the next reader, until Rewind.
func (r *reader) commit() {
	server := r.stream.client.server
	if r.usable() != nil || r.truncated || server.partitions[r.stream.partition].diverges(r.next) < r.next.offset {
		return
	}
	server.committed[r.place()], r.acked = r.floor, 0
}

// Position implements [eventing.Reader]. It commits first, so that no saved floor is
// above the committed offset.
func (r *reader) Position(context.Context) (eventing.Position, error) {
	server := r.stream.client.server
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := r.usable(); err != nil {
		return eventing.Position{}, fmt.Errorf("position in %s: %w", r.stream.Name(), err)
	}
	log := server.partitions[r.stream.partition]
	if log.diverges(r.next) < r.next.offset {
		return eventing.Position{}, fmt.Errorf("position in %s: %w", r.stream.Name(), eventing.ErrTruncated)
	}
	r.commit()
	var unacknowledged uint64
	for _, e := range r.queue {
		if !e.done {
			unacknowledged++
		}
	}
	return eventing.Position{Floor: r.floor.offset, Head: r.next.offset, Pending: log.end - min(log.end, r.next.offset), Unacknowledged: unacknowledged}, nil
}

// Fetch implements [eventing.Reader].
func (r *reader) Fetch(_ context.Context, m eventing.Message) (eventing.Message, error) {
	server := r.stream.client.server
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := r.usable(); err != nil {
		return nil, fmt.Errorf("fetch message %d: %w", m.Sequence(), err)
	}
	without, ok := m.(*message)
	records, _ := server.partitions[r.stream.partition].from(m.Sequence())
	if !ok || len(records) == 0 || records[0].offset != m.Sequence() || records[0].epoch != without.record.epoch {
		return nil, fmt.Errorf("fetch message %d: %w", m.Sequence(), eventing.ErrGone)
	}
	full := *without
	full.record = records[0]
	return &full, nil
}

// Rewind implements [eventing.Reader].
func (r *reader) Rewind(_ context.Context, to uint64) (head uint64, err error) {
	server := r.stream.client.server
	server.mu.Lock()
	defer server.mu.Unlock()
	if err := r.usable(); err != nil {
		return 0, fmt.Errorf("rewind %s: %w", r.stream.Name(), err)
	}
	log := server.partitions[r.stream.partition]
	if to = min(to, log.diverges(r.next), log.end); to >= r.floor.offset && !r.truncated {
		return 0, nil
	}
	head = r.next.offset
	r.next = log.at(to)
	r.floor, r.queue, r.truncated, r.acked = r.next, nil, false, 0
	clear(r.entries)
	server.committed[r.place()] = r.floor
	return head, nil
}

// message is one message of a partition.
type message struct {
	reader  *reader
	record  record
	pending uint64
}

func (m *message) Sequence() uint64   { return m.record.offset }
func (m *message) Arrived() time.Time { return m.record.stored }
func (m *message) Pending() uint64    { return m.pending }
func (m *message) Size() int          { return m.record.size }
func (m *message) InProgress() error  { return nil }
func (m *message) Nak() error         { return nil } // the offset is not committed

func (m *message) WithoutPayload() eventing.Message {
	without := *m
	without.record.event, without.record.data = nil, ""
	return &without
}

// Ack acknowledges the message to the latest opened reader.
func (m *message) Ack() error {
	stream := m.reader.stream
	server := stream.client.server
	server.mu.Lock()
	defer server.mu.Unlock()
	if stream.client.closed.Load() {
		return errClosed
	}
	stream.mu.Lock()
	current := stream.reader
	stream.mu.Unlock()
	current.ack(m.record.offset, m.record.epoch)
	return nil
}

func (m *message) Event() event.Event {
	if m.record.event != nil {
		return m.record.event.Clone()
	}
	source, id := eventing.Origin{Stream: m.reader.Origin(), Sequence: m.record.offset}.Identity("", nil, []byte(m.record.data))
	c := &event.EventContextV1{ID: id, Type: eventing.MessageType, Time: &types.Timestamp{Time: m.record.stored.UTC()}}
	if uri := types.ParseURIRef(source); uri != nil {
		c.Source = *uri
	}
	return event.Event{Context: c, DataEncoded: []byte(m.record.data), DataBase64: true}
}
