package protocol

// faults yields the faults that can happen to a cluster at any moment.
func (m Model) faults(s *state, c int, do func(step)) {
	cl := &s.cluster[c]
	if cl.waited|cl.answered != 0 || cl.rewinding || cl.saved != 0 {
		change(s, "source is killed", fault, c, do, func(_ *state, cl *cluster) {
			cl.waited, cl.answered, cl.rewinding, cl.saved = 0, 0, false, 0
		})
	}
	if cl.batch != 0 && cl.want == 0 && cl.waited != 0 {
		change(s, "acknowledgements are lost", fault, c, do, func(s *state, cl *cluster) {
			m.win(s, cl)
			cl.rest()
		})
	}
	if cl.batch != 0 {
		change(s, "connection is cut", fault, c, do, func(_ *state, cl *cluster) { cl.again() })
	}
	if cl.batch != 0 || cl.toPublish|cl.toDelete|cl.toSetAside != 0 {
		change(s, "function is killed", fault, c, do, func(_ *state, cl *cluster) { cl.die() })
	}
	// One COMMIT with an unknown outcome at a time is sufficient: the server
	// will resolve it.
	if cl.locks == 0 || cl.want != 0 || cl.committing != 0 {
		return
	}
	change(s, "connection is cut with COMMIT on its way", fault, c, do, func(_ *state, cl *cluster) {
		cl.committing = cl.locks
		if m.Mutant == UnknownIsDone {
			cl.acked, cl.waited = cl.acked|cl.waited, 0
		}
		cl.again()
	})
	change(s, "function is killed with COMMIT on its way", fault, c, do, func(_ *state, cl *cluster) {
		cl.committing = cl.locks
		cl.die()
	})
}

func (cl *cluster) die() {
	cl.rest()
	cl.toPublish, cl.toDelete, cl.toSetAside, cl.late, cl.stale = 0, 0, 0, 0, false
}

// failover loses the primary, once, with its commits after some moment. Then the former
// primary may take over again.
func (m Model) failover(s *state, do func(step)) {
	next := *s
	name := "primary is lost, the standby takes its place"
	switch {
	case s.hasCopy:
		next.primary, next.copied, next.hasCopy, next.timeline = s.copied, store{}, false, 1
		if m.Failback {
			next.former, next.failback = s.primary, isLost
		}
	case s.failback == isLost && s.noticed():
		next.primary, next.former, next.failback, next.timeline = s.former, store{}, isBack, 0
		name = "primary is lost, the former one takes its place"
	case s.timeline == 0 && s.failback == notLost:
		next.copied, next.hasCopy = s.primary, true
		do(step{name: "standby receives its last piece", who: fault, next: next})
		return
	default:
		return
	}
	if m.Mutant == AskLost {
		next.lost = s.primary.ledger
	}
	for c := range clusters {
		cl := &next.cluster[c]
		cl.committing = 0
		if cl.batch != 0 {
			cl.again()
		}
		if m.Failback && cl.rewinding { // the stored row differs from the expected one: it restarts
			cl.rewinding, cl.saved = false, 0
		}
		cl.stale = m.Mutant == ReusedRows && (cl.toPublish|cl.toDelete).without(s.copied.ledger) != 0
	}
	do(step{name: name, who: fault, next: next})
}

// noticed reports whether every source has saved since the failover, or ended. A source saves
// once a second, and two failovers take longer.
func (s *state) noticed() bool {
	for _, cl := range s.cluster {
		if cl.saved == 1 {
			return false
		}
	}
	return true
}

// forget models the retention of the ledger, and the faults that it enables.
func (m Model) forget(s *state, do func(step)) {
	for c := range clusters {
		if s.cluster[c].acked != 0 {
			change(s, "consumer is recreated", fault, c, do, func(_ *state, cl *cluster) { cl.acked = 0 })
		}
	}
	e := int(s.primary.horizon)
	if m.Mutant == NoHorizon {
		for e = 0; e < m.Events && !s.primary.ledger.has(e); {
			e++
		}
	}
	if e >= m.Events || !s.primary.ledger.has(e) || s.underWay(e) && m.Mutant != ForemostForgets {
		return
	}
	acknowledged := 0
	for c := range clusters {
		if int(s.primary.floor[c]) > e {
			acknowledged++
		}
	}
	if acknowledged < clusters && (m.Mutant != ForemostForgets || acknowledged == 0) {
		return
	}
	next := *s
	next.primary.ledger = next.primary.ledger.without(of(e))
	if m.Mutant != NoHorizon {
		next.primary.horizon = uint8(e + 1)
	}
	do(step{name: "ledger forgets" + event(e), who: server, next: next})
}

// underWay reports whether a request with the event exists anywhere. A request
// takes seconds, and the ledger remembers for days.
func (s *state) underWay(e int) bool {
	for _, cl := range s.cluster {
		if (cl.batch | cl.committing).has(e) {
			return true
		}
	}
	return false
}
