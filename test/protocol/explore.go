package protocol

import (
	"fmt"
	"slices"
	"strings"
)

// Result is the result of an exploration.
type Result struct {
	// States is the number of states, and Steps the number of transitions between
	// them.
	States, Steps int

	// Wrong is the violated property, empty if all hold. Way is a shortest path
	// to the state in which it is violated.
	Wrong string
	Way   []string
}

// String returns the numbers, or the violated property with the path to it.
func (r Result) String() string {
	if r.Wrong == "" {
		return fmt.Sprintf("%d states, %d steps: everything holds", r.States, r.Steps)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, after %d steps:", r.Wrong, len(r.Way))
	for i, name := range r.Way {
		fmt.Fprintf(&b, "\n%4d. %s", i+1, name)
	}
	return b.String()
}

// visit is a state and how it was reached.
type visit struct {
	state  state
	before int32
	name   string // of the step
}

// explorer holds the states that were reached so far.
type explorer struct {
	model  Model
	number map[state]int32
	visits []visit

	// The steps, sorted by their start states: their target and their process.
	to  []int32
	who []uint8
	of  []int // index of the first step of each state
}

// Explore visits every state. It stops at the first state that violates a
// property, which is at the minimum distance from the start. States from which an
// end state is unreachable are found after all states are known.
func (m Model) Explore() Result {
	x := &explorer{model: m, number: map[state]int32{}}
	x.reach(state{}, -1, "")
	for at := int32(0); int(at) < len(x.visits); at++ {
		s := x.visits[at].state
		if wrong := m.wrong(&s); wrong != "" {
			return Result{States: len(x.visits), Steps: len(x.to), Wrong: wrong, Way: x.way(at)}
		}
		x.of = append(x.of, len(x.to))
		m.steps(&s, func(next step) {
			x.to = append(x.to, x.reach(next.next, at, next.name))
			x.who = append(x.who, uint8(next.who))
		})
	}
	x.of = append(x.of, len(x.to))
	r := Result{States: len(x.visits), Steps: len(x.to)}
	if at := x.stuck(m.finished, func(who uint8) bool { return who != fault }); at >= 0 {
		r.Wrong, r.Way = "from here no end state is reachable, although no further fault happens", x.way(at)
		return r
	}
	for c := range clusters {
		if m.Lone {
			break
		}
		if at := x.stuck(m.handled, func(who uint8) bool { return int(who) == c || who == server }); at >= 0 {
			r.Wrong, r.Way = "from here something is never handled, unless "+[clusters]string{"west", "east"}[c]+" takes another step", x.way(at)
			return r
		}
	}
	return r
}

// reach returns a state's number, and adds the state if it is new.
func (x *explorer) reach(s state, before int32, name string) int32 {
	n, known := x.number[s]
	if !known {
		n = int32(len(x.visits))
		x.number[s] = n
		x.visits = append(x.visits, visit{state: s, before: before, name: name})
	}
	return n
}

// way returns the steps to a state.
func (x *explorer) way(at int32) []string {
	var names []string
	for ; x.visits[at].before >= 0; at = x.visits[at].before {
		names = append(names, x.visits[at].name)
	}
	slices.Reverse(names)
	return names
}

// stuck returns the state closest to the start from which no goal can be
// reached by the permitted steps; -1 if there is none.
func (x *explorer) stuck(goal func(*state) bool, may func(uint8) bool) int32 {
	// The reversed steps, grouped by target.
	first := make([]int32, len(x.visits)+1)
	for i, to := range x.to {
		if may(x.who[i]) {
			first[to+1]++
		}
	}
	for i := range x.visits {
		first[i+1] += first[i]
	}
	from := make([]int32, first[len(x.visits)])
	fill := slices.Clone(first)
	for at := range x.visits {
		for i := x.of[at]; i < x.of[at+1]; i++ {
			if may(x.who[i]) {
				from[fill[x.to[i]]] = int32(at)
				fill[x.to[i]]++
			}
		}
	}

	reached := make([]bool, len(x.visits))
	var next []int32
	for at := range x.visits {
		if goal(&x.visits[at].state) {
			reached[at] = true
			next = append(next, int32(at))
		}
	}
	for len(next) > 0 {
		at := next[len(next)-1]
		next = next[:len(next)-1]
		for _, before := range from[first[at]:first[at+1]] {
			if !reached[before] {
				reached[before] = true
				next = append(next, before)
			}
		}
	}
	for at, ok := range reached {
		if !ok {
			return int32(at)
		}
	}
	return -1
}
