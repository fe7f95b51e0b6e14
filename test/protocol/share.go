package protocol

// Share is a model of clusters that share the events: which of them goes first with an
// event, and when the other one takes it. Two events have one subject and are committed in
// their order. Each cluster has a view of the members, and any view at any time: views may
// differ, or have a cluster that has died. Which member of a view goes first with an event
// is any fixed rule; here both events have the same one, as those of a subject do.
//
// In no state is an event committed before the one before it, or acknowledged without being
// committed. From every state both events are committed and acknowledged by each cluster
// that lives, whatever the views are from then on; so they are if one cluster alone takes
// another step.
//
// Time is left out: that the other one waits for the delay, and for idle capacity, is a step
// that may come at any moment.
type Share struct {
	// Mutant is the rule that is broken.
	Mutant Mutant
}

// The mutants of [Share].
const (
	// NeverTake leaves what another cluster goes first with to it for ever.
	NeverTake Mutant = "never-take"
	// TrustFirst acknowledges it without a look into the ledger.
	TrustFirst Mutant = "trust-first"
	// OwnAtOnce delivers an event that this cluster goes first with, whatever became of the
	// one before it, as when that was another cluster's.
	OwnAtOnce Mutant = "own-at-once"
	// SentIsDone lets the next event of a subject go when the one before it was sent.
	SentIsDone Mutant = "sent-is-done"
)

// The views: who goes first with the events, as a cluster sees it.
const (
	eastFirst = iota
	westFirst
	views
)

// shareState is all there is to know at a moment.
type shareState struct {
	ledger  set
	wrong   bool // the order
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
			"from here on a cluster never comes to an end by itself")
	}
	return r
}

// wrongIn returns what must never be, and is; empty if nothing.
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

// steps calls do with everything that can happen in s, and the cluster that does it.
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

// eventSteps are the steps of one event in one cluster.
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
