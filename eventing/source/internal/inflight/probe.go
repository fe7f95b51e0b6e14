package inflight

import (
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
)

const (
	// unavailableInRow is the number of events of a type that must be answered as
	// unavailable, each at its first attempt and without another answer to the type in
	// between, before the type is probed.
	unavailableInRow = 16

	// A type is probed after an interval that grows from probeBase to probeLimit, or, while
	// a probe has no answer, after probeHang.
	probeBase  = 50 * time.Millisecond
	probeLimit = time.Second
	probeHang  = 5 * time.Second

	// After a probe has passed, more events of its type are sent concurrently, twice as
	// many after each answer. With fullWindow, the type is no longer probed.
	fullWindow = 64

	// Events that hang do harm: a type whose first attempts hang as many times in a row is
	// probed, too. Its events that were attempted are not held: each is an attempt of its
	// own. An answer after hungAfter does not count. Events that end the process do harm,
	// too: a type of which harmTrials trials in a row broke their connections, or that broke
	// harmBreaks requests, the latest as the only type in it, without an answer in between.
	// All of its events are held. A probe is sent after an interval from harmBase to
	// harmLimit.
	harmTrials = 2
	harmBreaks = 2
	harmBase   = 5 * time.Second
	harmLimit  = time.Minute
	hungAfter  = 2 * time.Second

	// A type is also probed if unavailableInRow of its events are in requests, none of them
	// answered for hungAfter; or, if there are other types, if it takes half of the places in
	// requests without an answer for crowdedAfter, and for crowdedShare times the usual
	// duration of requests. Single events would otherwise take all places until their
	// deadline.
	crowdedAfter = 200 * time.Millisecond
	crowdedShare = 4

	// longUnavailable is the wait from which on an event waits for its time, and not for a
	// probe: the function requested that wait.
	longUnavailable = 10 * time.Second

	// Events that wait for a probe or for the budget may be committed by another cluster.
	// Some of them are looked up every failingLookupEvery, each entry every
	// failingRelook.
	failingLookupEvery = time.Second
	failingLookup      = 4096
	failingRelook      = 10 * time.Second

	// silentRequests is the number of consecutive requests without an answer, of any
	// type, after which the function counts as unavailable: then one type is probed at
	// a time.
	silentRequests = 16
)

// circuit is the state of the events of one type, or of all dead letters. While it is
// open, because the function is unavailable for them, they are held, and one at a time is
// sent: the probe. When that is answered, more are sent, until all are released.
type circuit struct {
	eventType   string
	entries     int // in flight, of this type
	unavailable int // consecutive first attempts

	sending    int       // entries in requests
	quietSince time.Time // when one of them was last answered, or the first of them was sent

	open    bool
	lacking bool // the deployment lacks something for the latest unavailable event
	harm    bool // its events hang, or break their connections
	held    entryQueue
	probes  int       // entries in requests that were held before
	window  int       // the maximum of probes; 0 means one at a time, after an interval
	probeAt time.Time // when the next one may be sent
	wait    backoff.Backoff

	harmWait backoff.Backoff

	breaks       int // requests with events of this type that broke, since one was answered
	brokenTrials int // trials of this type that broke, since one was harmless
}

// circuits is the state of a [Table] for event types.
type circuits struct {
	types       map[string]*circuit // of the events in flight
	deadLetters circuit
	probed      []*circuit // that are open
	silent      int        // consecutive requests without an answer
	failingAt   time.Time  // when entries that wait for it were last looked up
	sinkProbeAt time.Time  // when the next type may be probed while the function is unavailable
	sinkWait    backoff.Backoff
}

func newCircuit(eventType string) *circuit {
	c := &circuit{eventType: eventType}
	c.held.less = func(a, b *Entry) bool {
		if a.attempts != b.attempts {
			return a.attempts < b.attempts // otherwise an event that is at fault itself would always be the probe
		}
		return a.before(b)
	}
	return c
}

// joinCircuit assigns e to the circuit of its type.
func (t *Table) joinCircuit(e *Entry) {
	eventType := e.Delivery.Event.Type()
	c := t.types[eventType]
	if c == nil {
		c = newCircuit(eventType)
		if t.types[eventType] = c; len(t.types) == 2 {
			t.signal() // from now on holdQuiet may hold the other type
		}
	}
	c.entries++
	e.typeCircuit, e.Type = c, c.eventType
}

// leaveCircuit removes e from the circuit of its type, which is forgotten with the last
// event.
func (t *Table) leaveCircuit(e *Entry) {
	c := e.typeCircuit
	if c == nil {
		return
	}
	e.typeCircuit = nil
	if c.entries--; c.entries == 0 {
		delete(t.types, c.eventType)
		t.probed = slices.DeleteFunc(t.probed, func(other *circuit) bool { return other == c })
	}
}

