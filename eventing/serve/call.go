package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// call is one call of a function, for one event.
type call struct {
	function *functions.Function // nil if there is none to call
	event    event.Event

	// own are the event's attributes for the function to keep and to change.
	own event.EventContextV1

	// effects and err are the function's. They may be read once state is ended.
	effects functions.Effects
	err     error

	// state is decided once, by the end of the function or by the goroutine that waits
	// for it.
	state atomic.Int32

	receipt sinkwriter.Receipt // of what is committed

	// failure is the reason why nothing is committed.
	failure error
}

const (
	waiting int32 = iota
	running
	ended
	abandoned
)

// calls are the calls that share a deadline: those for the events of a batch, or the
// one for a single event.
type calls struct {
	one      [1]call // what list is for an event alone
	list     []call
	deadline deadline // ends when no worker is left, or when it is past
	commit   deadline // of the commit afterwards
	stuck    *atomic.Int64
	next     atomic.Int64
	workers  atomic.Int64
}

// compute calls the functions for cs.list, in goroutines of their own since a function
// may ignore its context. Calls that have not ended by the deadline are abandoned, and
// counted until they end. Afterwards each call has effects or a failure.
func (h *Handler) compute(ctx context.Context, cs *calls) {
	if len(cs.list) == 0 {
		return
	}
	if err := h.Alive(); err != nil {
		for i := range cs.list {
			if c := &cs.list[i]; c.function != nil {
				c.failure = err
			}
		}
		return
	}
	h.calls.begin(ctx, &cs.deadline)
	defer h.calls.end(&cs.deadline)
	cs.stuck = &h.stuck
	cs.startWorkers(min(len(cs.list), h.config.MaxConcurrent, firstWorkers))
	early := h.awaitCalls(cs)
	for i := range cs.list {
		if c := &cs.list[i]; c.function != nil {
			if err := h.callFailure(cs, c, i < early); err != nil {
				c.failure = fmt.Errorf("function %s: %w", c.function.Name, err)
			}
		}
	}
}

// Most functions only compute, so that a batch needs few goroutines. If it is not done
// soon, its functions wait for something, and more are started.
const (
	firstWorkers = 8
	soon         = 2 * time.Millisecond
)

// awaitCalls waits for the end of all calls or for their deadline. It returns how many
// calls, the first ones, had at least half of the time.
func (h *Handler) awaitCalls(cs *calls) (early int) {
	if len(cs.list) <= firstWorkers && len(cs.list) <= h.config.MaxConcurrent {
		<-cs.deadline.done
		return len(cs.list)
	}
	timer := time.NewTimer(soon)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-cs.deadline.done:
		return len(cs.list)
	}
	cs.startWorkers(min(len(cs.list), h.config.MaxConcurrent) - min(firstWorkers, h.config.MaxConcurrent))

	timer.Reset(h.config.Deadline/2 - soon)
	select {
	case <-timer.C:
		early = min(int(cs.next.Load()), len(cs.list))
		<-cs.deadline.done
	case <-cs.deadline.done:
		early = len(cs.list) // all have ended
	}
	return early
}

// startWorkers starts workers.
func (cs *calls) startWorkers(workers int) {
	cs.workers.Add(int64(workers))
	for range workers {
		go cs.work()
	}
}

// work runs one call after the other.
func (cs *calls) work() {
	orderly := false
	defer func() {
		switch {
		case !orderly: // a function ended the goroutine
			go cs.work()
		case cs.workers.Add(-1) == 0:
			cs.deadline.end(context.Canceled)
		}
	}()
	for cs.deadline.Err() == nil {
		i := cs.next.Add(1) - 1
		if i >= int64(len(cs.list)) {
			break
		}
		cs.list[i].run(&cs.deadline, cs.stuck)
	}
	orderly = true
}

// run calls the function, and recovers.
func (c *call) run(ctx context.Context, stuck *atomic.Int64) {
	if c.function == nil || !c.state.CompareAndSwap(waiting, running) {
		return
	}
	returned := false
	defer func() {
		if !returned {
			// The value is nil after runtime.Goexit.
			c.err = &panicError{value: recover(), stack: debug.Stack()}
		}
		if !c.state.CompareAndSwap(running, ended) {
			stuck.Add(-1)
		}
	}()
	c.effects, c.err = c.function.Handle(ctx, c.ownEvent())
	returned = true
}

// ownEvent returns the event for the function to keep and to change: its changes must
// not become the identity that is committed. Data and the targets of pointers are
// shared.
func (c *call) ownEvent() event.Event {
	e := c.event
	if v1, ok := e.Context.(*event.EventContextV1); ok {
		c.own = *v1
		c.own.Extensions = maps.Clone(v1.Extensions)
		e.Context = &c.own
	}
	return e
}

// callFailure abandons c if it has not ended, and returns its failure, with its status.
// Early reports whether it had at least half of the time.
func (h *Handler) callFailure(cs *calls, c *call, early bool) error {
	if c.state.CompareAndSwap(waiting, abandoned) {
		return fmt.Errorf("not called, as the other events took the %s that a batch has", h.config.Deadline)
	}
	if c.state.Load() != ended {
		h.stuck.Add(1)
		if c.state.CompareAndSwap(running, abandoned) {
			return h.attributeTimeout(nil, early)
		}
		h.stuck.Add(-1)
	}

	if c.err == nil {
		return nil
	}
	var rejected *functions.RejectError
	switch {
	case errors.As(c.err, &rejected):
		return c.err
	case errors.Is(cs.deadline.Err(), context.DeadlineExceeded):
		return h.attributeTimeout(c.err, early)
	}
	return withStatus(http.StatusInternalServerError, c.err)
}

// attributeTimeout returns a timeout that counts as an attempt of the event, unless the
// function was called late: then the other events took the time. The function's own
// error may be nil.
func (h *Handler) attributeTimeout(err error, early bool) error {
	if err == nil {
		err = fmt.Errorf("not done within %s", h.config.Deadline)
	} else {
		err = fmt.Errorf("not done within %s: %w", h.config.Deadline, err)
	}
	if early {
		return withStatus(http.StatusInternalServerError, err)
	}
	return err
}

// offer returns the computed effects as they are committed.
func (c *call) offer() sinkwriter.Offer {
	return sinkwriter.Offer{Function: c.function.Name, Version: c.function.Version, Event: c.event, Effects: c.effects}
}
