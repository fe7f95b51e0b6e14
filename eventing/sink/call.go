package sink

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

// call is one call of [Publisher.Publish].
type call struct {
	publisher *Publisher
	ctx       context.Context //nolint:containedctx // of the call
	events    []event.Event
	reasons   []error       // each request sets those of its own events
	changed   chan struct{} // holds a token after an event was accepted or has failed

	probes           bool // all types fail; some events are still sent
	mu               sync.Mutex
	groups           []*group
	turn             int // the group to consider next
	accepted, failed int // events
	latest           error
}

// group holds the events of one type.
type group struct {
	eventType        string
	events           []int // not sent yet
	tolerates        int   // how many may fail before one is accepted
	sent             int   // requests
	underWay         int   // of the sent requests
	accepted, failed int   // events
	latest           error
}

// newCall returns a call, after the pause that a failing sink requested.
func (p *Publisher) newCall(ctx context.Context, events []event.Event) *call {
	c := &call{publisher: p, ctx: ctx, events: events, reasons: make([]error, len(events)), changed: make(chan struct{}, 1)}
	byType := map[string]*group{}
	c.probes = true
	for i := range events {
		eventType := events[i].Type()
		g := byType[eventType]
		if g == nil {
			g = &group{eventType: eventType, tolerates: p.cfg.InFlight}
			if p.places.fails(eventType) {
				g.tolerates = min(probes, p.cfg.InFlight)
			} else {
				c.probes = false
			}
			byType[eventType] = g
			c.groups = append(c.groups, g)
		}
		g.events = append(g.events, i)
	}
	p.mu.Lock()
	pause := p.pause.Sub(p.cfg.Now())
	p.mu.Unlock()
	if c.probes && pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return c
}

// next waits until another request may be sent, and returns its group and its place; nil if
// no request should be sent.
func (c *call) next() (*group, *place) {
	for c.ctx.Err() == nil {
		freed := c.publisher.places.wait()
		c.mu.Lock()
		g, l, wait := c.choose()
		c.mu.Unlock()
		if g != nil || !wait {
			return g, l
		}
		select {
		case <-c.changed:
		case <-freed:
		case <-c.ctx.Done():
		}
	}
	return nil, nil
}

// choose returns a group that may send a request now, with its place; wait reports whether one
// may later. A type that fails waits for no place, and is not sent while there are other types.
func (c *call) choose() (next *group, l *place, wait bool) {
	if c.accepted == 0 && c.failed >= c.publisher.cfg.InFlight {
		return nil, nil, false
	}
	for range c.groups {
		g := c.groups[c.turn%len(c.groups)]
		c.turn++
		switch {
		case len(g.events) == 0, g.accepted == 0 && g.failed >= g.tolerates:
		case g.accepted == 0 && g.sent >= g.tolerates:
			wait = true
		case !c.probes && c.publisher.places.fails(g.eventType):
			wait = wait || g.underWay > 0 // it may only be slow
		default:
			if l := c.publisher.places.take(g.eventType, g.underWay); l != nil {
				g.sent++
				g.underWay++
				return g, l, false
			}
			wait = wait || g.underWay > 0 || !c.publisher.places.fails(g.eventType)
		}
	}
	return nil, nil, wait
}

// chunk removes the events of one request from their group, and returns the body if it
// has more than one event.
func (c *call) chunk(g *group) (chunk []int, body []byte) {
	cfg := &c.publisher.cfg
	if cfg.Batch == 1 {
		chunk, g.events = g.events[:1], g.events[1:]
		return chunk, nil
	}
	body = []byte{'['}
	n := 0
	for n < min(len(g.events), cfg.Batch) {
		longer, err := cloudevent.AppendJSON(body, cfg.Sink.Apply(c.events[g.events[n]]))
		if err != nil && n == 0 { // it is rejected alone
			n, body = 1, nil
			break
		}
		if err != nil || n > 0 && len(longer)+1 > cfg.BatchBytes {
			break
		}
		body = append(longer, ',')
		n++
	}
	chunk, g.events = g.events[:n:n], g.events[n:]
	if n > 1 {
		body[len(body)-1] = ']'
	}
	return chunk, body
}

// send sends a chunk, and its events one by one if the sink does not accept them together.
func (c *call) send(g *group, l *place, chunk []int, body []byte) {
	defer c.sent(g, l, chunk)
	p := c.publisher
	if len(chunk) > 1 {
		err := p.send(c.ctx, EncodeBatch(body))
		if !errors.As(err, new(*eventing.Rejection)) {
			for _, i := range chunk {
				c.done(g, i, err)
			}
			return
		}
	}
	for _, i := range chunk {
		if c.ctx.Err() != nil {
			c.done(g, i, context.Cause(c.ctx))
			continue
		}
		r, err := Encode(p.cfg.Sink.Apply(c.events[i]))
		if err != nil {
			err = &eventing.Rejection{Code: http.StatusBadRequest, Err: fmt.Errorf("encode event: %w", err)}
		} else {
			err = p.send(c.ctx, r)
		}
		c.done(g, i, err)
	}
}

// sent records the end of a request.
func (c *call) sent(g *group, l *place, chunk []int) {
	l.end(slices.ContainsFunc(chunk, func(i int) bool { return accepted(c.reasons[i]) }))
	c.mu.Lock()
	g.underWay--
	c.mu.Unlock()
	c.notify()
}

// accepted reports whether the sink has accepted an event, or rejected it permanently.
func accepted(reason error) bool { return reason == nil || errors.As(reason, new(*eventing.Rejection)) }

// done records the outcome of an event.
func (c *call) done(g *group, i int, reason error) {
	c.reasons[i] = reason
	c.mu.Lock()
	if accepted(reason) {
		c.accepted++
		g.accepted++
	} else {
		c.failed++
		g.failed++
		c.latest, g.latest = reason, reason
	}
	c.mu.Unlock()
	c.notify()
}

func (c *call) notify() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// end sets the reasons of the events that were not sent, and records which types fail.
func (c *call) end() {
	p := c.publisher
	for _, g := range c.groups {
		latest := g.latest
		if latest == nil {
			latest = c.latest
		}
		reason := context.Cause(c.ctx)
		if c.ctx.Err() == nil {
			reason = notSent(latest)
		}
		for _, i := range g.events {
			c.reasons[i] = reason
		}
		if g.accepted == 0 && g.failed > 0 {
			p.places.failed(g.eventType)
		}
	}
}

// errFailing is the reason of an event that was not sent, because its type fails.
var errFailing = errors.New("the sink did not accept the latest events of this type")

// notSent returns the reason of an event that was not sent, with the latest reason of the
// others.
func notSent(latest error) error {
	if latest == nil {
		latest = errFailing
	}
	return fmt.Errorf("not sent, because none of the others was accepted: %w", latest)
}
