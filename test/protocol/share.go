package protocol

// Share is a model of clusters that share the events: which of them processes an event
// first, and when the other one takes it over. Two events have one subject and are committed
// in order. Each cluster has a view of the members, which may be any view at any time: views
// may differ, or contain a cluster that has died. A fixed rule determines which member of a
// view is first for an event; here it is the same for both events, as for all events of a
// subject.
//
// In no state is an event committed before its predecessor, or acknowledged without being
// committed. From every state both events are eventually committed, and acknowledged by each
// running cluster, whatever the later views are, even if only one of the clusters takes
// steps.
//
// Time is omitted: waiting for the delay, and for idle capacity, is a step that may happen
// at any moment.
type Share struct {
	// Mutant is the rule that is broken.
	Mutant Mutant
}

// The mutants of [Share].
const (
	// NeverTake never takes over the events for which another cluster is first.
	NeverTake Mutant = "never-take"
	// TrustFirst acknowledges them without a lookup in the ledger.
	TrustFirst Mutant = "trust-first"
	// OwnAtOnce delivers an event for which this cluster is first, whatever the state of
	// its predecessor, for example if another cluster is first for that one.
	OwnAtOnce Mutant = "own-at-once"
	// SentIsDone delivers the next event of a subject when its predecessor has been
	// sent.
	SentIsDone Mutant = "sent-is-done"
)

// The views: which cluster is first for the events, as seen by a cluster.
const (
	eastFirst = iota
	westFirst
	views
)

// shareState is a state of the model.
type shareState struct {
	ledger  set
	wrong   bool // the order was violated
	cluster [clusters]shareCluster
}

type shareCluster struct {
	dead bool
	view uint8
	sent set // being computed; later ones of these may commit first
	done set // acknowledged
}

// Explore visits every state of the model.
func (m Share) Explore() Result {
	g, r := explore(shareState.wrongIn, m.steps)
	for alone := 0; r.Wrong == "" && alone < clusters; alone++ {
		r = g.mustEnd(
			func(s shareState) bool { return s.cluster[alone].dead || s.cluster[alone].done == below(maxEvents) },
			func(who int) bool { return who == alone },
			"from here a cluster alone cannot reach an end state")
	}
	return r
}

// wrongIn returns the violated property; empty if there is none.
func (s shareState) wrongIn() string {
	if s.wrong {
		return "an event is committed before the one before it"
	}
	for _, c := range s.cluster {
		if c.done&^s.ledger != 0 {
			return "an event is acknowledged and not committed"
		}
	}
	return ""
}

// anyone takes the steps that no cluster takes by itself: views change, a cluster dies, or an
// instance shuts down.
const anyone = -1

// steps calls do with every possible step in s, and the cluster that takes it.
func (m Share) steps(s shareState, do func(name string, who int, next shareState)) {
	for i := range clusters {
		cluster := [clusters]string{"east: ", "west: "}[i]
		c := s.cluster[i]
		if c.dead {
			continue
		}
		change := func(who int, name string, by func(*shareState, *shareCluster)) {
			next := s
			by(&next, &next.cluster[i])
			do(cluster+name, who, next)
		}
		change(anyone, "cluster dies", func(_ *shareState, c *shareCluster) { *c = shareCluster{dead: true} })
		for view := range uint8(views) {
			if view != c.view {
				change(anyone, "view changes", func(_ *shareState, c *shareCluster) { c.view = view })
			}
		}
		for e := range maxEvents {
			if !c.done.has(e) {
				m.eventSteps(s, i, e, func(name string, by func(*shareState, *shareCluster)) { change(i, name+event(e), by) })
			}
		}
	}
}

// eventSteps yields the steps of one event in one cluster.
func (m Share) eventSteps(s shareState, i, e int, change func(string, func(*shareState, *shareCluster))) {
	c := s.cluster[i]
	own := int(c.view) == i
	finish := func(_ *shareState, c *shareCluster) { c.done, c.sent = c.done|of(e), c.sent.without(of(e)) }
	if c.sent.has(e) {
		change("function commits, or has lost,", func(s *shareState, c *shareCluster) {
			s.wrong = s.wrong || below(e)&^s.ledger != 0 && !s.ledger.has(e)
			s.ledger |= of(e)
			finish(s, c)
		})
		return
	}
	if s.ledger.has(e) || m.Mutant == TrustFirst && !own {
		change("source finds in the ledger", finish)
	}
	turn := below(e)&^c.done == 0 || m.Mutant == OwnAtOnce && own || m.Mutant == SentIsDone && below(e)&^(c.done|c.sent) == 0
	if turn && (own || m.Mutant != NeverTake) {
		change("source sends", func(_ *shareState, c *shareCluster) { c.sent |= of(e) })
	}
}
