package protocol

import "slices"

// graph holds the reachable states of a small model, and the steps between them.
type graph[S comparable] struct {
	states []S
	before []int    // the state from which each was reached first
	names  []string // of the step that led there
	edges  []edge
}

type edge struct{ from, to, who int }

// explore visits every state that can be reached from the zero value by steps. steps calls do
// with the name of each step, its process, and its target. explore stops at the first state
// that is wrong, and returns the reason and the path.
func explore[S comparable](wrong func(S) string, steps func(s S, do func(name string, who int, next S))) (*graph[S], Result) {
	var start S
	g := &graph[S]{states: []S{start}, before: []int{-1}, names: []string{""}}
	number := map[S]int{start: 0}
	for at := 0; at < len(g.states); at++ {
		if wrong := wrong(g.states[at]); wrong != "" {
			return g, g.result(wrong, at)
		}
		steps(g.states[at], func(name string, who int, next S) {
			n, known := number[next]
			if !known {
				n = len(g.states)
				number[next] = n
				g.states, g.before, g.names = append(g.states, next), append(g.before, at), append(g.names, name)
			}
			g.edges = append(g.edges, edge{at, n, who})
		})
	}
	return g, g.result("", 0)
}

// result returns the result for a state; the zero Result if wrong is empty.
func (g *graph[S]) result(wrong string, at int) Result {
	r := Result{States: len(g.states), Steps: len(g.edges), Wrong: wrong}
	for ; wrong != "" && g.before[at] >= 0; at = g.before[at] {
		r.Way = append(r.Way, g.names[at])
	}
	slices.Reverse(r.Way)
	return r
}

// mustEnd returns a failed result if there is a state from which no end state can be
// reached by the permitted steps.
func (g *graph[S]) mustEnd(end func(S) bool, may func(who int) bool, wrong string) Result {
	ends := make([]bool, len(g.states))
	for at, s := range g.states {
		ends[at] = end(s)
	}
	for changed := true; changed; {
		changed = false
		for _, e := range slices.Backward(g.edges) {
			if may(e.who) && ends[e.to] && !ends[e.from] {
				ends[e.from], changed = true, true
			}
		}
	}
	if at := slices.Index(ends, false); at >= 0 {
		return g.result(wrong, at)
	}
	return g.result("", 0)
}
