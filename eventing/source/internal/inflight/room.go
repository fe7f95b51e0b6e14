package inflight

import (
	"context"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing"
)

const (
	// roomInterval is the time between checks for room while there is none.
	roomInterval = 20 * time.Millisecond

	// evictInterval is the minimum time between evictions of payloads, because each
	// looks at every entry.
	evictInterval = 20 * time.Millisecond

	// prefetch is how many times as many messages of a partition are held as are
	// delivered concurrently, if more would only wait.
	prefetch = 4

	// roomFor is the number of messages for which there must be room before some are
	// pulled.
	roomFor = 64

	// farBehind is how far behind the first entry of its subject, or before its time, an
	// entry must be for its payload to be evicted.
	farBehind = 16
	farOff    = time.Second
)

// Room waits until half of the partition's room is free, and returns how many messages of how
// many bytes together fit; 0 if ctx ended first. Until the partition is complete, only payloads
// take room: its entries wait for missing messages, which are no more than the stream has
// delivered before.
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

// roomNow returns the room if half of it is free; one message at a time would cost a
// request each. If there is none, and few of the held messages could be delivered, it
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
	// One half is for the payloads, the other for the overhead of each message.
	if n = max(1, bytes/2/entryOverhead); p.complete {
		n = min(n, p.fits())
	}
	return n, bytes / 2
}

// MaxEntries returns the maximum number of messages of a partition.
func (t *Table) MaxEntries() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.maxEntries()
}

func (t *Table) maxEntries() int { return max(stubShare*t.share()/stubOverhead, prefetch) }

// fits returns how many more messages p may hold, if memory for their payloads is free.
func (p *Partition) fits() int {
	t := p.table
	return min(t.mostEntries(p)-p.held(), t.maxEntries()-p.entries.len())
}

// held returns how many messages count against mostEntries: those without another reason
// to wait.
func (p *Partition) held() int {
	if p.table.eager(p) {
		return p.entries.len()
	}
	return p.entries.len() - p.counts[stateWaiting] - p.counts[stateBlocked] - p.counts[stateHeld] - p.counts[stateDue]
}

// hurry looks up the messages that wait for the hedge before their time, each once: no
// more messages fit, and many of these may be committed.
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

// eager reports whether p holds as many messages as fit into memory: messages that wait
// for a lookup, for their time or for their turn cost only memory.
func (t *Table) eager(p *Partition) bool {
	return !t.hedge.Race() || t.lagging || p.lanes != nil
}

// mostEntries returns the maximum number of messages of p that count as held. For the
// function alone, little more than its capacity is enough, in addition to messages with
// a reason to wait.
func (t *Table) mostEntries(p *Partition) int {
	if !t.eager(p) {
		return min(prefetch*t.cfg.InFlight, t.maxEntries())
	}
	return t.maxEntries()
}

// starved reports whether fewer of the held messages of p could be delivered than its
// share of the capacity of requests.
func (p *Partition) starved() bool {
	share := p.table.cfg.InFlight / 2 / p.table.streams()
	return p.counts[stateReady]+p.counts[stateSending]+p.counts[stateAsking] < max(1, share)
}

// evict drops payloads until at most bytes bytes are used, starting with the entries
// that are sent last.
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
		case e == nil && first != nil && !t.mayRun(first): // behind a dead letter, or the partition is incomplete
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

// Fetched restores the evicted payload of an entry from m, the message read from the
// stream. Only the request with the entry may call it.
func (e *Entry) Fetched(m eventing.Message) {
	t := e.partition.table
	t.mu.Lock()
	defer t.mu.Unlock()
	e.Message, e.Evicted, e.size = m, false, m.Size()+entryOverhead
	if !e.stale() {
		e.partition.bytes += e.size
	}
}
