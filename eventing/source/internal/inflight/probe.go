package inflight

import (
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
)

const (
	// unavailableInRow is how many events of a type must be answered with "unavailable",
	// each at its first attempt and with no other answer to one of the type in between,
	// until the type is probed.
	unavailableInRow = 16

	// A type is probed after an interval that grows from probeBase to probeLimit, or, while
	// a probe has no answer, after probeHang.
	probeBase  = 50 * time.Millisecond
	probeLimit = time.Second
	probeHang  = 5 * time.Second

	// After a probe passed, more events of its type are sent at once, twice as many after
	// each answer. With fullWindow, the type is not probed any more.
	fullWindow = 64

	// Events that hang do harm: a type whose first attempts do so as many times in a row is
	// probed, too. Its events that were tried are not held: each is an attempt of its own. An
	// answer after hungAfter is none. So do events that end the process: a type of which
	// harmTrials trials in a row broke their connections, or that broke harmBreaks requests,
	// the latest as the only one, without an answer in between. All of it is held. A probe is
	// sent after an interval from harmBase to harmLimit.
	harmTrials = 2
	harmBreaks = 2
	harmBase   = 5 * time.Second
	harmLimit  = time.Minute
	hungAfter  = 2 * time.Second

	// So does a type of which unavailableInRow events are in requests, none of them answered
	// for hungAfter; or, if there are other types, one that takes half of the places in
	// requests without an answer for crowdedAfter, and crowdedShare times what requests take.
	// Single events would otherwise take all places until their deadline.
	crowdedAfter = 200 * time.Millisecond
	crowdedShare = 4

	// longUnavailable is the wait from which on an event waits for its time, and not for a
	// probe: the function asked for that.
	longUnavailable = 10 * time.Second

	// What waits for a probe or for the budget may be committed by another cluster. Every
	// failingLookupEvery some of it is looked up, each entry every failingRelook.
	failingLookupEvery = time.Second
	failingLookup      = 4096
	failingRelook      = 10 * time.Second

	// silentRequests is how many requests in a row without an answer, of whatever type,
	// mean that the function is away: then one type is probed at a time.
	silentRequests = 16
)

// circuit is what is known of the events of one type, or of all dead letters. While it is
// open, as the function is unavailable for them, they are held, and one at a time is
// sent: the probe. When that is answered, more are sent, until all are released.
type circuit struct {
	eventType   string
	entries     int // in flight, of this type
	unavailable int // first attempts in a row

	sending    int       // entries in requests
	quietSince time.Time // when one of them was answered last, or the first of them was sent

	open    bool
	lacking bool // something in the deployment is missing for the latest one that was unavailable
	harm    bool // events of it hang, or break their connections
	held    entryQueue
	probes  int       // entries in requests that were held before
	window  int       // how many of these there may be; 0 for one at a time, after an interval
	probeAt time.Time // when the next one may be sent
	wait    backoff.Backoff

	harmWait backoff.Backoff

	breaks       int // of requests with events of this type, since one was answered
	brokenTrials int // of events of this type, since one was harmless
}

// circuits is what a [Table] knows of event types.
type circuits struct {
	types       map[string]*circuit // of the events in flight
	deadLetters circuit
	probed      []*circuit // that are open
	silent      int        // requests in a row without an answer
	failingAt   time.Time  // when some of what waits for it was looked up last
	sinkProbeAt time.Time  // when the next type may be probed while the function is away
	sinkWait    backoff.Backoff
}

func newCircuit(eventType string) *circuit {
	c := &circuit{eventType: eventType}
	c.held.less = func(a, b *Entry) bool {
		if a.attempts != b.attempts {
			return a.attempts < b.attempts // else an event that is at fault itself would be the probe for ever
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
			t.signal() // the other one may take the places of this one: holdQuiet
		}
	}
	c.entries++
	e.typeCircuit, e.Type = c, c.eventType
}

// leaveCircuit ends e's part in the circuit of its type, which is forgotten with the last
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

// direct returns the circuit of what e is sent as next.
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

// hold holds e, which is ready, if its circuit is open. It reports whether it does.
func (t *Table) hold(e *Entry) bool {
	c := t.direct(e)
	if c == nil || !c.holds(e) {
		return false
	}
	e.failing = false // it is the type
	e.to(stateHeld)
	c.held.add(e)
	return true
}

// holds reports whether e waits for a probe.
func (c *circuit) holds(e *Entry) bool {
	kills := c.breaks+c.brokenTrials > 0
	return c.open && (!c.harm || kills || !e.slow && e.attempts == 0)
}

// circuitAnswered notes what came of an entry that was sent.
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
	case c.harm && e.probing == nil && next != Finish: // it was tried before: it failed again
	default:
		t.probePassed(c)
	}
}

// circuitSent notes that an entry is sent.
func (t *Table) circuitSent(e *Entry, now time.Time) {
	c := t.direct(e)
	if c == nil {
		return
	}
	if c.sending++; c.sending == 1 {
		c.quietSince = now
	}
}

// circuitReturned notes that a request with an entry has ended.
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

// holdQuiet opens the circuits of types whose events get no answers. It returns the time
// after which to call it again; 0 for no such time.
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

// probePassed sends more entries of c at a time, and at last all of them.
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

// sinkAnswered notes whether the function answered a request, of whatever type.
func (t *Table) sinkAnswered(answered bool) {
	if !answered {
		t.silent++
		return
	}
	if t.silent >= silentRequests {
		for _, c := range t.probed { // each finds out at once
			c.probeAt, c.wait = time.Time{}, backoff.Backoff{}
		}
	}
	t.silent, t.sinkProbeAt, t.sinkWait = 0, time.Time{}, backoff.Backoff{}
}

// takeProbe returns an entry that was held and is sent now; nil if there is none. Then it
// returns the time until one may be sent, if that is before idle.
func (t *Table) takeProbe(now time.Time, idle time.Duration) (*Entry, time.Duration) {
	away := t.silent >= silentRequests
	var next *circuit
	for _, c := range t.probed {
		switch {
		case c.held.Len() == 0:
		case t.recovers(now) > c.mayWait():
			idle = min(idle, t.recovers(now)-c.mayWait())
		case c.window > 0:
			hangs := c.probeAt.Add(hungAfter - probeHang) // then the probes that were sent show nothing
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

// lookUpFailing has some of the entries looked up that wait for a probe or for the budget,
// if there is a ledger: what another cluster has committed waits no longer. It returns the
// time after which to call it again; 0 for no such time.
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
			e.lookups = max(1, e.lookups) // it is not looked up first
			t.ask(e)
			return false
		})
	}
	return failingLookupEvery
}

// probeEnded notes that a request with e has ended.
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
