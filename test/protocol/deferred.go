package protocol

// Deferred is a model of an event that cannot be committed until the deployment changes; the
// change may be rolled back. Each cluster delivers the event, defers it if it fails,
// acknowledges it, and runs it later. A process may be killed at any moment, and the stream may
// deliver the event again, or a copy that it already considers acknowledged. The ledger forgets
// the event when both clusters have acknowledged it: first the horizon moves past it, then its
// row is deleted.
//
// In no state is the event applied twice, or acknowledged by a cluster in which it is neither
// committed nor deferred. From every state it is eventually applied, acknowledged and no longer
// deferred once the deployment is complete, even if only one of the clusters takes steps.
//
// The model assumes that no delivery outlives the retention, except that of a deferred event:
// it may run at any later time.
type Deferred struct {
	// Mutant is the rule that is broken.
	Mutant Mutant
}

// The mutants of [Deferred].
const (
	// AckBeforeStored acknowledges the event before it is stored.
	AckBeforeStored Mutant = "ack-before-stored"
	// ForgetDeferred forgets the ledger's row of a deferred event.
	ForgetDeferred Mutant = "forget-deferred"
	// DeferForgotten defers an event that is below the horizon.
	DeferForgotten Mutant = "defer-forgotten"
	// SweepFirst forgets before the horizon moves.
	SweepFirst Mutant = "sweep-first"
	// EndBeforeRun deletes the deferred event before it is committed.
	EndBeforeRun Mutant = "end-before-run"
)

// deferredState is a state of the model.
type deferredState struct {
	deployed bool // what the event needs
	ledger   bool
	horizon  bool // whether it is past the event
	applied  uint8
	cluster  [clusters]deferredCluster
}

type deferredCluster struct {
	at    uint8 // the position of the process in handling the event
	row   bool  // deferred
	acked bool
}

// Positions of a process in handling an event.
const (
	nowhere    = iota
	lacking    // it was delivered, and failed
	settledNow // it may be acknowledged
	running    // the deferred event is in a request, for a mutant
	lostNow    // the deferred event was run, and had been committed before
)

// Explore visits every state of the model.
func (m Deferred) Explore() Result {
	g, r := explore(deferredState.wrongIn, m.steps)
	for alone := 0; r.Wrong == "" && alone < clusters; alone++ {
		r = g.mustEnd(
			func(s deferredState) bool {
				return s.applied == 1 && s.cluster[alone].acked && !s.cluster[alone].row
			},
			func(who int) bool { return who == alone || who == operator },
			"from here a cluster alone cannot reach an end state")
	}
	return r
}

// wrongIn returns the violated property; empty if there is none.
func (s deferredState) wrongIn() string {
	if s.applied > 1 {
		return "the event is applied twice"
	}
	for _, c := range s.cluster {
		if c.acked && s.applied == 0 && !c.row {
			return "the event is acknowledged, and neither committed nor deferred"
		}
	}
	return ""
}

// operator takes the step that completes the deployment.
const operator = -2

// steps calls do with every possible step in s, and the process that takes it.
func (m Deferred) steps(s deferredState, do func(name string, who int, next deferredState)) {
	change := func(who int, name string, by func(*deferredState)) {
		next := s
		by(&next)
		do(name, who, next)
	}
	if s.deployed {
		change(anyone, "deployment: is rolled back", func(s *deferredState) { s.deployed = false })
	} else {
		change(operator, "deployment: is completed", func(s *deferredState) { s.deployed = true })
	}
	acked := s.cluster[0].acked && s.cluster[1].acked
	if acked && (!s.ledger || m.Mutant != SweepFirst) {
		change(anyone, "retention: the horizon moves", func(s *deferredState) { s.horizon = true })
	}
	deferred := s.cluster[0].row || s.cluster[1].row
	if s.ledger && (s.horizon || m.Mutant == SweepFirst && acked) && (!deferred || m.Mutant == ForgetDeferred) {
		change(anyone, "retention: the ledger forgets", func(s *deferredState) { s.ledger = false })
	}
	for i := range clusters {
		m.clusterSteps(s, i, func(who int, name string, by func(*deferredState, *deferredCluster)) {
			next := s
			by(&next, &next.cluster[i])
			do([clusters]string{"east: ", "west: "}[i]+name, who, next)
		})
	}
}

// clusterSteps yields the steps of one cluster.
func (m Deferred) clusterSteps(s deferredState, i int, change func(who int, name string, by func(*deferredState, *deferredCluster))) {
	c := s.cluster[i]
	change(anyone, "is killed", func(_ *deferredState, c *deferredCluster) { c.at = nowhere })
	if c.acked {
		change(anyone, "the stream hands out the event again", func(_ *deferredState, c *deferredCluster) { c.acked = false })
	}
	deliver := func(who int, name string) {
		change(who, name, func(s *deferredState, c *deferredCluster) {
			switch {
			case s.ledger:
				c.at = settledNow
			case !s.deployed:
				c.at = lacking
			default:
				s.ledger, c.at = true, settledNow
				s.applied++
			}
		})
	}
	switch c.at {
	case nowhere, lacking:
		switch {
		case !s.horizon && !c.acked:
			deliver(i, "delivers")
		case !s.horizon:
			deliver(anyone, "delivers a copy")
		case !c.acked:
			change(i, "acknowledges an event below the horizon", func(_ *deferredState, c *deferredCluster) { c.acked = true })
		}
	case settledNow:
		change(i, "acknowledges", func(_ *deferredState, c *deferredCluster) { c.acked, c.at = true, nowhere })
	case lostNow:
		change(i, "deletes the deferred event, which is committed", func(s *deferredState, c *deferredCluster) {
			c.row, c.at = c.row && !s.ledger, nowhere
		})
	case running:
		change(i, "commits the event that it runs", m.win)
	}
	if c.at == lacking {
		change(i, "stores the event", func(s *deferredState, c *deferredCluster) {
			c.row = c.row || !s.ledger && (!s.horizon || m.Mutant == DeferForgotten)
			c.at = settledNow
		})
		if m.Mutant == AckBeforeStored {
			change(i, "acknowledges before it stores", func(_ *deferredState, c *deferredCluster) { c.acked = true })
		}
	}
	if c.row && s.deployed && c.at == nowhere {
		m.runSteps(s, i, change)
	}
}

// runSteps yields the steps of a cluster that runs its deferred event.
func (m Deferred) runSteps(s deferredState, i int, change func(who int, name string, by func(*deferredState, *deferredCluster))) {
	switch {
	case s.ledger:
		change(i, "runs the event, which is lost", func(_ *deferredState, c *deferredCluster) { c.at = lostNow })
	case m.Mutant == EndBeforeRun:
		change(i, "deletes the event and runs it", func(_ *deferredState, c *deferredCluster) { c.row, c.at = false, running })
	default:
		change(i, "runs the event", m.win)
		// Another session has locked the row, or a function of an older version does not know
		// it.
		change(anyone, "runs the event, and its row stays", func(s *deferredState, _ *deferredCluster) {
			s.ledger = true
			s.applied++
		})
	}
}

// win commits the event, and deletes it in every cluster.
func (m Deferred) win(s *deferredState, c *deferredCluster) {
	if !s.ledger {
		s.ledger = true
		s.applied++
	}
	for k := range s.cluster {
		s.cluster[k].row = false
	}
	c.at = nowhere
}
