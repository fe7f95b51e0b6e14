package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"sync/atomic"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// call is one event of a request, and the call of its function.
type call struct {
	function *functions.Function // nil if no function is to be called
	event    event.Event
	deferred bool // stored in the database until it is committed
	key      callKey

	// Set by running.join: a call either computes, in its group, or shares the
	// computation of the same event, or has a kept result. Otherwise its result is an
	// error.
	group  *group
	shared *call
	kept   bool

	// attributes are the event's, which the function may keep and modify.
	attributes event.EventContextV1

	deadline deadline
	over     atomic.Bool // the function has returned, or the call is abandoned
	replaced bool        // the call was abandoned, and another worker continues

	inTime, late bool // whether it had ended when its group was closed

	effects functions.Effects
	result  // the function's error, until the effects are committed

	// Under the lock of running.
	finished bool
	returned bool     // after the call was abandoned
	waiters  []*group // the groups that share the call
	receiver *group   // the group that receives whether the event was won
}

// run calls the function, and recovers from panics.
func (c *call) run() {
	h := c.group.handler
	own := c.ownEvent() // before the call can be abandoned
	c.deadline.call = c
	h.calls.begin(c.group.ctx, &c.deadline)
	var effects functions.Effects
	var err error
	returned := false
	defer func() {
		if !returned {
			// The value is nil after runtime.Goexit.
			err = &panicError{value: recover(), stack: debug.Stack()}
		}
		late := errors.Is(c.deadline.Err(), context.DeadlineExceeded)
		h.calls.end(&c.deadline)
		if !c.over.CompareAndSwap(false, true) {
			c.replaced = true
			h.running.returned(c)
			h.stuck.Add(-1)
			return
		}
		c.effects = effects
		if err != nil {
			c.err = c.failure(err, late)
		}
		c.group.callEnded(c)
	}()
	effects, err = c.function.Handle(&c.deadline, own)
	returned = true
}

// abandon ends a call that has not returned by its deadline. It counts as stuck until
// its function returns.
func (c *call) abandon() {
	if !c.over.CompareAndSwap(false, true) {
		return
	}
	// If the function returns in between, the count is briefly too low. It must not be too
	// high: Alive would fail because of a function that met its deadline.
	h := c.group.handler
	h.stuck.Add(1)
	h.running.setStuck(c)
	c.err = c.failure(nil, true)
	go c.group.work() // its worker may never return
	c.group.callEnded(c)
}

// failure returns the error of a call, with its status. Late reports whether its
// deadline is past; then the function's own error may be nil.
func (c *call) failure(err error, late bool) error {
	var rejected *functions.RejectError
	switch {
	case errors.As(err, &rejected):
		return fmt.Errorf("function %s: %w", c.function.Name, err)
	case late && err == nil:
		err = fmt.Errorf("not done within %s", c.group.handler.config.Deadline)
	case late:
		err = fmt.Errorf("not done within %s: %w", c.group.handler.config.Deadline, err)
	}
	return fmt.Errorf("function %s: %w", c.function.Name, withStatus(http.StatusInternalServerError, err))
}

// ownEvent returns the event for the function to keep and modify: its changes must not
// become part of the committed identity. Data and the targets of pointers are shared.
func (c *call) ownEvent() event.Event {
	e := c.event
	if v1, ok := e.Context.(*event.EventContextV1); ok {
		c.attributes = *v1
		c.attributes.Extensions = maps.Clone(v1.Extensions)
		e.Context = &c.attributes
	}
	return e
}

// offer returns the computed effects for the committer.
func (c *call) offer() sinkwriter.Offer {
	return sinkwriter.Offer{Function: c.function.Name, Version: c.function.Version, Event: c.event, Effects: c.effects, Deferred: c.deferred}
}

// setResult sets the committer's outcome.
func (c *call) setResult(receipt sinkwriter.Receipt, err error) {
	c.result = result{receipt: receipt, err: err}
	if deploymentError(err) != nil {
		c.effectClass = effectClass(c.effects)
	}
}

// release drops the event and the effects.
func (c *call) release() {
	c.event, c.effects = event.Event{}, functions.Effects{}
}
