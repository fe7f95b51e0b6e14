package inflight

import (
	"time"

	"github.com/tandem-fn/tandem/eventing/internal/backoff"
)

const (
	// fewRequests is how many batches are opened without a look at how long they take:
	// with fewer, no event is computed while the database commits.
	fewRequests = 4

	// While so many are open, another one is opened only after a share of the time that
	// they take, within minPace and maxPace: meanwhile a batch gathers. A function that
	// waits gets more requests so, and one that is quick gets larger batches.
	paceShare = 4
	minPace   = time.Millisecond
	maxPace   = 5 * time.Millisecond

	// After silentRequests requests in a row that the function did not answer, it is away,
	// and an event that was not tried yet is sent at intervals from probeBase to probeLimit.
	silentRequests = 16
	probeBase      = 50 * time.Millisecond
	probeLimit     = time.Second

	// retryShare is the share of the capacity that retries take, while other events are
	// ready.
	retryShare = 10

	// rateBurst is for how long a rate that was not used may be caught up with.
	rateBurst = 50 * time.Millisecond
)

// requests is what a [Table] knows about the requests to the function.
type requests struct {
	together entryHeap // ready, in the order of service
	alone    entryHeap // ready, but each in a request of its own
	again    entryHeap // ready, and delivered before without success, likewise
	retrying int       // entries of again in requests
	sending  int       // entries in requests
	open     int       // requests of entries that may go together
	opened   time.Time // when the latest of them was opened
	takes    time.Duration
	heard    time.Time // when the latest of them ended, or the first was opened

	allowed float64   // events that the rate lets through now
	counted time.Time // when allowed was that

	silent int // requests in a row without an answer
	tried  int // entries that were delivered without success
	probe  time.Time
	wait   backoff.Backoff
}

// NextRequest returns the entries of the next request, in the order of service; none if
// there is nothing to send now. Then wait is the time after which to call it again, if
// [Table.Wake] does not say so before.
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
	if t.away() {
		e, left := t.takeProbe(now)
		if e == nil {
			return nil, min(wait, left)
		}
		return t.send(e), 0
	}
	if e := t.takeSingle(); e != nil {
		return t.send(e), 0
	}
	if t.together.Len() == 0 {
		return nil, wait
	}
	if left := t.pace(events, now); left > 0 {
		if t.alone.Len() > 0 {
			return t.send(t.alone.take()), 0
		}
		return nil, min(wait, left)
	}
	first := t.together.take()
	events = min(max(events, 1), room, 1+t.together.Len())
	batch = append(make([]*Entry, 0, events), first)
	for size := first.payload; len(batch) < events; {
		if size += t.together.first().payload; size > bytes {
			break
		}
		batch = append(batch, t.together.take())
	}
	t.opened = now
	return t.send(batch...), 0
}

// readyQueues are the queues of the entries that are ready.
func (t *Table) readyQueues() [3]*entryHeap {
	return [...]*entryHeap{&t.together, &t.alone, &t.again}
}

// away reports whether the function does not answer. As many as may be delivered at once
// are retried then, and others only now and then.
func (t *Table) away() bool { return t.silent >= silentRequests && t.tried >= t.cfg.InFlight }

// takeProbe returns the entry that is sent next while the function is away: when it is
// time for one, the first that was not tried yet, else one that was. If there is none, it
// returns the time until then.
func (t *Table) takeProbe(now time.Time) (*Entry, time.Duration) {
	left := t.probe.Sub(now)
	if left <= 0 {
		if e := t.takeUntried(); e != nil {
			t.probe = now.Add(t.wait.Delay(probeBase, probeLimit, 0))
			return e, 0
		}
		left = probeLimit // nothing is ready
	}
	var oldest *entryHeap
	for _, h := range t.readyQueues() {
		if h.Len() > 0 && h.first().tried && (oldest == nil || h.first().before(oldest.first())) {
			oldest = h
		}
	}
	if oldest == nil {
		return nil, left
	}
	return oldest.take(), 0
}

// takeUntried returns the first entry that was not tried yet, wherever it is; nil if
// there is none.
func (t *Table) takeUntried() *Entry {
	var from *entryHeap
	var at int
	for _, h := range []*entryHeap{&t.together, &t.alone} {
		for i, e := range h.entries {
			if !e.tried && (from == nil || e.before(from.entries[at])) {
				from, at = h, i
			}
		}
	}
	if from == nil {
		return nil
	}
	return from.remove(at)
}

// takeSingle returns the entry that is sent next, alone; nil if others come before it.
// Retries take at most a share of the capacity if there is anything else to send.
func (t *Table) takeSingle() *Entry {
	single := &t.alone
	if t.again.Len() > 0 && (t.together.Len()+t.alone.Len() == 0 || t.retrying < max(1, t.cfg.InFlight/retryShare)) {
		if t.alone.Len() == 0 || t.again.first().before(t.alone.first()) {
			single = &t.again
		}
	}
	if single.Len() == 0 || t.together.Len() > 0 && t.together.first().before(single.first()) {
		return nil
	}
	return single.take()
}

// pace returns the time until another batch may be opened; 0 if that is now.
func (t *Table) pace(events int, now time.Time) time.Duration {
	if events <= 1 || t.open < fewRequests {
		return 0
	}
	pace := min(max(t.takes/paceShare, minPace), maxPace)
	// A function that starts, or stalls, answers nothing for a while. That is no load
	// that more instances would take.
	pace = max(pace, now.Sub(t.heard)/paceShare)
	return t.opened.Add(pace).Sub(now)
}

// allow returns how many events the rate lets through now, and the time until the next
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
		e.to(Sending)
		if e.failing {
			t.retrying++
		}
	}
	return entries
}

// Next is what happens to an entry after a request.
type Next uint8

const (
	// Finish means that it is committed, or dead, and is to be acknowledged.
	Finish Next = iota
	// Retry means that it is sent again after a time.
	Retry
	// Again means that it is sent again at once.
	Again
	// Drop means that it is forgotten, and the stream redelivers it. If this process goes
	// on, what comes after it in its subject is delivered before it.
	Drop
)

// Request is a request that has ended.
type Request struct {
	Entries  []*Entry
	Next     []Next          // for each entry
	After    []time.Duration // for each entry that is retried
	Took     time.Duration
	Answered bool // the function said something about an entry
	Together bool // its entries need not have been sent alone
}

// Complete reports what came of a request. The entries to finish are to be acknowledged
// afterwards.
func (t *Table) Complete(r Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	t.sending -= len(r.Entries)
	if r.Together {
		t.open--
		t.takes += (r.Took - t.takes) / 8
		t.heard = now
	}
	if r.Answered {
		t.silent, t.wait = 0, backoff.Backoff{}
	} else {
		t.silent++
	}
	for i, e := range r.Entries {
		p := e.partition
		if e.failing {
			t.retrying--
		}
		if e.stale() {
			e.to(Finished)
			t.leave(e)
			continue
		}
		switch r.Next[i] {
		case Finish:
			p.finish(e)
			t.leave(e)
		case Retry:
			e.to(Waiting)
			e.retry, e.due = true, now.Add(r.After[i])
			e.failing = t.silent < silentRequests // else it is not this one
			if !e.tried {
				e.tried = true
				t.tried++
			}
			t.waiting.add(e)
		case Again:
			e.failing = false
			if t.hedge.Standby && !e.Delivery.DeadLetter {
				t.waitHedged(e)
			} else {
				t.ready(e)
			}
		case Drop:
			p.forget(e)
			t.leave(e)
			p.free()
		}
	}
	t.signal()
}
