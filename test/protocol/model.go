package protocol

import "strconv"

// Model configures the size of the model, the possible faults, and the broken
// rule.
type Model struct {
	// Events is the number of events, 1 or 2.
	Events int

	// Lone leaves one cluster alone: the other one never takes a step.
	Lone bool

	// Failover allows losing the primary, once, with its last commits.
	Failover bool

	// Failback allows the lost primary to take over again, once, in the state in which it
	// was lost: commits in between are lost. Before that each source has noticed the
	// failover, or ended. It requires Failover.
	Failback bool

	// Forget allows the ledger to forget, and consumers to be recreated.
	Forget bool

	// Reject makes the stream reject the output of the last event for good.
	Reject bool

	// Mutant is the rule that is broken.
	Mutant Mutant
}

// wrong returns the violated property; empty if there is none.
func (m Model) wrong(s *state) string {
	for e := range m.Events {
		if what := m.wrongWith(s, e); what != "" {
			return "event " + strconv.Itoa(e+1) + what
		}
	}
	if m.waitsFor(s, 0) && m.waitsFor(s, 1) {
		return "two sessions wait for each other"
	}
	return ""
}

func (m Model) wrongWith(s *state, e int) string {
	p := &s.primary
	applied := p.applied[e] > 0
	known := p.ledger.has(e) || m.Forget && e < int(p.horizon)
	switch {
	case p.applied[e] > 1:
		return " is applied twice"
	case s.emitted[e] == 3:
		return " has outputs with two identities"
	case applied != known && !m.forgetsSilently():
		return " is in the ledger or applied, but not both"
	case applied && s.emitted[e] == 0 && !p.outbox.has(e) && !p.rejected.has(e):
		return " is applied, and its output is neither emitted nor in the outbox, nor set aside"
	case !applied && (int(p.floor[0]) > e || int(p.floor[1]) > e):
		return " is below the progress that was saved, and not applied"
	case m.Failover: // committed events may be lost temporarily
	case !applied && s.emitted[e] != 0:
		return " has an output without rows"
	case !applied && (s.cluster[0].acked | s.cluster[1].acked).has(e):
		return " is acknowledged and not applied"
	}
	return ""
}

// forgetsSilently reports whether the mutant itself removes rows of the ledger;
// then only the consequences are of interest.
func (m Model) forgetsSilently() bool { return m.Mutant == NoHorizon }

// waitsFor reports whether the claim of cluster c waits for the other's, which is
// not complete either.
func (m Model) waitsFor(s *state, c int) bool {
	e := m.nextKey(s, c)
	other := &s.cluster[1-c]
	return e >= 0 && other.want != 0 && other.locks.has(e) && m.Mutant != LooseClaim
}

// rejects reports whether the stream rejects the output of an event for good.
func (m Model) rejects(e int) bool { return m.Reject && e == m.Events-1 }

// handled reports whether everything is applied, and emitted or rejected.
func (m Model) handled(s *state) bool {
	for e := range m.Events {
		if s.primary.applied[e] != 1 || s.emitted[e] == 0 && !s.primary.rejected.has(e) {
			return false
		}
	}
	return true
}

// finished reports whether, in addition, both clusters have noticed and nothing
// is left to do.
func (m Model) finished(s *state) bool {
	all := below(m.Events)
	return m.handled(s) && s.primary.outbox == 0 && s.cluster[0].acked == all && (m.Lone || s.cluster[1].acked == all)
}
