package inflight

import "time"

const (
	// fewRequests is the number of batches that are opened regardless of their
	// duration: with fewer, no event is computed while the database commits.
	fewRequests = 4

	// While this many are open, another one is opened only after a share of their
	// duration, within minPace and maxPace, in which a batch gathers. So a function
	// that waits receives more requests, and a fast one larger batches.
	paceShare = 4
	minPace   = time.Millisecond
	maxPace   = 5 * time.Millisecond

	// rateBurst is how much unused rate, as a time, may be used later.
	rateBurst = 50 * time.Millisecond
)

// requests is the state of a [Table] for requests to the function.
type requests struct {
	together entryQueue // ready, in the order of service
	alone    entryQueue // ready, but each in a request of its own
	slow     entryQueue // due, each alone: their batches were answered before them
	again    entryQueue // due, each alone: of failing events
	sending  int        // entries in requests
	open     int        // requests of entries that may go together
	opened   time.Time  // when the latest of them was opened
	sole     *Entry     // the first entry of the only request, if there was no other one meanwhile
	sentAt   time.Time  // when the latest request was sent
	takes    time.Duration
	heard    time.Time // when the latest of them ended, or the first was opened

	allowed float64   // events that the rate currently allows
	counted time.Time // when allowed was computed
}

// NextRequest returns the entries of the next request, in the order of service; none if
// there is nothing to send now. Then wait is the time after which to call it again,
// unless [Table.Wake] notifies before.
func (t *Table) NextRequest(idle time.Duration) (batch []*Entry, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, idle
	}
	wait = t.moveDue(idle)
	if next := t.takeLeft(); next > 0 {
		wait = min(wait, next)
	}
	now := t.cfg.Now()
	if next := t.holdQuiet(now); next > 0 {
		wait = min(wait, next)
	}
	if next := t.lookUpFailing(now); next > 0 { // including entries that were just held
		wait = min(wait, next)
	}
	room := t.cfg.InFlight - t.sending
	if t.cfg.Rate > 0 {
		allowed, next := t.allow(now)
		if allowed <= 0 {
			wait = min(wait, next)
		}
		room = min(room, allowed)
	}
	events, bytes := t.cfg.MaxBatch()
	if room <= 0 || events == 0 && t.sending >= fewRequests {
		return nil, wait
	}
	e, wait := t.takeSuspect(now, wait)
	careful := t.careful(now)
	if e == nil && careful {
		if left := t.afterBreak(now); left > 0 {
			return nil, min(wait, left)
		}
	}
	if e == nil {
		e, wait = t.takeProbe(now, wait)
	}
	if e == nil {
		e, wait = t.takeRetry(now, wait)
	}
	more := t.hedge.Share && t.checkFirst(now)
	if e == nil {
		e = t.takeSingle()
	}
	if e != nil {
		return t.send(e), 0
	}
	if t.together.Len() == 0 || more {
		return nil, wait
	}
	if left := t.pace(events, now); left > 0 {
		if single := t.firstSingle(); single != nil {
			return t.send(single.take()), 0
		}
		return nil, min(wait, left)
	}
	first := t.together.take()
	events = min(max(events, 1), room, 1+t.together.Len())
	batch = append(make([]*Entry, 0, events), first)
	for size := first.payload; len(batch) < events; {
		next := t.together.first()
		if size += next.payload; size > bytes || careful && next.typeCircuit != first.typeCircuit {
			break
		}
		batch = append(batch, t.together.take())
	}
	t.opened = now
	return t.send(batch...), 0
}

// readyQueues returns the queues of the entries that are ready or due.
func (t *Table) readyQueues() []*entryQueue {
	return []*entryQueue{&t.together, &t.alone, &t.slow, &t.again, &t.queue}
}

// sendable returns the queues of all entries that are to be sent, including held ones.
func (t *Table) sendable() []*entryQueue {
	queues := t.readyQueues()
	for _, c := range t.probed {
		queues = append(queues, &c.held)
	}
	return queues
}

// takeSingle returns the entry that is sent next, alone; nil if others come before it.
func (t *Table) takeSingle() *Entry {
	single := t.firstSingle()
	if single == nil || t.together.Len() > 0 && t.together.first().before(single.first()) {
		return nil
	}
	return single.take()
}

// firstSingle returns the queue with the first of the entries that are sent alone and may
// be sent now; nil if there is none.
func (t *Table) firstSingle() (first *entryQueue) {
	if t.slow.Len() > 0 && t.sendingSlow < max(1, t.cfg.InFlight/slowShare) {
		first = &t.slow
	}
	if t.alone.Len() > 0 && (first == nil || t.alone.first().before(first.first())) {
		first = &t.alone
	}
	return first
}

// pace returns the time until another batch may be opened; 0 means now.
func (t *Table) pace(events int, now time.Time) time.Duration {
	if events <= 1 || t.open < fewRequests {
		return 0
	}
	pace := min(max(t.takes/paceShare, minPace), maxPace)
	// A function that starts, or stalls, answers nothing for a while. More requests
	// would look like load to an autoscaler, and more instances would not help.
	pace = max(pace, now.Sub(t.heard)/paceShare)
	return t.opened.Add(pace).Sub(now)
}

