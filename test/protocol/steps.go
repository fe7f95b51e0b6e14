package protocol

import "strconv"

// The process of a step that no cluster takes.
const (
	server = clusters     // the database, or a timeout
	fault  = clusters + 1 // none
)

// step is one possible transition.
type step struct {
	name string
	who  int
	next state
}

// steps yields all possible steps in s.
func (m Model) steps(s *state, do func(step)) {
	for c := range clusters {
		if m.Lone && c > 0 {
			break
		}
		m.sourceSteps(s, c, do)
		m.functionSteps(s, c, do)
		m.sessionSteps(s, c, do)
		m.faults(s, c, do)
	}
	m.relaySteps(s, do)
	if m.Failover {
		m.failover(s, do)
	}
	if m.Forget {
		m.forget(s, do)
	}
}

// change yields a step that changes one cluster and the shared state.
func change(s *state, name string, who, c int, do func(step), by func(*state, *cluster)) {
	next := *s
	by(&next, &next.cluster[c])
	do(step{name: [clusters]string{"east: ", "west: "}[c] + name, who: who, next: next})
}

func event(e int) string { return " event " + strconv.Itoa(e+1) }

// sourceSteps yields the steps of a source except delivery, which is part of the
// function's start of a batch. Acknowledging is part of the function's answer,
// unless there is a failover, because otherwise the state in between is not
// observable.
func (m Model) sourceSteps(s *state, c int, do func(step)) {
	cl := &s.cluster[c]
	for e := range m.Events {
		switch {
		case cl.answered.has(e):
			change(s, "source acknowledges"+event(e), c, c, do, func(_ *state, cl *cluster) {
				cl.answered, cl.acked = cl.answered.without(of(e)), cl.acked|of(e)
			})
		case cl.acked.has(e) || cl.batch.has(e):
		case m.Forget && e < int(s.primary.horizon):
			change(s, "source skips, below the horizon,"+event(e), c, c, do, func(_ *state, cl *cluster) { cl.acked |= of(e) })
		case m.asks(s, c, e):
			change(s, "source finds in the ledger"+event(e), c, c, do, func(_ *state, cl *cluster) {
				if m.Failover {
					cl.answered |= of(e)
				} else {
					cl.acked |= of(e)
				}
			})
		}
	}
	if m.Failover || m.Forget {
		m.progress(s, c, do)
	}
}

// asks reports whether a hedging source finds the event in the ledger.
func (m Model) asks(s *state, c, e int) bool {
	return s.primary.ledger.has(e) || m.Mutant == AskUncommitted && s.heldByOther(c, e) || m.Mutant == AskLost && s.lost.has(e)
}

// progress is the step that the source takes once a second.
func (m Model) progress(s *state, c int, do func(step)) {
	if m.rewinds(s, c) {
		m.rewind(s, c, do)
		return
	}
	floor := m.floor(s, c)
	if m.Failback && s.cluster[c].saved == 0 {
		change(s, "source starts, and rereads the messages that are not below both floors", c, c, do, func(s *state, cl *cluster) {
			cl.acked = below(min(floor, int(s.primary.floor[c])))
			cl.waited, cl.answered = 0, 0
			cl.saved = s.timeline + 1
		})
		return
	}
	if floor > int(s.primary.floor[c]) || s.primary.on[c] != s.timeline {
		change(s, "source saves its progress", c, c, do, func(s *state, _ *cluster) {
			s.primary.floor[c] = max(s.primary.floor[c], uint8(floor))
			s.primary.on[c] = s.timeline
			if m.Mutant == FloorElsewhere && s.hasCopy {
				s.copied.floor[c] = s.primary.floor[c]
			}
		})
	}
}

// rewinds reports whether a source has to rewind the stream, or is rewinding: its floor was
// saved on another timeline than the database's, or the source saved on another one last.
func (m Model) rewinds(s *state, c int) bool {
	cl := &s.cluster[c]
	other := m.Failback && cl.saved != 0 && cl.saved != s.timeline+1 && m.Mutant != TrustFloor
	return (s.primary.on[c] != s.timeline || cl.rewinding || other) && m.Mutant != NoRewind
}

// floor returns the floor of a cluster's consumer.
func (m Model) floor(s *state, c int) (floor int) {
	for e := range m.Events {
		if s.cluster[c].acked.has(e) && (floor == e || m.Mutant == FloorAhead) {
			floor = e + 1
		}
	}
	return floor
}

