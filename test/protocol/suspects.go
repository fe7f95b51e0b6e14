package protocol

// Suspects is a model of events that end the process of a function: which events are tried
// alone, what counts as a strike, and which cluster tries. One of two events ends the
// process whenever it is computed. Two clusters read both, and share a ledger, leases and
// dead letters. Other events succeed at any time, and an instance may shut down.
//
// In no state does the harmless event have a strike, become a dead letter, or are both
// functions down because of trials. From every state the harmless event is eventually
// committed and the other one is a dead letter, in both clusters, if no instance shuts
// down any more.
//
// Kills from outside are omitted: it is only improbable that they hit the trials of one
// event three times in a row.
type Suspects struct {
	// Mutant is the rule that is broken.
	Mutant Mutant
}

// The mutants of [Suspects].
const (
	// StrikeInBatch counts a strike for every event of a request whose connection breaks.
	StrikeInBatch Mutant = "strike-in-batch"
	// StrikeInDrain counts one while the instance shuts down.
	StrikeInDrain Mutant = "strike-in-drain"
	// StrikeInCompany counts one although another event failed with it.
	StrikeInCompany Mutant = "strike-in-company"
	// NoLease makes every cluster try suspects.
	NoLease Mutant = "no-lease"
	// NoStrikes retries indefinitely.
	NoStrikes Mutant = "no-strikes"
)

// The events, and the number of strikes that make one a dead letter.
const (
	killer   = 0
	harmless = 1
	strikes  = 3
)

// suspectState is a state of the model.
type suspectState struct {
	ledger  set
	lease   [maxEvents]uint8 // 1 + the cluster that holds it
	cluster [clusters]suspectCluster
}

type suspectCluster struct {
	down, byTrial, draining bool

	healthy bool // an event was committed since the process started
	proved  bool // and before the trial

	sent     set // together, or each without being a suspect
	trial    set // alone
	suspects set
	done     set
	dead     set

	strikes [maxEvents]uint8
	pending set // events whose latest trial is a strike if another event is committed
	company set // those of them with which the other event failed
}

// Explore visits every state of the model.
func (m Suspects) Explore() Result {
	g, r := explore(suspectState.wrong, m.steps)
	if r.Wrong != "" {
		return r
	}
	return g.mustEnd(suspectState.finished, func(who int) bool { return who != anyone },
		"from here no end state is reachable, although no further instance shuts down")
}

// wrong returns the violated property; empty if there is none.
func (s suspectState) wrong() string {
	down := 0
	for _, c := range s.cluster {
		if c.strikes[harmless] > 0 || c.dead.has(harmless) {
			return "the harmless event has a strike"
		}
		if c.down && c.byTrial {
			down++
		}
	}
	if down == clusters {
		return "both functions are down by trials"
	}
	return ""
}

// finished reports whether both clusters have finished both events.
func (s suspectState) finished() bool {
	for _, c := range s.cluster {
		if !c.done.has(harmless) || !c.dead.has(killer) {
			return false
		}
	}
	return true
}

// steps calls do with every possible step in s.
func (m Suspects) steps(s suspectState, do func(name string, who int, next suspectState)) {
	for i := range clusters {
		cluster := [clusters]string{"east: ", "west: "}[i]
		change := func(name string, by func(*suspectState, *suspectCluster)) {
			next := s
			by(&next, &next.cluster[i])
			do(cluster+name, i, next)
		}
		c := s.cluster[i]
		if c.down {
			change("function starts", func(_ *suspectState, c *suspectCluster) {
				c.down, c.byTrial, c.draining, c.healthy = false, false, false, false
			})
			continue
		}
		open := below(maxEvents).without(c.done | c.dead | c.suspects | c.sent | c.trial)
		for batch := set(1); batch <= below(maxEvents); batch++ {
			if batch&^open == 0 && !c.draining {
				change("source sends"+list(batch), func(_ *suspectState, c *suspectCluster) { c.sent |= batch })
			}
		}
		for e := range maxEvents {
			m.eventSteps(s, i, e, change)
		}
		change("another event is committed", func(s *suspectState, c *suspectCluster) { m.passes(s, i) })
		if (c.sent | c.trial).has(killer) {
			change("the event ends the process", func(_ *suspectState, c *suspectCluster) { m.breaks(c) })
		}
		next := s
		if !c.draining {
			next.cluster[i].draining = true
			do(cluster+"instance begins to shut down", anyone, next)
		} else {
			m.breaks(&next.cluster[i])
			next.cluster[i].byTrial = false
			do(cluster+"instance ends while it computes", anyone, next)
			if c.sent|c.trial == 0 {
				do(cluster+"instance ends", i, next)
			}
		}
	}
}