// allow returns how many events the rate currently allows, and the time until the next
// one.
func (t *Table) allow(now time.Time) (events int, next time.Duration) {
	rate := float64(t.cfg.Rate)
	if !t.counted.IsZero() {
		t.allowed += now.Sub(t.counted).Seconds() * rate
	}
	t.counted = now
	t.allowed = min(t.allowed, max(1, rate*rateBurst.Seconds()))
	return int(t.allowed), time.Duration((1-t.allowed)/rate*float64(time.Second)) + 1 // not before it
}

// send marks entries as being sent.
func (t *Table) send(entries ...*Entry) []*Entry {
	if t.sole, t.sentAt = entries[0], t.cfg.Now(); t.sending > 0 {
		t.sole = nil
	}
	t.sending += len(entries)
	if entries[0].GoesTogether() {
		if t.open++; t.open == 1 {
			t.heard = t.cfg.Now()
		}
	}
	if t.cfg.Rate > 0 {
		t.allowed -= float64(len(entries))
	}
	for _, e := range entries {
		t.circuitSent(e, t.sentAt)
		e.to(stateSending)
		if e.failing {
			t.spend(e)
		}
		if e.slow {
			t.sendingSlow++
		}
		if e.helps {
			t.sentForOthers++
		}
	}
	return entries
}

// Next is what happens to an entry after a request.
type Next uint8

const (
	// Finish means that it is committed, or dead, and the caller acknowledges it.
	Finish Next = iota
	// Retry means that it is sent again after a time, within the budget of failing events.
	Retry
	// Unavailable means that it is sent again after a time, or after a probe: it is not at
	// fault.
	Unavailable
	// Broken means that the connection broke after it was sent: it is a suspect.
	Broken
	// Unsent means that it could not be sent, and is attempted again after a time.
	Unsent
	// Again means that it is sent again immediately.
	Again
	// Pending means that the rest of its batch was answered before it. It is sent again
	// immediately, alone, within the share of slow events.
	Pending
	// Drop means that it is forgotten, and the stream redelivers it. If this process
	// continues, later events of its subject are delivered before it.
	Drop
	// Defer means that it is stored until the deployment changes, and acknowledged
	// ([Table.NextToDefer]). Other events of its type are fine.
	Defer
)

// Request is a request that has ended.
type Request struct {
	Entries  []*Entry
	Next     []Next          // for each entry
	After    []time.Duration // for each entry that is retried
	Took     time.Duration
	Answered bool // the function answered for an event
	Together bool // its entries need not have been sent alone

	Committed bool // the function has committed an entry
	Draining  bool // the function was shutting down
}

// Complete reports the result of a request. The caller acknowledges the entries to
// finish afterwards. It returns the strikes that count now.
func (t *Table) Complete(r Request) []Struck {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	t.sending -= len(r.Entries)
	if r.Entries[0].failing {
		t.spent(r.Entries[0], r.Took)
	} else {
		t.save(now, r.Took)
	}
	if r.Together {
		t.open--
		t.takes += (r.Took - t.takes) / 8
		t.quick.add(now, r.Took)
		t.heard = now
	}
	t.sinkAnswered(r.Answered)
	t.noteHealth(r, now)
	t.typesBroke(r, now)
	for i, e := range r.Entries {
		t.completeEntry(e, r.Next[i], r.After[i], r.Took, now)
	}
	if len(r.Entries) > 0 {
		t.trialEnded(r.Entries[0])
	}
	t.signal()
	struck := t.struck
	t.struck = nil
	return struck
}

// completeEntry applies the result of a request to an entry.
func (t *Table) completeEntry(e *Entry, next Next, after, took time.Duration, now time.Time) {
	if e.slow {
		e.slow = false
		t.sendingSlow--
	}
	t.circuitReturned(e, next, took, now)
	if e.stale() {
		e.probeEnded()
		e.to(Finished)
		t.leave(e)
		return
	}
	if next != Unsent && next != Drop {
		t.circuitAnswered(e, next, took, now)
	}
	if next != Unsent && next != Broken && next != Drop {
		e.attempts++
	}
	e.probeEnded()
	switch next {
	case Finish:
		t.noteCommit(e, now)
		e.partition.finish(e)
		t.leave(e)
	case Retry:
		e.failing = true
		t.retryAt(e, now.Add(after))
	case Broken:
		t.broke(e, now)
	case Unavailable:
		if e.suspect {
			t.releaseLease(e)
			t.retryAt(e, now.Add(after))
			return
		}
		if e.circuit.holds(e) && !t.hedge.Standby && after < longUnavailable {
			t.ready(e)
			return
		}
		e.failing = true
		t.retryAt(e, now.Add(after))
	case Unsent:
		t.retryAt(e, now.Add(after))
	case Again, Pending:
		e.failing, e.slow = false, next == Pending
		if t.hedge.Standby && !e.Delivery.DeadLetter {
			t.waitHedged(e)
		} else {
			t.ready(e)
		}
	case Defer:
		t.deferEntry(e)
	case Drop:
		e.partition.forget(e)
		t.leave(e)
		e.partition.free()
	}
}

// retryAt makes e wait until it is sent again.
func (t *Table) retryAt(e *Entry, due time.Time) {
	e.to(stateWaiting)
	e.retry, e.due = true, due
	t.waiting.add(e)
}
