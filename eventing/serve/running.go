package serve

import (
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// keepFor is how long an outcome is kept that no request has received.
const keepFor = time.Minute

// errPending is the result of an event whose computation has not ended. A retry shares
// that computation.
var errPending = errors.New("not done in the time that the request had: it is still being computed, and a retry is answered with the outcome")

// errStuck is the result of an event whose earlier call ignored its deadline and still runs.
var errStuck = errors.New("an earlier call for the event was not done by its deadline, and still runs")

// callKey identifies an event of a function.
type callKey struct {
	function   *functions.Function
	source, id string
}

// result is the result of an event: a receipt, or the reason why it is not committed.
type result struct {
	receipt sinkwriter.Receipt
	err     error

	// effectClass is the class of the effects, if only a change of the deployment can
	// help.
	effectClass string
}

// decided reports whether another computation would have the same result.
func (r result) decided() bool {
	return r.err == nil || statusOf(r.err) != http.StatusServiceUnavailable
}

// running holds the computations under way, by event, so that no event is computed twice
// at the same time. It also keeps the outcomes that no request has received, so that the
// retry of a pending event is won and not lost.
type running struct {
	now   func() time.Time
	limit int // of kept outcomes

	mu    sync.Mutex
	calls map[callKey]*call
	stuck map[callKey]*call // whose functions did not return by their deadline
	kept  map[callKey]*keptResult
	order []*keptResult // by time, including received ones
}

type keptResult struct {
	key    callKey
	result result
	until  time.Time
	taken  bool
}

func newRunning(now func() time.Time, limit int) *running {
	return &running{now: now, limit: limit, calls: make(map[callKey]*call), stuck: make(map[callKey]*call), kept: make(map[callKey]*keptResult)}
}

// join decides for each call of g that has a function whether it computes, shares a
// computation under way, or has a kept result. If refused is not nil, it is the result of
// the calls that would compute.
func (r *running) join(g *group, refused error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range g.list {
		c := &g.list[i]
		if c.function == nil {
			g.preset++
			continue
		}
		c.key = callKey{function: c.function, source: cloudevent.Source(c.event), id: c.event.ID()}
		if other := r.calls[c.key]; other != nil {
			c.shared = other
			if other.group != g && !slices.Contains(other.waiters, g) {
				other.waiters = append(other.waiters, g)
				g.sharing++
			}
			continue
		}
		if kept, ok := r.takeKept(c.key); ok {
			c.result, c.kept = kept, true
			g.preset++
			continue
		}
		if r.stuck[c.key] != nil {
			// The event has failed again: another call would be stuck, too.
			c.err = c.failure(errStuck, false)
			g.preset++
			continue
		}
		if refused != nil {
			c.err = refused
			g.preset++
			continue
		}
		c.group = g
		r.calls[c.key] = c
		g.own++
	}
}

// finish publishes the results of calls to the requests that share them. Received
// reports whether the request that computed them receives them; otherwise the first of
// the others does, or they are kept.
func (r *running) finish(received bool, calls ...*call) {
	r.mu.Lock()
	var waiters []*group
	for _, c := range calls {
		c.finished = true
		delete(r.calls, c.key)
		switch {
		case received:
		case len(c.waiters) > 0:
			c.receiver = c.waiters[0]
		default:
			r.keep(c.key, c.result)
		}
		waiters = append(waiters, c.waiters...)
	}
	r.mu.Unlock()
	for _, g := range waiters {
		g.sharedEnded()
	}
}

// setStuck records that the function of a call did not return by its deadline.
func (r *running) setStuck(c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.returned {
		r.stuck[c.key] = c
	}
}

// returned records that the function of an abandoned call has returned.
func (r *running) returned(c *call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.returned = true
	if r.stuck[c.key] == c {
		delete(r.stuck, c.key)
	}
}

// receive sets the results of the calls of g that share a computation: errPending for
// those that have not ended. Gone reports whether the sender of g has disconnected.
func (r *running) receive(g *group, gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range g.list {
		c := &g.list[i]
		other := c.shared
		if other == nil {
			continue
		}
		if !other.finished {
			c.err = errPending
			other.waiters = slices.DeleteFunc(other.waiters, func(waiter *group) bool { return waiter == g })
			continue
		}
		c.result = other.result
		switch {
		case other.receiver != g:
			c.receipt.Won = false // another request, or another event of this one, receives it
		case gone:
			r.keep(c.key, other.result)
		}
		if other.receiver == g {
			other.receiver = nil
		}
	}
}

// keep keeps a result until it is taken. It is called with mu held.
func (r *running) keep(key callKey, result result) {
	if !result.decided() {
		return
	}
	now := r.now()
	kept := &keptResult{key: key, result: result, until: now.Add(keepFor)}
	r.kept[key] = kept
	r.order = append(r.order, kept)
	for oldest := r.order[0]; oldest.taken || now.After(oldest.until) || len(r.order) > r.limit; oldest = r.order[0] {
		if r.kept[oldest.key] == oldest {
			delete(r.kept, oldest.key)
		}
		r.order[0] = nil
		r.order = r.order[1:]
	}
}

// takeKept returns and removes a kept result. It is called with mu held.
func (r *running) takeKept(key callKey) (result, bool) {
	kept := r.kept[key]
	if kept == nil {
		return result{}, false
	}
	delete(r.kept, key)
	kept.taken = true
	return kept.result, !r.now().After(kept.until)
}
