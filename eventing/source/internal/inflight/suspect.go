package inflight

import (
	"slices"
	"time"
)

// The events of a request whose connection broke after it was sent are suspects: one of them
// may have ended the function's process. Each is looked up, if there is a ledger, and
// uncommitted ones are tried alone, one suspect at a time and, if the functions of other
// clusters could end on it too, only with a lease of it that keeps those clusters from trying
// it at the same time. While a trial has no answer for long, suspects that broke no connection
// are tried beside it. A trial that breaks its connection is a strike if
//
//   - no later trial was begun meanwhile;
//   - an event was committed between the previous break and the trial, and another one
//     after it, so that the process worked before and has recovered;
//   - every other event whose connection broke with it was committed since;
//   - and no instance of the function was shutting down.
//
// After three strikes (delivery.MaxStrikes) the event is a dead letter.

const (
	// A trial without an answer for asideAfter continues beside others, because an event that
	// hangs takes its whole deadline. There may be up to maxAsides of these, and up to one of
	// asideShare requests. If its connection breaks, that is not a strike.
	asideAfter = 2 * time.Second
	maxAsides  = 16
	asideShare = 4

	// drainTime bounds the shutdown of an instance: func's server waits 30 s for requests,
	// and aborts them then.
	drainTime = 40 * time.Second

	// pendingTime is how long a strike waits before it counts, and pendingRecheck the
	// time between two checks.
	pendingTime    = 2 * time.Minute
	pendingRecheck = time.Second

	// leaseRecheck is the time after which a suspect that another cluster tries is looked up.
	leaseRecheck = 500 * time.Millisecond

	// After a break, a suspect waits until another event is committed, plus settleTime,
	// in which other clusters recover too: for at most othersFirst, or, if it has broken
	// connections itself, healthyFirst.
	settleTime   = 300 * time.Millisecond
	othersFirst  = 2 * time.Second
	healthyFirst = 30 * time.Second

	// For carefulFor after a break, a request has events of one type only, and until an event
	// is committed, another one is sent only if it has no answer after carefulWait.
	carefulFor  = 30 * time.Second
	carefulWait = 500 * time.Millisecond

	// For recoverFor after an event was committed again, other events are sent before one
	// that may end the process once more.
	recoverFor = 1500 * time.Millisecond

	// Outages of trials take at most a share of the time, beyond freeOutages. Otherwise
	// many events that end the process would keep it unavailable. The first trial of an
	// event does not wait for that if no trial of its type broke: most events are harmless,
	// and a strike of another one may wait for it. A trial does not wait either if no other
	// event was committed for unusedAfter: an outage then delays nothing.
	outageShare = 10
	freeOutages = 10 * time.Second
	unusedAfter = 5 * time.Second
)

// trialWaits are the times from a break to the next trial.
var trialWaits = [...]time.Duration{time.Second, 5 * time.Second, 25 * time.Second}

// suspects is the state of a [Table] for suspects.
type suspects struct {
	queue       entryQueue    // ready to be tried, ordered by the connections that they and their types broke
	trial       *Entry        // in a request; nil if none is
	trialAt     time.Time     // when it was sent
	asides      int           // trials in requests that continue beside it
	undecided   int           // suspects that broke the connection of a trial
	leaseWanted chan struct{} // holds a token when a suspect needs a lease
	released    []EventID     // whose leases are no longer needed

	brokeAt      time.Time // when a connection last broke; zero if none did
	downSince    time.Time // when a trial broke its connection; zero once the function has answered
	healthy      bool      // the function has committed an event since
	healthySince time.Time
	drainedAt    time.Time // when an instance was last seen shutting down

	accused *strike   // of the latest trial
	pending []*strike // that do not count yet

	struck []Struck // not returned yet

	usedAt      time.Time     // when an event that is not a suspect was last committed
	outages     time.Duration // recent outages caused by trials
	outagesTill time.Time
}

// strike is a trial that may count against its event.
type strike struct {
	entry *Entry
	until time.Time // it counts before then, or not at all

	// others is the number of events whose connections broke during the trial and that
	// are not known to be harmless.
	others int
}

// Struck is a strike that counts, with the attempts of its event.
type Struck struct {
	Entry             *Entry
	Strikes, Attempts int
	AttemptedFor      time.Duration
}

// mayTry reports whether e is tried as a suspect, not delivered like other events.
func (e *Entry) mayTry() bool {
	return e.suspect && !e.Delivery.DeadLetter && !e.Delivery.Struck()
}

// Suspect reports whether e is being tried as a suspect. Only the request with the entry may
// call it.
func (e *Entry) Suspect() bool { return e.suspect }

