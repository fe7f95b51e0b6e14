package offsetstream

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// Client is a connection of one process. It is safe for concurrent use.
type Client struct {
	server *Server
	closed atomic.Bool
}

// Connect returns a connection.
func (s *Server) Connect() *Client { return &Client{server: s} }

// Close closes the connection, like the end of the process: acknowledgements that are
// not committed are lost.
func (c *Client) Close() { c.closed.Store(true) }

// usable returns why requests to the server fail; nil if they do not. It is called with
// the server's lock held.
func (c *Client) usable() error {
	switch {
	case c.closed.Load():
		return errClosed
	case !c.server.up:
		return errUnavailable
	}
	return nil
}

// Stream returns one partition, as read by a group.
func (c *Client) Stream(group string, partition int) *Stream {
	return &Stream{client: c, group: group, partition: partition}
}

// Streams returns the partitions that are assigned to this process, as read by a group.
func (c *Client) Streams(group string) eventing.Streams { return &assignment{client: c, group: group} }

// assignment is the set of partitions of a process.
type assignment struct {
	client *Client
	group  string
}

// Watch implements [eventing.Streams].
func (a *assignment) Watch(ctx context.Context, update func([]eventing.Stream)) error {
	s := a.client.server
	var last []int
	for first := true; ctx.Err() == nil; {
		s.mu.Lock()
		err, changed := a.client.usable(), s.changed
		now, ok := s.assigned[a.client]
		if !ok {
			for number := range s.partitions {
				now = append(now, number)
			}
		}
		now = slices.Clone(now)
		s.mu.Unlock()
		if err != nil {
			return fmt.Errorf("look up partitions: %w", err)
		}
		if first || !slices.Equal(last, now) {
			var streams []eventing.Stream
			for _, number := range now {
				streams = append(streams, a.client.Stream(a.group, number))
			}
			update(streams)
			first, last = false, now
		}
		watch(ctx, changed, time.Minute)
	}
	return nil
}

// Publisher returns a publisher that chooses the partition by the subject.
func (c *Client) Publisher() eventing.Publisher { return publisher{c} }

type publisher struct{ client *Client }

// Publish implements [eventing.Publisher].
func (p publisher) Publish(ctx context.Context, events []event.Event) error {
	s := p.client.server
	s.mu.Lock()
	err, partitions := p.client.usable(), len(s.partitions)
	s.mu.Unlock()
	if err == nil {
		err = ctx.Err()
	}
	reasons := make([]error, len(events))
	batches := map[int][]int{}
	for i, e := range events {
		if reasons[i] = err; err != nil {
			continue
		}
		if reasons[i] = s.check(e); reasons[i] != nil {
			continue
		}
		hash := fnv.New32a()
		_, _ = hash.Write([]byte(e.Subject()))
		number := int(hash.Sum32() % uint32(partitions))
		batches[number] = append(batches[number], i)
	}
	for number, batch := range batches {
		stored := make([]event.Event, len(batch))
		for n, i := range batch {
			stored[n] = events[i]
		}
		err := s.Store(number, stored...)
		for _, i := range batch {
			reasons[i] = err
		}
	}
	if err := contract.Published(reasons); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}
