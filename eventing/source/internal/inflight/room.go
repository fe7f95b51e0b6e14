package inflight

import (
	"context"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing"
)

const (
	// roomInterval is how often room is looked for while there is none.
	roomInterval = 20 * time.Millisecond

	// evictInterval is how often payloads are evicted at most: it takes a look at every
	// entry.
	evictInterval = 20 * time.Millisecond

	// prefetch is how many times as many messages as are delivered at once are held of
	// a partition, where more would only wait.
	prefetch = 4

	// roomFor is for how many messages there must be room before some are pulled.
	roomFor = 64

	// farBehind is how far behind the first of its subject, or before its time, an entry
	// is whose payload may be evicted.
	farBehind = 16
	farOff    = time.Second
)

// Room waits until half of the partition's room is free, and returns how many messages
// of how many bytes together fit; 0 if ctx ended first. Until the partition is complete, only
// payloads take room: its entries wait for messages that are missing, of which there are no more
// than the stream has delivered before.
func (p *Partition) Room(ctx context.Context) (n, bytes int) {
	for {
		if n, bytes = p.roomNow(); n > 0 {
			return n, bytes
		}
		again := time.NewTimer(roomInterval)
		select {
		case <-p.freed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return 0, 0
		}
		again.Stop()
	}
}

// roomNow returns the room if half of it is free; with one message at a time each would
// cost a request. If there is none, and little could be delivered of what is here, it
// evicts payloads.
func (p *Partition) roomNow() (n, bytes int) {
	t := p.table
	t.mu.Lock()
	defer t.mu.Unlock()
	limit, most := t.share(), t.mostEntries(p)
	crowded := func() bool { return p.bytes > limit/2 || p.complete && p.fits() < min(most/2, roomFor) }
	if crowded() {
		p.hurry()
		if now := t.cfg.Now(); p.bytes > limit/2 && p.starved() && now.Sub(p.evictedAt) >= evictInterval {
			p.evict(limit / 4)
			p.evictedAt = now
		}
		if crowded() {
			return 0, 0
		}
	}
	bytes = limit - p.bytes
	// One half for the payloads, the other for what each takes beyond.
	if n = max(1, bytes/2/entryOverhead); p.complete {
		n = min(n, p.fits())
	}
	return n, bytes / 2
}

// MaxEntries returns how many messages of a partition are held at most.
func (t *Table) MaxEntries() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.maxEntries()
}

func (t *Table) maxEntries() int { return max(stubShare*t.share()/stubOverhead, prefetch) }

// fits is how many more messages p may hold, if memory for their payloads is free.
func (p *Partition) fits() int {
	t := p.table
	return min(t.mostEntries(p)-p.held(), t.maxEntries()-p.entries.len())
}

// held is how many messages count against mostEntries: not those that wait for a reason.
func (p *Partition) held() int {
	if p.table.eager(p) {
		return p.entries.len()
	}
	return p.entries.len() - p.counts[stateWaiting] - p.counts[stateBlocked] - p.counts[stateHeld] - p.counts[stateDue]
}

// hurry has the messages that wait for the hedge looked up before their time, each once:
// nothing more fits in, and many of them may be committed.
func (p *Partition) hurry() {
	t := p.table
	if t.hedge.Race() {
		return
	}
	asked := false
	t.waiting.rebuild(func(e *Entry) bool {
		if e.partition != p || !e.hedged || e.lookups > 0 {
			return true
		}
		e.early, asked = true, true
		t.ask(e)
		return false
	})
	if asked {
		t.signal()
	}
}

// eager reports whether as many messages of p are held as memory lets: what waits for a
// lookup, for its time or for its turn costs nothing else.
func (t *Table) eager(p *Partition) bool {
	return !t.hedge.Race() || t.lagging || p.lanes != nil
}

// mostEntries is how many messages of p count as held at most. For the function alone,
// little more than it takes is enough, beside what waits for a reason.
func (t *Table) mostEntries(p *Partition) int {
	if !t.eager(p) {
		return min(prefetch*t.cfg.InFlight, t.maxEntries())
	}
	return t.maxEntries()
}

// starved reports whether less could be delivered of what is here of p than its share of
// what requests take.
func (p *Partition) starved() bool {
	share := p.table.cfg.InFlight / 2 / p.table.streams()
	return p.counts[stateReady]+p.counts[stateSending]+p.counts[stateAsking] < max(1, share)
}

// evict gives up payloads until no more than so many bytes are taken: those first whose
// turn is last.
func (p *Partition) evict(bytes int) {
	type far struct {
		entry *Entry
		turn  int
	}
	var all []far
	t := p.table
	now := t.cfg.Now()
	for _, l := range p.lanes {
		first := l.first()
		turn := 0
		switch e := l.running; {
		case e != nil && (e.state == stateWaiting && e.due.Sub(now) > farOff || e.state == stateHeld || e.state == stateDue): // behind a long backoff
			turn = farBehind
		case e == nil && first != nil && !t.mayRun(first): // behind a dead letter, or not all is here
			turn = farBehind
		}
		for _, e := range l.entries {
			if e.state == Finished {
				continue
			}
			if e.state == stateBlocked && !e.Evicted && turn >= farBehind {
				all = append(all, far{e, turn})
			}
			turn++
		}
	}
	for e := range t.waiting.all() {
		if e.partition == p && !e.Evicted && e.due.Sub(now) > farOff {
			all = append(all, far{e, farBehind})
		}
	}
	for _, h := range t.sendable() {
		for e := range h.all() {
			if e.partition == p && !e.Evicted && (e.state == stateHeld || e.state == stateDue) {
				all = append(all, far{e, farBehind})
			}
		}
	}
	slices.SortFunc(all, func(a, b far) int { return b.turn - a.turn })
	for _, f := range all {
		if p.bytes <= bytes {
			break
		}
		p.bytes -= f.entry.evict()
	}
}

// Fetched returns the payload to an entry whose payload was evicted, with m, the message
// from the stream. Only the request that the entry is in calls it.
func (e *Entry) Fetched(m eventing.Message) {
	t := e.partition.table
	t.mu.Lock()
	defer t.mu.Unlock()
	e.Message, e.Evicted, e.size = m, false, m.Size()+entryOverhead
	if !e.stale() {
		e.partition.bytes += e.size
	}
}