// takeSuspect returns the suspect that is tried next; nil if there is none now. Then it
// returns the time until one may be tried, if that is before idle.
func (t *Table) takeSuspect(now time.Time, idle time.Duration) (*Entry, time.Duration) {
	if t.queue.Len() == 0 {
		return nil, idle
	}
	first := t.queue.first()
	if t.trial != nil || t.asides > 0 {
		if left := t.besides(first, now); left > 0 {
			return nil, min(left, idle)
		}
	}
	wait := healthyFirst // otherwise its break would not be a strike
	if first.breaks == 0 {
		wait = othersFirst
	}
	since := first.due
	if since.Before(t.brokeAt) {
		since = t.brokeAt
	}
	left := since.Add(wait).Sub(now)
	if t.healthy {
		left = min(left, t.healthySince.Add(settleTime).Sub(now))
	}
	if left > 0 && !t.brokeAt.IsZero() {
		return nil, min(left, idle)
	}
	if left := t.recovers(now); left > 0 && first.breaks+first.typeHarm() > 0 {
		return nil, min(left, idle)
	}
	left = min((t.outagesAt(now)-freeOutages)*outageShare, t.usedAt.Add(unusedAfter).Sub(now))
	if left > 0 && first.breaks+first.typeHarm() > 0 {
		return nil, min(left, idle)
	}
	if t.cfg.Lease && !now.Before(first.leaseUntil) {
		first.chosen = true // so that it stays the first
		notify(t.leaseWanted)
		return nil, idle
	}
	e := t.queue.take()
	if t.trial != nil {
		t.trial.aside = true
		t.asides++
	}
	t.trial, t.trialAt, t.accused = e, now, nil
	if t.healthy && now.Sub(t.drainedAt) > drainTime {
		t.accused = &strike{entry: e}
	}
	return e, 0
}

// besides returns the time after which a suspect may be tried beside others without an answer
// yet. A suspect that broke a connection before waits for their answers: all events whose
// connections break with it have to be tried again.
func (t *Table) besides(e *Entry, now time.Time) time.Duration {
	switch {
	case e.breaks > 0, t.asides >= min(maxAsides, t.cfg.InFlight/asideShare):
		return asideAfter // an answer wakes the caller earlier
	case t.trial == nil:
		return 0
	default:
		return t.trialAt.Add(asideAfter).Sub(now)
	}
}

// trialEnded records the end of a request with a trial.
func (t *Table) trialEnded(e *Entry) {
	if e == t.trial {
		t.trial = nil
	}
	if e.aside {
		e.aside = false
		t.asides--
	}
}

// outagesAt returns how long trials have recently kept the function unavailable.
func (t *Table) outagesAt(now time.Time) time.Duration {
	t.outages = max(0, t.outages-now.Sub(t.outagesTill)/outageShare)
	t.outagesTill = now
	return t.outages
}

// noteHealth records what a request shows about the function.
func (t *Table) noteHealth(r Request, now time.Time) {
	if len(r.Entries) == 1 && r.Next[0] == Unsent {
		return
	}
	ofTrial := len(r.Entries) == 1 && (r.Entries[0] == t.trial || r.Entries[0].aside)
	if ofTrial && r.Next[0] != Broken {
		t.trialAnswered(r.Entries[0], r.Answered)
	}
	if r.Draining {
		t.drainedAt = now
	}
	if r.Committed && len(r.Entries) > 0 && !r.Entries[0].suspect {
		t.usedAt = now
	}
	sentSince := now.Add(-r.Took).After(t.brokeAt)
	switch {
	case slices.Contains(r.Next, Broken):
		t.healthy, t.brokeAt = false, now
		if t.queue.Len() > 0 {
			t.releaseLease(t.queue.first()) // it may take a while
		}
		if ofTrial && t.downSince.IsZero() {
			t.downSince = now
		}
	case r.Answered && sentSince:
		if !t.downSince.IsZero() {
			t.outages = min(t.outagesAt(now)+now.Sub(t.downSince), 2*freeOutages)
			t.downSince = time.Time{}
		}
		if r.Committed {
			if !t.healthy {
				t.healthy, t.healthySince = true, now
			}
			t.countStrikes(now)
		}
	}
}

// careful reports whether a connection broke recently: then a request has events of one
// type only, so that a type that ends the process is found, and no other one breaks with
// it.
func (t *Table) careful(now time.Time) bool {
	return !t.brokeAt.IsZero() && now.Sub(t.brokeAt) < carefulFor
}

