package inflight

import (
	"slices"
	"time"
)

// check compares the table with the expected state.
func (m *model) check() {
	m.t.Helper()
	t := m.table
	where := map[*Entry][]State{}
	put := func(s State, entries ...*Entry) {
		for _, e := range entries {
			where[e] = append(where[e], s)
		}
	}
	put(stateWaiting, slices.Collect(t.waiting.all())...)
	put(stateAsking, t.lookups.entries[t.lookups.head:]...)
	put(stateLeft, t.left.entries...)
	put(stateReady, slices.Collect(t.together.all())...)
	put(stateReady, slices.Collect(t.alone.all())...)
	put(stateReady, slices.Collect(t.queue.all())...)
	put(stateDue, slices.Collect(t.again.all())...)
	put(stateDue, slices.Collect(t.slow.all())...)
	put(stateDeferring, t.toDefer...)
	for _, entries := range append(m.storing, m.saving) {
		put(stateStoring, entries...)
	}
	for _, c := range t.probed {
		put(stateHeld, slices.Collect(c.held.all())...)
	}
	sending, asking, open, retrying, slow, leftAsked := 0, 0, 0, 0, 0, 0
	for _, entries := range m.lookups {
		asking += len(entries)
		put(stateAsking, entries...)
	}
	for e, in := range where {
		if in[0] == stateAsking && e.wasLeft {
			leftAsked++
		}
	}
	for _, entries := range m.requests {
		sending += len(entries)
		put(stateSending, entries...)
		if entries[0].GoesTogether() {
			open++
		}
		for _, e := range entries {
			if e.failing {
				retrying++
			}
			if e.slow {
				slow++
			}
		}
	}
	for e := range t.together.all() {
		if !e.GoesTogether() {
			m.failf("%d is to be sent with others", e.Sequence())
		}
	}
	counts := t.Counts()
	for _, s := range m.parts() {
		p := s.partition
		bytes := 0
		for _, message := range s.messages {
			e := message.entry
			if p.entries.get(message.sequence) != e {
				m.failf("%d/%d: in flight is %v, want %v", s.number, message.sequence, p.entries.get(message.sequence) != nil, e != nil)
			}
			if e == nil {
				continue
			}
			bytes += e.size
			counts[e.state]--
			switch in := where[e]; {
			case e.state == stateBlocked && len(in) == 0 && e.lane != nil:
			case len(in) != 1 || in[0] != e.state:
				m.failf("%d/%d is %d, and in the containers %v", s.number, message.sequence, e.state, in)
			}
			if e.lane != nil && (p.lanes[e.Subject] != e.lane || !slices.Contains(e.lane.entries, e)) {
				m.failf("%d/%d is not in its lane", s.number, message.sequence)
			}
			if e.Evicted && e.size != 0 {
				m.failf("%d/%d is evicted and takes %d bytes", s.number, message.sequence, e.size)
			}
		}
		if p.bytes != bytes {
			m.failf("partition %d: %d bytes, want %d", s.number, p.bytes, bytes)
		}
		for subject, l := range p.lanes {
			if e := l.first(); e != nil && e.state == stateBlocked && t.mayRun(e) {
				m.failf("subject %q of %d: %d may run, and nothing runs it", subject, s.number, e.Sequence())
			}
			if l.running != nil && l.running.state == Finished {
				m.failf("subject %q of %d waits for %d, which is finished", subject, s.number, l.running.Sequence())
			}
			if !slices.IsSortedFunc(l.entries, func(a, b *Entry) int { return int(a.Sequence()) - int(b.Sequence()) }) {
				m.failf("subject %q of %d is not in order", subject, s.number)
			}
		}
	}
	if counts != [Finished]int{} {
		m.failf("counts differ by %v", counts)
	}
	for e, in := range where {
		if e.stale() && !m.held[e] {
			m.failf("%d is abandoned, and in %v", e.Sequence(), in)
		}
	}
	helping, checking := 0, 0
	for _, s := range m.parts() {
		for e := range s.partition.entries.all() {
			if e.helps {
				helping++
			}
			if e.checks {
				checking++
			}
		}
	}
	type numbers struct{ sending, asking, open, retrying, slow, leftAsked, helping, checking int }
	if got, want := (numbers{t.sending, t.asking, t.open, t.retrying, t.sendingSlow, t.leftAsked, t.helping, t.checking}), (numbers{sending, asking, open, retrying, slow, leftAsked, helping, checking}); got != want {
		m.failf("the table counts %+v, want %+v", got, want)
	}
	if retrying > max(1, t.cfg.InFlight/retryShare) || slow > max(1, t.cfg.InFlight/slowShare) {
		m.failf("%d failing and %d slow events are in requests, of %d", retrying, slow, t.cfg.InFlight)
	}
	m.checkSuspects()
	m.checkCircuits()
	if sending > t.cfg.InFlight {
		m.failf("%d events are in requests, want at most %d", sending, t.cfg.InFlight)
	}
}

// checkSuspects checks the state of suspects.
func (m *model) checkSuspects() {
	m.t.Helper()
	t := m.table
	undecided, trials, asides := 0, 0, 0
	for _, s := range m.parts() {
		for e := range s.partition.entries.all() {
			if e.breaks > 0 {
				undecided++
			}
			if e.state == stateSending && e.mayTry() {
				trials++
			}
			if e.aside {
				asides++
			}
		}
	}
	if t.undecided != undecided || trials > 1+asides || trials > asides && t.trial == nil {
		m.failf("%d suspects are undecided, want %d; %d trials are under way, %d of them beside another", t.undecided, undecided, trials, asides)
	}
	if t.asides < asides || t.asides > max(0, min(maxAsides, t.cfg.InFlight/asideShare)) { // entries of abandoned partitions do not count
		m.failf("%d trials are beside another, want %d", t.asides, asides)
	}
}

