package sink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
	changed   chan struct{} // holds a token when an event was accepted or has failed

	mu               sync.Mutex
	groups           []*group
	turn             int // the group that may be next
	accepted, failed int // events
	latest           error
}

// group holds the events of one type.
type group struct {
	eventType        string
	events           []int // those that are not sent yet
	tolerates        int   // how many may fail before any is accepted
	sent             int   // requests
	accepted, failed int   // events
	latest           error
}

// newCall returns a call, after the pause that a failing sink asked for.
func (p *Publisher) newCall(ctx context.Context, events []event.Event) *call {
	c := &call{publisher: p, ctx: ctx, events: events, reasons: make([]error, len(events)), changed: make(chan struct{}, 1)}
	byType := map[string]*group{}
	p.mu.Lock()
	failing := len(p.failing) > 0
	for i := range events {
		eventType := events[i].Type()
		g := byType[eventType]
		if g == nil {
			g = &group{eventType: eventType, tolerates: p.cfg.InFlight}
			if p.failing[eventType] {
				g.tolerates = min(probes, p.cfg.InFlight)
			} else {
				failing = false
			}
			byType[eventType] = g
			c.groups = append(c.groups, g)
		}
		g.events = append(g.events, i)
	}
	pause := p.pause.Sub(p.cfg.Now())
	p.mu.Unlock()
	if failing && pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return c
}

// next waits until another request may be sent, and returns the group that it is of; nil
// if none should be.
func (c *call) next() *group {
	for c.ctx.Err() == nil {
		c.mu.Lock()
		g, wait := c.choose()
		c.mu.Unlock()
		switch {
		case g != nil:
			select {
			case c.publisher.slots <- struct{}{}:
				g.sent++
				return g
			case <-c.ctx.Done():
				return nil
			}
		case !wait:
			return nil
		}
		select {
		case <-c.changed:
		case <-c.ctx.Done():
		}
	}
	return nil
}

// choose returns a group of which a request may be sent now, or whether one may be later.
func (c *call) choose() (next *group, wait bool) {
	if c.accepted == 0 && c.failed >= c.publisher.cfg.InFlight {
		return nil, false
	}
	for range c.groups {
		g := c.groups[c.turn%len(c.groups)]
		c.turn++
		switch {
		case len(g.events) == 0, g.accepted == 0 && g.failed >= g.tolerates:
		case g.accepted == 0 && g.sent >= g.tolerates:
			wait = true
		default:
			return g, false
		}
	}
	return nil, wait
}

// chunk takes the events of one request out of their group, and returns the body if they
// are more than one.
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
func (c *call) send(g *group, chunk []int, body []byte) {
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

// done notes the outcome of an event.
func (c *call) done(g *group, i int, reason error) {
	c.reasons[i] = reason
	c.mu.Lock()
	if reason == nil || errors.As(reason, new(*eventing.Rejection)) {
		c.accepted++
		g.accepted++
	} else {
		c.failed++
		g.failed++
		c.latest, g.latest = reason, reason
	}
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// end sets the reasons of the events that were not sent, and notes which types fail.
func (c *call) end() {
	p := c.publisher
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range c.groups {
		latest := g.latest
		if latest == nil {
			latest = c.latest
		}
		reason := context.Cause(c.ctx)
		if c.ctx.Err() == nil {
			reason = fmt.Errorf("not sent, since none of the others was accepted: %w", latest)
		}
		for _, i := range g.events {
			c.reasons[i] = reason
		}
		switch {
		case g.accepted > 0:
			delete(p.failing, g.eventType)
		case g.failed > 0:
			p.failing[g.eventType] = true
		}
	}
}