// afterBreak returns the time until another request may be sent after a connection broke:
// one at a time, until an event is committed.
func (t *Table) afterBreak(now time.Time) time.Duration {
	if t.healthy || t.sending == 0 {
		return 0
	}
	return t.sentAt.Add(carefulWait).Sub(now)
}

// recovers returns the time until the function has recovered from the latest break, as far as
// known; 0 if it has, or if no event shows that it has.
func (t *Table) recovers(now time.Time) time.Duration {
	if t.brokeAt.IsZero() || !t.healthy {
		return 0
	}
	return max(0, t.healthySince.Add(recoverFor).Sub(now))
}

// typesBroke records that a request broke its connection: a type that does so as the only
// one in a request, repeatedly, without an event that is committed, ends the process.
func (t *Table) typesBroke(r Request, now time.Time) {
	var types []*circuit
	for i, e := range r.Entries {
		if c := e.typeCircuit; r.Next[i] == Broken && c != nil && !e.suspect && !slices.Contains(types, c) {
			types = append(types, c)
		}
	}
	for _, c := range types {
		c.breaks++
		alone := len(types) == 1 && r.Entries[0] == t.sole
		switch {
		case c.harm:
			t.holdAll(c)
		case c.breaks < harmBreaks:
		case alone:
			t.openHarm(c, now)
		case !c.open:
			t.openCircuit(c, now)
		}
	}
}

// openHarm probes a type that ends the process.
func (t *Table) openHarm(c *circuit, now time.Time) {
	if c.harm = true; !c.open {
		t.openCircuit(c, now)
	} else {
		t.holdAll(c)
	}
	c.window = 0
	c.probeAt = now.Add(c.harmWait.Delay(harmBase, harmLimit, 0))
}

// broke turns an entry whose connection broke into a suspect, and sets when it is
// tried.
func (t *Table) broke(e *Entry, now time.Time) {
	if e == t.trial {
		if e.breaks++; e.breaks == 1 {
			t.undecided++
		}
		t.noteHarm(e, e.typeHarm()+1)
		t.clearStrikes(e)
		if s := t.accused; s != nil && now.Sub(t.drainedAt) > drainTime {
			s.until = now.Add(pendingTime)
			t.pending = append(t.pending, s)
			e.strike = s
		}
	} else if t.accused != nil {
		t.accused.others++
		e.accuses = append(e.accuses, t.accused)
	}
	e.suspect, e.mine, e.failing = true, true, false
	e.to(stateWaiting)
	e.retry, e.due = !t.cfg.Ledger, now.Add(trialWaits[min(e.breaks, len(trialWaits)-1)])
	t.waiting.add(e)
}

// typeHarm returns how many trials of e's type broke their connections.
func (e *Entry) typeHarm() int {
	if e.typeCircuit == nil {
		return 0
	}
	return e.typeCircuit.brokenTrials
}

// noteHarm sets how many trials of e's type broke their connections. Suspects of harmless
// types are tried first.
func (t *Table) noteHarm(e *Entry, trials int) {
	if c := e.typeCircuit; c != nil && c.brokenTrials != trials {
		c.brokenTrials = trials
		switch {
		case c.harm && trials > 0:
			t.holdAll(c)
		case trials >= harmTrials:
			t.openHarm(c, t.cfg.Now())
		}
		t.queue.rebuild(func(*Entry) bool { return true })
	}
}

// clearStrikes drops the strikes that wait for e to be harmless: it is not.
func (t *Table) clearStrikes(e *Entry) {
	for _, s := range e.accuses {
		if s.entry.strike == s {
			s.entry.strike = nil
		}
	}
	e.accuses = nil
}

// decided ends the trials of e. Harmless reports whether it was committed.
func (t *Table) decided(e *Entry, harmless bool) {
	if e.breaks > 0 {
		t.undecided--
	}
	t.releaseLease(e)
	if !harmless {
		t.clearStrikes(e)
		t.harmEnded(e)
	}
	e.suspect, e.breaks, e.strike = false, 0, nil
	for _, s := range e.accuses {
		s.others--
	}
	e.accuses = nil
}

// harmEnded records that e has ended without being harmless. After the last event of its type
// that broke the connection of a trial, the type no longer counts as harmful.
func (t *Table) harmEnded(e *Entry) {
	c := e.typeCircuit
	if c == nil || !e.suspect {
		return
	}
	if c.brokenTrials = max(0, c.brokenTrials-e.breaks); c.brokenTrials > 0 {
		return
	}
	if c.breaks = 0; c.harm {
		t.closeCircuit(c)
	}
}

// releaseLease lets another cluster try e.
func (t *Table) releaseLease(e *Entry) {
	if !e.leaseUntil.IsZero() {
		t.released = append(t.released, e.ID)
		notify(t.leaseWanted)
	}
	e.leaseUntil = time.Time{}
}