// checkCircuits checks the state of types.
func (m *model) checkCircuits() {
	m.t.Helper()
	t := m.table
	probes := map[*circuit]int{}
	for _, entries := range m.requests {
		for _, e := range entries {
			if e.probing != nil {
				probes[e.probing]++
			}
		}
	}
	entries := map[*circuit]int{}
	for _, s := range m.parts() {
		for _, message := range s.messages {
			if e := message.entry; e != nil {
				if entries[e.typeCircuit]++; e.typeCircuit == nil || t.types[message.kind] != e.typeCircuit {
					m.failf("%d/%d is not in the circuit of its type", s.number, message.sequence)
				}
			}
		}
	}
	all := []*circuit{&t.deadLetters}
	for _, c := range t.types {
		all = append(all, c)
		if c.entries != entries[c] {
			m.failf("circuit %q: %d entries, want %d", c.eventType, c.entries, entries[c])
		}
	}
	for _, c := range all {
		switch {
		case c.probes != probes[c]:
			m.failf("circuit %q: %d probes, want %d", c.eventType, c.probes, probes[c])
		case c.open != slices.Contains(t.probed, c):
			m.failf("circuit %q: open is %t, and it is not in the list, or is", c.eventType, c.open)
		case !c.open && c.held.Len() > 0:
			m.failf("circuit %q holds %d, and is not open", c.eventType, c.held.Len())
		}
	}
}

// drain answers everything until nothing more can happen, and checks that every
// remaining entry waits for a reason.
func (m *model) drain(when string) {
	m.t.Helper()
	m.logf("drain %s", when)
	messages := 0
	for _, s := range m.parts() {
		messages += 2 * len(s.messages) // some become rows
	}
	limit := m.now.Add(2*time.Minute + freeOutages*outageShare)
	if m.table.cfg.Rate > 0 {
		limit = limit.Add(time.Duration(messages) * time.Second / time.Duration(m.table.cfg.Rate))
	}
	for range 1000 + 50*messages {
		moved := m.dispatch(1000)
		moved = m.lease(time.Minute) || moved
		for _, s := range m.streams {
			moved = m.pull(s, 1000) || moved
		}
		for m.lookUp(1000) {
			moved = true
		}
		for len(m.lookups) > 0 {
			m.answer(0, false)
			moved = true
		}
		for len(m.requests) > 0 {
			m.complete(0, false)
			moved = true
		}
		for m.toDefer(1000) {
			moved = true
		}
		for len(m.storing) > 0 {
			m.deferred(0, false)
			moved = true
		}
		if m.toStore(1000); len(m.saving) > 0 {
			m.save(saved)
			moved = true
		}
		moved = m.load(4) || moved
		moved = m.deleteRows() || moved
		moved = m.runDeferred(1000) || moved
		m.check()
		if !m.unfinished() {
			return
		}
		if moved || m.awake() {
			continue
		}
		if witness := m.now.Add(500 * time.Millisecond); witness.Before(m.asleep) && m.table.NeedsWitness() {
			m.now = witness
			m.witness(true)
			continue
		}
		if m.asleep.Sub(m.now) > 31*time.Second+freeOutages*outageShare {
			m.failf("drained %s: something is due, and nothing runs it", when)
		}
		m.now = m.asleep
		if m.now.After(limit) {
			break
		}
	}
	m.failf("drained %s: messages are not finished in time", when)
}

// unfinished reports whether there is a message without a reason to wait.
func (m *model) unfinished() bool {
	t := m.table
	if len(m.requests)+len(m.lookups)+len(m.storing)+len(m.saving)+len(t.toDefer) > 0 {
		return true
	}
	for _, s := range m.rows {
		for _, row := range s.messages {
			if !row.finished && row.entry == nil && !row.unheard && (s == m.deferrals || len(t.blocked[row.subject]) == 0 && t.behind[row.subject] > 0 && s.partition.lanes[row.subject] == nil) {
				return true
			}
		}
	}
	for subject := range t.behind {
		if len(t.blocked[subject]) == 0 && t.storedPart.lanes[subject] == nil {
			return true
		}
	}
	for _, s := range m.parts() {
		p := s.partition
		if p.Incomplete() {
			return true
		}
		for e := range p.entries.all() {
			if !m.excused(e) {
				return true
			}
		}
		if most := t.mostEntries(p); len(s.late)+len(s.messages)-s.unread > 0 && !t.hedge.Standby && p.fits() >= min(most/2, roomFor) {
			return true
		}
	}
	return false
}

func (m *model) kindOf(e *Entry) string {
	message, _ := e.Message.(*modelMessage)
	return message.kind
}

// excused reports whether an entry waits for something that the drain does not do.
func (m *model) excused(e *Entry) bool {
	if m.failing[m.kindOf(e)] {
		return true
	}
	if m.table.hedge.Standby && !e.Delivery.DeadLetter {
		return true
	}
	if e.lane == nil || e.state != stateBlocked {
		return false
	}
	if first := e.lane.first(); m.failing[m.kindOf(first)] || e.lane.running != nil && m.failing[m.kindOf(e.lane.running)] {
		return true
	}
	if m.table.blocked == nil {
		return true
	}
	for _, subject := range m.blocked {
		if subject == e.Subject && e.partition == m.table.storedPart { // an entry of a stream is stored
			return true
		}
	}
	return false
}
