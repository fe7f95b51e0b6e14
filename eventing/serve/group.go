package serve

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Most functions only compute, so a batch needs few goroutines. If it is not done
	// soon, its functions are waiting, and more goroutines are started.
	firstWorkers = 8
	soon         = 2 * time.Millisecond

	// minGrace is the minimum time that the slower half of a batch has after the faster
	// one.
	minGrace = 5 * time.Millisecond

	// slack is the time by which a request outlives the deadline of the calls that
	// began with it, so that they have ended.
	slack = 50 * time.Millisecond
)

// group holds the calls of one request: one for each event. If the request is answered
// before all calls have ended, the remaining ones are late: the group continues with
// them, and commits each separately.
type group struct {
	handler *Handler
	ctx     context.Context // the request's
	one     [1]call         // the list for a single event
	list    []call
	commit  deadline

	// Set by running.join: how many calls compute, how many share a computation of
	// another group, and how many had a result at once.
	own, sharing, preset int

	next atomic.Int64 // the index of the next call to compute

	// wake receives an element when most or all calls have ended, and when a shared one
	// has.
	wake chan struct{}

	mu          sync.Mutex
	ended       int // of own
	endedShared int // of sharing
	closed      bool
}

func newGroup(ctx context.Context, h *Handler) *group {
	return &group{handler: h, ctx: ctx, wake: make(chan struct{}, 1)}
}

// most returns how many of the group's own calls must have ended so that at least half
// of its events are decided, without those that depend on other groups.
func (g *group) most() int {
	return max(0, (g.own+g.preset+1)/2-g.preset)
}

// compute calls the functions, and returns the calls that have ended: all of them, or if
// early is set most of them, plus those that end within a grace. The others are late. It
// returns within the time of a call in any case.
func (g *group) compute(begin time.Time, early bool) []*call {
	if g.own == 0 {
		return nil
	}
	workers := min(g.own, g.handler.config.MaxConcurrent)
	g.startWorkers(min(workers, firstWorkers))
	if len(g.list) == 1 {
		<-g.wake
	} else {
		g.awaitOwn(begin, early, workers-min(workers, firstWorkers))
	}
	return g.close()
}

// awaitOwn waits for the group's own calls. If they are not done soon, it starts more
// workers.
func (g *group) awaitOwn(begin time.Time, early bool, moreWorkers int) {
	h := g.handler
	until := begin.Add(h.config.Deadline + slack)
	timer := time.NewTimer(soon)
	defer timer.Stop()
	var grace *countdown
	for {
		ended := g.endedCalls()
		if ended == g.own {
			return
		}
		now := h.config.Now()
		wait := until.Sub(now)
		if early && grace == nil && ended >= g.most() {
			grace = newCountdown(max(minGrace, now.Sub(begin)), now)
		}
		if grace != nil {
			wait = min(wait, grace.next(now))
		}
		if wait <= 0 {
			return
		}
		if moreWorkers > 0 {
			if untilSoon := begin.Add(soon).Sub(now); untilSoon > 0 {
				wait = min(wait, untilSoon)
			} else {
				g.startWorkers(moreWorkers)
				moreWorkers = 0
			}
		}
		timer.Reset(wait)
		select {
		case <-g.wake:
		case <-timer.C:
		}
	}
}

// countdown is a duration that passes in ticks, and hardly while the process does not
// run: neither a busy machine nor a limit on CPU time makes an event slow.
type countdown struct {
	left, tick time.Duration
	last       time.Time
}

func newCountdown(length time.Duration, now time.Time) *countdown {
	return &countdown{left: length, tick: length / 5, last: now}
}

// next returns the wait before the next call of it; 0 or less at the end.
func (c *countdown) next(now time.Time) time.Duration {
	c.left -= min(now.Sub(c.last), 2*c.tick)
	c.last = now
	return min(c.left, c.tick)
}

// awaitShared waits for the computations of other groups, within the time of a call; if
// early is set, only until at least half of the group's events are decided.
func (g *group) awaitShared(begin time.Time, early bool) {
	if g.sharing == 0 {
		return
	}
	h := g.handler
	timer := time.NewTimer(begin.Add(h.config.Deadline + slack).Sub(h.config.Now()))
	defer timer.Stop()
	for {
		g.mu.Lock()
		shared := g.sharing - g.endedShared
		undecided := shared + g.own - g.ended
		g.mu.Unlock()
		if shared == 0 || early && 2*undecided <= len(g.list) {
			return
		}
		select {
		case <-g.wake:
		case <-timer.C:
			return
		case <-g.ctx.Done():
			return
		}
	}
}

// endedCalls returns how many of the group's own calls have ended.
func (g *group) endedCalls() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ended
}

// close marks the calls that have not ended as late, and returns the others.
func (g *group) close() []*call {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.handler.addLate(g.own - g.ended)
	ended := make([]*call, 0, g.ended)
	for i := range g.list {
		switch c := &g.list[i]; {
		case c.inTime:
			ended = append(ended, c)
		case c.group != nil:
			c.late = true
		}
	}
	return ended
}

// callEnded is called once for each of the group's own calls, when it has ended or is
// abandoned.
func (g *group) callEnded(c *call) {
	g.mu.Lock()
	late := g.closed
	if !late {
		c.inTime = true
		g.ended++
	}
	wake := !late && (g.ended == g.own || g.ended == g.most())
	g.mu.Unlock()
	switch {
	case late:
		go g.handler.finishLate(c)
	case wake:
		g.wakeUp()
	}
}

// sharedEnded is called for each computation of another group, when it has a result.
func (g *group) sharedEnded() {
	g.mu.Lock()
	g.endedShared++
	g.mu.Unlock()
	g.wakeUp()
}

func (g *group) wakeUp() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// startWorkers starts workers.
func (g *group) startWorkers(workers int) {
	for range workers {
		go g.work()
	}
}

// work runs calls one after the other.
func (g *group) work() {
	var c *call
	defer func() {
		if c != nil && !c.replaced { // the function called runtime.Goexit
			go g.work()
		}
	}()
	for {
		i := g.next.Add(1) - 1
		if i >= int64(len(g.list)) {
			return
		}
		if g.list[i].group == nil {
			continue
		}
		c = &g.list[i]
		if c.run(); c.replaced {
			return
		}
		c = nil
	}
}

// resultOf returns the result of an event for the answer.
func (g *group) resultOf(i int) result {
	if c := &g.list[i]; !c.late {
		return c.result
	}
	return result{err: errPending}
}

// release drops the events and effects of the calls that have results, if late calls
// keep the group in memory.
func (g *group) release() {
	for i := range g.list {
		if c := &g.list[i]; !c.late {
			c.release()
		}
	}
}