// rewind yields the steps of a source that finds another timeline: the stream
// redelivers everything from the floor on, and only then does the source adopt
// the timeline.
func (m Model) rewind(s *state, c int, do func(step)) {
	if s.cluster[c].rewinding == (m.Mutant == AdoptFirst) {
		change(s, "source rewinds", c, c, do, func(s *state, cl *cluster) {
			cl.acked = below(int(s.primary.floor[c]))
			if m.Mutant != KeepRequests {
				cl.waited, cl.answered = 0, 0
			}
			cl.rewinding = !cl.rewinding
		})
		return
	}
	change(s, "source adopts the timeline", c, c, do, func(s *state, cl *cluster) {
		s.primary.on[c] = s.timeline
		if m.Failback {
			cl.saved = s.timeline + 1
		}
		cl.rewinding = !cl.rewinding
	})
}

func (m Model) functionSteps(s *state, c int, do func(step)) {
	cl := &s.cluster[c]
	switch {
	case cl.batch == 0:
		m.takeBatch(s, c, do)
	case cl.lookUp:
		change(s, "function looks up the keys that it has not claimed", c, c, do, func(s *state, cl *cluster) {
			cl.want, cl.lookUp = cl.want.without(m.found(s, c)), false
		})
	case cl.want == 0:
		change(s, "function sends its won effects, commits and answers", c, c, do, func(s *state, cl *cluster) {
			m.win(s, cl)
			if m.Failover {
				cl.answered |= cl.waited
			} else {
				cl.acked |= cl.waited
			}
			cl.rest()
		})
	}
	for e := range m.Events {
		switch {
		case cl.toPublish.has(e) && m.rejects(e):
			change(s, "stream rejects the winner's output of"+event(e), c, c, do, func(_ *state, cl *cluster) {
				cl.toPublish, cl.late = cl.toPublish.without(of(e)), cl.late.without(of(e))
				cl.toSetAside |= of(e)
				if m.Mutant == AsideAfterDelete {
					cl.toDelete |= of(e)
				}
			})
		case cl.toPublish.has(e):
			change(s, "winner publishes"+event(e), c, c, do, func(s *state, cl *cluster) {
				m.emit(s, e, cl.late)
				cl.toPublish, cl.late = cl.toPublish.without(of(e)), cl.late.without(of(e))
				cl.toDelete |= of(e)
			})
		}
	}
	if m.Mutant == PublishEarly && cl.locks != 0 && cl.want == 0 {
		change(s, "winner publishes before it commits", c, c, do, func(s *state, cl *cluster) {
			for e := range m.Events {
				if cl.locks.has(e) {
					m.emit(s, e, 0)
				}
			}
		})
	}
	if cl.toSetAside != 0 {
		change(s, "winner stores a rejected output", c, c, do, func(s *state, cl *cluster) {
			s.primary.rejected |= cl.toSetAside
			if m.Mutant != AsideAfterDelete {
				s.primary.outbox = s.primary.outbox.without(cl.toSetAside)
			}
			cl.toSetAside = 0
		})
	}
	// Deleting with the next batch or alone is equivalent.
	if cl.toDelete != 0 {
		change(s, "winner deletes published outputs", c, c, do, func(s *state, cl *cluster) {
			s.primary.outbox = s.primary.outbox.without(cl.toDelete)
			if cl.stale {
				s.primary.outbox = s.primary.outbox.without(s.primary.late)
			}
			cl.toDelete = 0
		})
	}
}

// found returns the events that a function treats as lost after it has lost the first key of
// its claim.
func (m Model) found(s *state, c int) set {
	switch m.Mutant {
	case LostTogether:
		return below(m.Events)
	case LookUpUncommitted:
		return s.primary.ledger | s.cluster[1-c].locks
	default:
		return s.primary.ledger
	}
}

// takeBatch starts a transaction with any of the events that are not acknowledged.
func (m Model) takeBatch(s *state, c int, do func(step)) {
	for batch := set(1); batch <= below(m.Events); batch++ {
		if batch&(s.cluster[c].acked|s.cluster[c].answered) != 0 || m.Forget && batch&below(int(s.primary.horizon)) != 0 {
			continue
		}
		change(s, "function receives and claims"+list(batch), c, c, do, func(_ *state, cl *cluster) {
			cl.batch, cl.waited, cl.want = batch, batch, batch
			if m.Mutant == EarlyAck {
				cl.acked, cl.waited = cl.acked|batch, 0
			}
		})
	}
}

// rest resets the function to a state without a transaction.
func (cl *cluster) rest() { cl.batch, cl.waited, cl.want, cl.locks, cl.lookUp = 0, 0, 0, 0, false }

// again rolls the transaction back, and retries it if any caller still waits.
func (cl *cluster) again() {
	if cl.waited == 0 {
		cl.rest()
		return
	}
	cl.want, cl.locks, cl.lookUp = cl.batch, 0, false
}