// countStrikes counts the strikes that are certain after an event was committed.
func (t *Table) countStrikes(now time.Time) {
	t.pending = slices.DeleteFunc(t.pending, func(s *strike) bool {
		e := s.entry
		switch {
		case e.strike != s || !now.Before(s.until):
			return true
		case s.others > 0:
			return false
		}
		e.strike = nil
		e.Delivery.Strikes++
		t.struck = append(t.struck, Struck{Entry: e, Strikes: e.Delivery.Strikes, Attempts: e.Delivery.Attempts, AttemptedFor: e.Delivery.AttemptedFor})
		if e.Delivery.Struck() && e.state == stateWaiting {
			e.due = now
			t.waiting.rebuild(func(*Entry) bool { return true })
		}
		return true
	})
}

// queueSuspect queues e for a trial, unless it is not known yet whether its latest
// trial was a strike.
func (t *Table) queueSuspect(e *Entry) {
	now := t.cfg.Now()
	if s := e.strike; s == nil || !now.Before(s.until) {
		e.strike = nil
		e.to(stateReady)
		e.chosen = false
		t.queue.add(e)
		return
	}
	e.to(stateWaiting)
	e.retry, e.due = !t.cfg.Ledger, now.Add(pendingRecheck)
	t.waiting.add(e)
}

// trialAnswered records that a trial has ended without breaking its connection.
func (t *Table) trialAnswered(e *Entry, answered bool) {
	if e == t.trial {
		t.accused = nil
	}
	if answered && !e.stale() {
		t.noteHarm(e, 0)
		t.decided(e, true) // whatever the answer: the process continues
	}
}

// NeedsWitness reports whether an event must be committed to decide suspects, or strikes that
// do not count yet, or to learn when the function was available again after a trial, and no
// other event is in flight, except those in requests that may hang.
func (t *Table) NeedsWitness() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	waits := t.queue.Len() > 0 && !t.brokeAt.IsZero() && !t.healthy || len(t.pending) > 0 || !t.downSince.IsZero()
	hang := t.cfg.Now().Sub(t.sentAt) >= carefulWait
	return waits && t.together.Len() == 0 && t.firstSingle() == nil && (t.sending == 0 || hang)
}

// Witness reports the result of an event that was committed before and was sent again, to
// find out whether the function works: a [Request] without entries. It returns the strikes
// that count now.
func (t *Table) Witness(r Request) []Struck {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteHealth(r, t.cfg.Now())
	t.signal()
	struck := t.struck
	t.struck = nil
	return struck
}

// LeaseWanted returns a channel that has a token when [Table.NextLease] or [Table.Released]
// may return entries.
func (t *Table) LeaseWanted() <-chan struct{} { return t.leaseWanted }

// NextLease returns the suspect that is tried next and needs a lease; nil if there is none.
func (t *Table) NextLease() *Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queue.Len() == 0 || !t.queue.first().chosen || t.cfg.Now().Before(t.queue.first().leaseUntil) {
		return nil
	}
	return t.queue.first()
}

// SetLease sets until when this cluster has the lease of a suspect. If it does not have it,
// the suspect is looked up again after a time, because another cluster tries it.
func (t *Table) SetLease(e *Entry, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	switch {
	case now.Before(until) && (e.stale() || !e.suspect):
		t.released = append(t.released, e.ID)
		notify(t.leaseWanted)
	case now.Before(until):
		e.leaseUntil = until
		t.released = slices.DeleteFunc(t.released, func(id EventID) bool { return id == e.ID })
		t.signal()
	case !e.stale():
		e.leaseUntil = time.Time{}
		if e.chosen && e.state == stateReady {
			t.queue.rebuild(func(other *Entry) bool { return other != e })
			e.to(stateWaiting)
			e.retry, e.due = false, now.Add(leaseRecheck)
			t.waiting.add(e)
			t.signal()
		}
	}
}

// Leases returns the suspects whose leases this cluster has and must renew.
func (t *Table) Leases() (renew []*Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.partitions {
		for e := range p.entries.all() {
			if !e.leaseUntil.IsZero() {
				renew = append(renew, e)
			}
		}
	}
	return renew
}

// Released returns the events whose leases are no longer needed.
func (t *Table) Released() (ids []EventID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids, t.released = t.released, nil
	return ids
}

// Suspects returns how many suspects are in flight.
func (t *Table) Suspects() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.partitions {
		for e := range p.entries.all() {
			if e.suspect {
				n++
			}
		}
	}
	return n
}