// direct returns the circuit for e's next request.
func (t *Table) direct(e *Entry) *circuit {
	c := e.typeCircuit
	if e.Delivery.DeadLetter {
		c = &t.deadLetters
	}
	if e.circuit != c {
		e.circuit, e.attempts = c, 0
	}
	return c
}

// hold holds e, which is ready, if its circuit is open. It reports whether e is held.
func (t *Table) hold(e *Entry) bool {
	c := t.direct(e)
	if c == nil || !c.holds(e) {
		return false
	}
	e.failing = false // the type fails, not the event
	e.to(stateHeld)
	c.held.add(e)
	return true
}

// holds reports whether e waits for a probe.
func (c *circuit) holds(e *Entry) bool {
	kills := c.breaks+c.brokenTrials > 0
	return c.open && (!c.harm || kills || !e.slow && e.attempts == 0)
}

// circuitAnswered records the result of an entry that was sent.
func (t *Table) circuitAnswered(e *Entry, next Next, took time.Duration, now time.Time) {
	c := e.circuit
	if c == nil {
		return
	}
	switch {
	case next == Broken && e.probing == nil:
		return // trials find out which event it was
	case next == Broken && !c.harm:
		next = Unavailable
	}
	if next == Unavailable {
		c.lacking = e.Delivery.Lack.Fingerprint != ""
	}
	harmful := next == Pending || next == Broken || next == Retry && took >= hungAfter
	first := e.attempts == 0 && !e.suspect
	switch {
	case harmful && c.open && e.probing != nil:
		c.harm, c.window = true, 0
		c.probeAt = now.Add(c.harmWait.Delay(harmBase, harmLimit, 0))
	case next == Unavailable && c.open && e.probing != nil:
		if c.window /= 2; c.window == 0 {
			c.probeAt = now.Add(c.wait.Delay(probeBase, probeLimit, 0))
		}
	case (harmful || next == Unavailable) && !c.open && first:
		if c.unavailable++; c.unavailable >= unavailableInRow || next == Unavailable && t.silent >= silentRequests {
			c.harm = harmful
			t.openCircuit(c, now)
		}
	case harmful, next == Unavailable:
	case c.harm && e.probing == nil && next != Finish: // it was attempted before and failed again
	default:
		t.probePassed(c)
	}
}

// circuitSent records that an entry is sent.
func (t *Table) circuitSent(e *Entry, now time.Time) {
	c := t.direct(e)
	if c == nil {
		return
	}
	if c.sending++; c.sending == 1 {
		c.quietSince = now
	}
}

// circuitReturned records that a request with an entry has ended.
func (t *Table) circuitReturned(e *Entry, next Next, took time.Duration, now time.Time) {
	c := e.circuit
	if c == nil {
		return
	}
	c.sending--
	if next == Finish || next == Again || (next == Retry || next == Unavailable) && took < hungAfter {
		c.quietSince = now
	}
}

// holdQuiet opens the circuits of types whose events have no answers. It returns the
// time after which to call it again; 0 if it need not be.
func (t *Table) holdQuiet(now time.Time) (again time.Duration) {
	half := t.cfg.InFlight / 2
	if half == 0 || t.sending < min(unavailableInRow, half) {
		return 0
	}
	for _, c := range t.types {
		limit := hungAfter
		switch {
		case c.open:
			continue
		case len(t.types) > 1 && c.sending >= half:
			limit = max(crowdedAfter, crowdedShare*t.takes)
		case c.sending < unavailableInRow:
			continue
		}
		switch left := limit - now.Sub(c.quietSince); {
		case left <= 0:
			c.harm = true
			t.openCircuit(c, now)
		case again == 0 || left < again:
			again = left
		}
	}
	return again
}

// openCircuit holds all entries of c that are ready.
func (t *Table) openCircuit(c *circuit, now time.Time) {
	c.open, c.window, c.wait = true, 0, backoff.Backoff{}
	c.probeAt = now.Add(c.wait.Delay(probeBase, probeLimit, 0))
	t.probed = append(t.probed, c)
	t.holdAll(c)
}

// holdAll holds all entries of c that are ready and wait for a probe.
func (t *Table) holdAll(c *circuit) {
	for _, h := range t.readyQueues() {
		h.rebuild(func(e *Entry) bool { return e.circuit != c || e.mayTry() || !t.hold(e) })
	}
}