// sessionSteps yields the steps of the server for a function, including one that
// has ended.
func (m Model) sessionSteps(s *state, c int, do func(step)) {
	cl := &s.cluster[c]
	switch {
	case cl.want != 0 && !cl.lookUp:
		m.claimNext(s, c, do)
		if cl.locks != 0 {
			change(s, "claim times out waiting", server, c, do, func(_ *state, cl *cluster) { cl.again() })
		}
	case cl.batch != 0 && m.Mutant != NoTimeout:
		change(s, "server ends a session that waits for its client", server, c, do, func(_ *state, cl *cluster) { cl.again() })
	}
	if cl.committing != 0 {
		change(s, "server commits for a connection that is lost", server, c, do, func(s *state, cl *cluster) {
			m.commit(s, cl.committing)
			cl.committing = 0
		})
		change(s, "server rolls back for a connection that is lost", server, c, do, func(_ *state, cl *cluster) { cl.committing = 0 })
	}
}

// claimNext processes the next key of a claim, unless another session has
// inserted it and not ended its transaction.
func (m Model) claimNext(s *state, c int, do func(step)) {
	e := m.nextKey(s, c)
	won := false
	switch {
	case s.primary.ledger.has(e):
	case m.Mutant == LooseClaim:
		won = true
	case s.heldByOther(c, e) && m.Mutant != NoWait:
		return
	default:
		won = !s.heldByOther(c, e)
	}
	what := "key is lost,"
	if won {
		what = "key is won,"
	}
	change(s, what+event(e), server, c, do, func(s *state, cl *cluster) {
		cl.want = cl.want.without(of(e))
		if won {
			cl.locks |= of(e)
		}
		cl.lookUp = !won && cl.locks == 0 && cl.want != 0
		if m.Mutant == ClaimOutside && cl.want == 0 {
			s.primary.ledger |= cl.locks
		}
	})
}

// nextKey returns the next key of a claim, or -1 if the claim is complete.
func (m Model) nextKey(s *state, c int) int {
	want := s.cluster[c].want
	first, second := 0, 1
	if m.Mutant == Unsorted && c == 1 {
		first, second = 1, 0
	}
	switch {
	case want.has(first):
		return first
	case want.has(second):
		return second
	}
	return -1
}

// heldByOther reports whether another session than the cluster's own has
// inserted a key.
func (s *state) heldByOther(c, e int) bool {
	return (s.cluster[c].committing | s.cluster[1-c].committing | s.cluster[1-c].locks).has(e)
}

// commit applies the events that were won.
func (m Model) commit(s *state, won set) {
	p := &s.primary
	for e := range m.Events {
		if won.has(e) {
			p.applied[e] = min(p.applied[e]+1, 2)
		}
	}
	p.ledger |= won
	if m.Mutant != NoOutbox {
		p.outbox |= won
	}
	if (m.Mutant == RandomIDs || m.Mutant == ReusedRows) && s.timeline == 1 {
		p.late |= won
	}
}

// win commits the events that a function has claimed, and schedules their
// publication.
func (m Model) win(s *state, cl *cluster) {
	m.commit(s, cl.locks)
	cl.toPublish |= cl.locks
	cl.late = cl.late.without(cl.locks) | s.primary.late&cl.locks
	if m.Mutant == DeleteFirst {
		cl.toDelete |= cl.locks
	}
}

func (m Model) relaySteps(s *state, do func(step)) {
	next := *s
	e := int(s.relay.event)
	switch s.relay.at {
	case relayIdle:
		for e := range m.Events {
			if s.primary.outbox.has(e) && m.Mutant != NoRelay {
				next.relay = relay{at: relayTaken, event: uint8(e)}
				do(step{name: "relay takes over" + event(e), who: server, next: next})
			}
		}
		return
	case relayTaken:
		next.relay.at = relayHalf
		switch {
		case m.Mutant == RelayDeletesFirst:
			next.primary.outbox = s.primary.outbox.without(of(e))
		case !m.rejects(e):
			m.emit(&next, e, s.primary.late)
		}
		do(step{name: "relay publishes" + event(e), who: server, next: next})
	case relayHalf:
		next.relay = relay{}
		if m.Mutant == RelayDeletesFirst {
			m.emit(&next, e, s.primary.late)
		}
		next.primary.outbox = s.primary.outbox.without(of(e))
		if m.rejects(e) { // in the same transaction
			next.primary.rejected |= of(e)
		}
		do(step{name: "relay deletes" + event(e), who: server, next: next})
	}
	next = *s
	next.relay = relay{}
	do(step{name: "relay is killed, or its cluster", who: server, next: next})
}

// emit stores an output in the stream, which stores it once per identity.
func (m Model) emit(s *state, e int, late set) {
	if m.Mutant == RandomIDs && late.has(e) {
		s.emitted[e] |= 2
	} else {
		s.emitted[e] |= 1
	}
}

func list(events set) string {
	text := ""
	for e := range maxEvents {
		if events.has(e) {
			text += event(e)
		}
	}
	return text
}