// eventSteps yields the steps of one event in one cluster.
func (m Suspects) eventSteps(s suspectState, i, e int, change func(string, func(*suspectState, *suspectCluster))) {
	c := s.cluster[i]
	if e == harmless && (c.sent | c.trial).has(e) {
		change("function commits"+event(e), func(s *suspectState, c *suspectCluster) {
			s.ledger |= of(e)
			m.settle(s, i, e)
			m.passes(s, i)
		})
	}
	if !c.suspects.has(e) || c.trial.has(e) {
		return
	}
	if s.ledger.has(e) {
		change("source finds in the ledger"+event(e), func(s *suspectState, _ *suspectCluster) { m.settle(s, i, e) })
	}
	mine := s.lease[e] == 0 || int(s.lease[e]) == i+1 || m.Mutant == NoLease
	if c.trial == 0 && mine && !c.draining && !c.pending.has(e) {
		change("source tries"+event(e), func(s *suspectState, c *suspectCluster) {
			c.trial, c.proved = of(e), c.healthy
			s.lease[e] = uint8(i + 1)
		})
	}
	if c.pending.has(e) { // it has waited for too long
		change("a strike does not count for"+event(e), func(_ *suspectState, c *suspectCluster) {
			c.pending, c.company = c.pending.without(of(e)), c.company.without(of(e))
		})
	}
}

// settle finishes an event that is committed: it was not the cause of failures in
// its company.
func (m Suspects) settle(s *suspectState, i, e int) {
	c := &s.cluster[i]
	c.done |= of(e)
	c.sent, c.trial, c.suspects = c.sent.without(of(e)), c.trial.without(of(e)), c.suspects.without(of(e))
	c.pending, c.company = c.pending.without(of(e)), c.company&of(e)
	m.release(s, i, e)
}

func (m Suspects) release(s *suspectState, i, e int) {
	if int(s.lease[e]) == i+1 {
		s.lease[e] = 0
	}
}

// breaks ends the process of the function, which breaks its connections.
func (m Suspects) breaks(c *suspectCluster) {
	if c.trial != 0 {
		if c.proved && (!c.draining || m.Mutant == StrikeInDrain) {
			c.pending |= c.trial
			if c.sent != 0 && m.Mutant != StrikeInCompany {
				c.company |= c.trial
			}
		}
		// The event with which it failed before may have been the cause.
		c.pending &^= c.company.without(c.trial)
		c.company &= c.trial
	}
	if m.Mutant == StrikeInBatch && c.healthy && !c.draining {
		c.pending |= c.sent
	}
	c.byTrial = c.trial.has(killer)
	c.suspects |= c.sent | c.trial
	c.sent, c.trial, c.down = 0, 0, true
}

// passes commits another event: strikes count.
func (m Suspects) passes(s *suspectState, i int) {
	c := &s.cluster[i]
	c.healthy = true
	for e := range maxEvents {
		if !c.pending.has(e) || c.company.has(e) {
			continue
		}
		c.pending = c.pending.without(of(e))
		if m.Mutant != NoStrikes {
			c.strikes[e]++
		}
		if c.strikes[e] == strikes || s.cluster[1-i].dead.has(e) {
			c.dead |= of(e)
			c.suspects = c.suspects.without(of(e))
			m.release(s, i, e)
		}
	}
}
