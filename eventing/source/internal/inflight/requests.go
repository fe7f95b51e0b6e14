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

	// After silentRequests requests in a row that the function did not answer, one at a
	// time is sent, at intervals from probeBase to probeLimit.
	silentRequests = 16
	probeBase      = 50 * time.Millisecond
	probeLimit     = time.Second
)

// requests is what a [Table] knows about the requests to the function.
type requests struct {
	together entryHeap // ready, in the order of service
	alone    entryHeap // ready, but each in a request of its own
	sending  int       // entries in requests
	open     int       // requests of entries that may go together
	opened   time.Time // when the latest of them was opened
	takes    time.Duration

	silent int // requests in a row without an answer
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
	if t.silent >= silentRequests {
		if t.sending > 0 {
			return nil, wait
		}
		if left := t.probe.Sub(now); left > 0 {
			return nil, min(wait, left)
		}
	}
	if room <= 0 {
		return nil, wait
	}
	if t.alone.Len() > 0 && (t.together.Len() == 0 || t.alone.first().before(t.together.first())) {
		return t.send(t.alone.take()), 0
	}
	if t.together.Len() == 0 {
		return nil, wait
	}
	events, bytes := t.cfg.MaxBatch()
	if events > 1 && t.open >= fewRequests {
		if left := t.opened.Add(min(max(t.takes/paceShare, minPace), maxPace)).Sub(now); left > 0 {
			if t.alone.Len() > 0 {
				return t.send(t.alone.take()), 0
			}
			return nil, min(wait, left)
		}
	}
	first := t.together.take()
	events = min(events, room, 1+t.together.Len())
	batch = append(make([]*Entry, 0, events), first)
	for size := first.payload; len(batch) < events; {
		if size += t.together.first().payload; size > bytes {
			break
		}
		batch = append(batch, t.together.take())
	}
	t.open++
	t.opened = now
	return t.send(batch...), 0
}

// send marks entries as being sent.
func (t *Table) send(entries ...*Entry) []*Entry {
	t.sending += len(entries)
	for _, e := range entries {
		e.state = Sending
	}
	return entries
}

// Next is what happens to an entry after a request.
type Next uint8

const (
	// Finish: it is committed, or dead; acknowledge it.
	Finish Next = iota
	// Retry: it is sent again after a time.
	Retry
	// Again: it is sent again at once.
	Again
	// Drop: it is forgotten; the stream redelivers it.
	Drop
)

// Request is a request that has ended.
type Request struct {
	Entries  []*Entry
	Next     []Next          // for each entry
	After    []time.Duration // for each entry that is retried
	Took     time.Duration
	Answered bool // the function said something about an entry
	Alone    bool // its entry was sent alone, as it must be
}

// Complete reports what came of a request. The entries to finish are to be acknowledged
// afterwards.
func (t *Table) Complete(r Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	t.sending -= len(r.Entries)
	if !r.Alone {
		t.open--
		t.takes += (r.Took - t.takes) / 8
	}
	if r.Answered {
		t.silent, t.wait = 0, backoff.Backoff{}
	} else if t.silent++; t.silent >= silentRequests {
		t.probe = now.Add(t.wait.Delay(probeBase, probeLimit, 0))
	}
	for i, e := range r.Entries {
		p := e.partition
		if e.stale() {
			e.state = Finished
			t.leave(e)
			continue
		}
		switch r.Next[i] {
		case Finish:
			p.finish(e)
			t.leave(e)
		case Retry:
			e.state, e.retry, e.due = Waiting, true, now.Add(r.After[i])
			t.waiting.add(e)
		case Again:
			t.ready(e)
		case Drop:
			t.drop(e)
		}
	}
	t.signal()
}

// drop forgets an entry.
func (t *Table) drop(e *Entry) {
	p := e.partition
	e.state = Finished
	if p.entries[e.Sequence()] == e {
		delete(p.entries, e.Sequence())
		p.bytes -= e.size
	}
	t.leave(e)
	p.free()
}
