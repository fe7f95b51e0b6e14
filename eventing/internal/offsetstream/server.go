package offsetstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// maxEvent is the largest event that a server accepts, in bytes.
const maxEvent = 1 << 20

var (
	errUnavailable = errors.New("the server is unavailable")
	errClosed      = errors.New("the connection is closed")
)

// Server holds one topic and the committed offsets of its groups. Create it with [New].
// It is safe for concurrent use.
type Server struct {
	mu         sync.Mutex
	up         bool
	restarts   int // invalidates earlier readers
	topic      string
	id         int // of this incarnation of the topic
	partitions []*partition
	committed  map[place]position
	assigned   map[*Client][]int // a missing client has all partitions
	changed    chan struct{}     // is closed after every change
}

// place is a group and a partition of one incarnation of the topic.
type place struct {
	group         string
	id, partition int
}

// position is an offset, and the epoch of the message before it; -1 if there is none.
type position struct {
	offset uint64
	epoch  int
}

// partition is a log.
type partition struct {
	records []record // without markers
	epochs  []uint64 // the first offset of each epoch
	end     uint64
}

// record is a message in a partition.
type record struct {
	offset uint64
	epoch  int
	stored time.Time
	event  *event.Event // nil if the message is not an event
	data   string       // of a message that is not an event
	size   int
}

// New returns a server with a topic with the given number of partitions.
func New(topic string, partitions int) *Server {
	s := &Server{up: true, topic: topic, committed: map[place]position{}, assigned: map[*Client][]int{}, changed: make(chan struct{})}
	s.create(partitions)
	return s
}

func (s *Server) create(partitions int) {
	s.id++
	s.partitions = nil
	for range partitions {
		s.partitions = append(s.partitions, &partition{epochs: []uint64{0}})
	}
}

// change calls do and notifies waiting readers.
func (s *Server) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Recreate deletes the topic and creates it again.
func (s *Server) Recreate() { s.change(func() { s.create(len(s.partitions)) }) }

// Stop stops the server. Restart starts it again with all stored messages.
func (s *Server) Stop() { s.change(func() { s.up = false; s.restarts++ }) }

// Restart starts the server again.
func (s *Server) Restart() { s.change(func() { s.up = true }) }

// AddPartition adds a partition and returns its number.
func (s *Server) AddPartition() (number int) {
	s.change(func() {
		number = len(s.partitions)
		s.partitions = append(s.partitions, &partition{epochs: []uint64{0}})
	})
	return number
}

// Assign sets the partitions that a process reads. By default, it reads all of them.
func (s *Server) Assign(c *Client, partitions ...int) {
	s.change(func() { s.assigned[c] = slices.Clone(partitions) })
}

// Truncate removes the last n messages of a partition in an unclean election, and returns
// the new end. Messages stored later belong to another epoch.
func (s *Server) Truncate(number, n int) (end uint64) {
	s.change(func() {
		p := s.partitions[number]
		left := len(p.records) - n
		p.end = p.records[left].offset
		p.records = slices.Clone(p.records[:left])
		p.epochs = append(p.epochs, p.end)
	})
	return s.End(number)
}

// End returns the offset of the next message of a partition.
func (s *Server) End(number int) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partitions[number].end
}

// Committed returns the committed offset of a group in a partition.
func (s *Server) Committed(group string, number int) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed[place{group, s.id, number}].offset
}

// Store stores events in a partition, as one batch.
func (s *Server) Store(number int, events ...event.Event) error {
	records := make([]record, len(events))
	for i := range events {
		if err := s.check(events[i]); err != nil {
			return fmt.Errorf("store event: %w", err)
		}
		e := events[i].Clone()
		records[i] = record{event: &e, size: sizeOf(e)}
	}
	return s.store(number, records...)
}

// check returns the [eventing.Rejection] of an event that the server can never store.
func (s *Server) check(e event.Event) error {
	if err := cloudevent.Check(e); err != nil {
		return &eventing.Rejection{Code: http.StatusBadRequest, Err: err}
	}
	if size := sizeOf(e); size > maxEvent {
		return &eventing.Rejection{Code: http.StatusRequestEntityTooLarge, Err: fmt.Errorf("%w: it has %d bytes, the limit is %d", eventing.ErrTooLarge, size, maxEvent)}
	}
	return nil
}

func sizeOf(e event.Event) int {
	return len(e.DataEncoded) + len(e.ID()) + len(e.Source()) + len(e.Type()) + len(e.Subject())
}

// StoreForeign stores a message that is not a CloudEvent in a partition.
func (s *Server) StoreForeign(number int, data string) error {
	return s.store(number, record{data: data, size: len(data)})
}

func (s *Server) store(number int, records ...record) (err error) {
	s.change(func() {
		if !s.up {
			err = errUnavailable
			return
		}
		p := s.partitions[number]
		for _, r := range records {
			r.offset, r.epoch, r.stored = p.end, len(p.epochs)-1, time.Now() //nolint:forbidigo // the server's clock
			p.records = append(p.records, r)
			p.end++
		}
		p.end++ // the marker
	})
	return err
}

// diverges returns the offset from which on the messages of a partition differ from
// those before a position; the position's own offset if they do not differ.
func (p *partition) diverges(at position) uint64 {
	if at.epoch < 0 {
		return at.offset
	}
	endOf := p.end // of the epoch
	if at.epoch+1 < len(p.epochs) {
		endOf = p.epochs[at.epoch+1]
	}
	return min(at.offset, endOf)
}

// from returns the messages from an offset on, and the epoch of the message before
// them.
func (p *partition) from(offset uint64) (records []record, before int) {
	i, _ := slices.BinarySearchFunc(p.records, offset, func(r record, offset uint64) int {
		if r.offset < offset {
			return -1
		}
		return 1
	})
	before = -1
	if i > 0 {
		before = p.records[i-1].epoch
	}
	return p.records[i:], before
}

// watch waits for a change, for at most most.
func watch(ctx context.Context, changed <-chan struct{}, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
}