// probePassed sends more entries of c concurrently, and finally all of them.
func (t *Table) probePassed(c *circuit) {
	c.unavailable, c.breaks = 0, 0
	if !c.open {
		return
	}
	c.wait = backoff.Backoff{}
	if c.window = max(2, 2*c.window); c.window >= fullWindow {
		t.closeCircuit(c)
	}
}

// closeCircuit releases the entries that c holds.
func (t *Table) closeCircuit(c *circuit) {
	c.open, c.harm, c.harmWait = false, false, backoff.Backoff{}
	t.probed = slices.DeleteFunc(t.probed, func(other *circuit) bool { return other == c })
	held := slices.Collect(c.held.all())
	c.held.clear()
	for _, e := range held {
		t.ready(e)
	}
}

// sinkAnswered records whether the function answered a request, of any type.
func (t *Table) sinkAnswered(answered bool) {
	if !answered {
		t.silent++
		return
	}
	if t.silent >= silentRequests {
		for _, c := range t.probed { // each is probed at once
			c.probeAt, c.wait = time.Time{}, backoff.Backoff{}
		}
	}
	t.silent, t.sinkProbeAt, t.sinkWait = 0, time.Time{}, backoff.Backoff{}
}

// takeProbe returns a held entry to send now; nil if there is none. Then it returns the
// time until one may be sent, if that is before idle.
func (t *Table) takeProbe(now time.Time, idle time.Duration) (*Entry, time.Duration) {
	away := t.silent >= silentRequests
	var next *circuit
	for _, c := range t.probed {
		switch {
		case c.held.Len() == 0:
		case t.recovers(now) > c.mayWait():
			idle = min(idle, t.recovers(now)-c.mayWait())
		case c.window > 0:
			hangs := c.probeAt.Add(hungAfter - probeHang) // by then the outstanding probes are inconclusive
			if c.probes < c.window || !now.Before(hangs) {
				return t.sendProbe(c, now), 0
			}
			idle = min(idle, hangs.Sub(now))
		case next == nil || c.probeAt.Before(next.probeAt):
			next = c
		}
	}
	if next == nil {
		return nil, idle
	}
	at := next.probeAt
	if away && at.Before(t.sinkProbeAt) {
		at = t.sinkProbeAt
	}
	if left := at.Sub(now); left > 0 {
		return nil, min(left, idle)
	}
	if away {
		t.sinkProbeAt = now.Add(t.sinkWait.Delay(probeBase, probeLimit, 0))
	}
	return t.sendProbe(next, now), 0
}

// mayWait returns how long before the function has recovered from a break an event of c may
// be sent.
func (c *circuit) mayWait() time.Duration {
	switch {
	case c.harm || c.breaks >= harmBreaks:
		return 0
	case c.breaks > 0:
		return recoverFor / 2
	default:
		return recoverFor
	}
}

func (t *Table) sendProbe(c *circuit, now time.Time) *Entry {
	e := c.held.take()
	e.probing = c
	c.probes++
	c.probeAt = now.Add(probeHang)
	if c.harm {
		c.probeAt = now.Add(c.harmWait.Delay(harmBase, harmLimit, 0))
	}
	return e
}

// lookUpFailing looks up some of the entries that wait for a probe or for the budget, if
// there is a ledger: events that another cluster has committed need not wait. It returns
// the time after which to call it again; 0 if it need not be.
func (t *Table) lookUpFailing(now time.Time) (again time.Duration) {
	if t.cfg.CatchUpLag == 0 || t.hedge.Standby {
		return 0
	}
	if t.again.Len()+t.countHeld() == 0 {
		return 0
	}
	if wait := failingLookupEvery - now.Sub(t.failingAt); wait > 0 {
		return wait
	}
	t.failingAt = now
	n := failingLookup
	queues := []*entryQueue{&t.again}
	for _, c := range t.probed {
		queues = append(queues, &c.held)
	}
	for _, h := range queues {
		h.rebuild(func(e *Entry) bool {
			if n == 0 || e.Delivery.DeadLetter || now.Sub(e.lookedUp) < failingRelook {
				return true
			}
			n--
			e.lookedUp = now
			e.lookups = max(1, e.lookups) // it is not its first lookup
			t.ask(e)
			return false
		})
	}
	return failingLookupEvery
}

// probeEnded records that a request with e has ended.
func (e *Entry) probeEnded() {
	if e.probing != nil {
		e.probing.probes--
		e.probing = nil
	}
}

// countHeld returns how many entries are held.
func (t *Table) countHeld() (n int) {
	for _, c := range t.probed {
		n += c.held.Len()
	}
	return n
}
