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
)

// call is one call of a function.
type call struct {
	effects functions.Effects
	err     error
	ended   chan struct{}

	// state is decided once, by the function's end or by whoever waits for it.
	state atomic.Int32
}

const (
	running int32 = iota
	ended
	leftBehind
)

// run calls f, and recovers.
func (c *call) run(ctx context.Context, f functions.Func, e event.Event) {
	returned := false
	defer func() {
		if !returned {
			// The value is nil after runtime.Goexit.
			c.err = &panicError{value: recover(), stack: debug.Stack()}
		}
	}()
	c.effects, c.err = f(ctx, e)
	returned = true
}

// call has f compute the effects of e, in a goroutine of its own since f may
// ignore its context. Past the deadline it is left behind, and counted until it
// ends.
func (h *Handler) call(ctx context.Context, f *functions.Function, e event.Event) (functions.Effects, error) {
	if err := h.Alive(); err != nil {
		return functions.Effects{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, h.config.Deadline)
	defer cancel()

	e = ownCopy(e)
	c := &call{ended: make(chan struct{})}
	go func() {
		// Deferred, since Goexit leaves no other way.
		defer func() {
			if !c.state.CompareAndSwap(running, ended) {
				h.stuck.Add(-1)
			}
			close(c.ended)
		}()
		c.run(bounded, f.Handle, e)
	}()
	if err := h.wait(ctx, bounded, c); err != nil {
		return functions.Effects{}, fmt.Errorf("function %s: %w", f.Name, err)
	}
	return c.effects, nil
}

// ownCopy is e for a function to keep and to change: what it sets must not become
// the identity that is committed. Data and what pointers refer to are shared.
func ownCopy(e event.Event) event.Event {
	if v1, ok := e.Context.(*event.EventContextV1); ok {
		attributes := *v1
		attributes.Extensions = maps.Clone(v1.Extensions)
		e.Context = &attributes
	}
	return e
}

// wait waits for the end of c, or until bounded, made from ctx, is past its
// deadline. It returns what was wrong, with the status that it has.
func (h *Handler) wait(ctx, bounded context.Context, c *call) error {
	select {
	case <-c.ended:
	case <-bounded.Done():
		if ctx.Err() != nil {
			// The sender has gone, so there is time: the function is not to be
			// counted as stuck for that.
			patience := time.NewTimer(h.config.Deadline)
			defer patience.Stop()
			select {
			case <-c.ended:
			case <-patience.C:
			}
		}
		h.stuck.Add(1)
		if c.state.CompareAndSwap(running, leftBehind) {
			return withStatus(http.StatusInternalServerError, fmt.Errorf("not done within %s", h.config.Deadline))
		}
		h.stuck.Add(-1)
		<-c.ended
	}

	var rejected *functions.RejectError
	switch {
	case c.err == nil, errors.As(c.err, &rejected):
		return c.err
	case ctx.Err() != nil:
		// Nobody can say what it would have done with time enough.
		return c.err
	case bounded.Err() != nil:
		return withStatus(http.StatusInternalServerError, fmt.Errorf("not done within %s: %w", h.config.Deadline, c.err))
	}
	return withStatus(http.StatusInternalServerError, c.err)
}
