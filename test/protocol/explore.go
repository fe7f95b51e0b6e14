package protocol

import (
	"fmt"
	"slices"
	"strings"
)

// Result is what a look at every state has found.
type Result struct {
	// States is how many there are, and Steps how many lead from one to another.
	States, Steps int

	// Wrong says which property does not hold, empty if all do. Way are the
	// steps that lead to where it does not: as few as possible.
	Wrong string
	Way   []string
}

// String gives the numbers, or what is wrong and the way there.
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

// explorer knows the states that were reached so far.
type explorer struct {
	model  Model
	number map[state]int32
	visits []visit

	// The steps, in the order of the states they start from: where they lead and
	// whose they are.
	to  []int32
	who []uint8
	of  []int // from which of them on they are a state's
}

// Explore visits every state. It stops at the first in which something is wrong,
// which none is nearer to the beginning than; that something can never be reached
// is found when all are known.
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
		r.Wrong, r.Way = "from here on it never comes to an end, though no fault happens any more", x.way(at)
		return r
	}
	for c := range clusters {
		if m.Lone {
			break
		}
		if at := x.stuck(m.handled, func(who uint8) bool { return int(who) == c || who == server }); at >= 0 {
			r.Wrong, r.Way = "from here on something is not handled, unless "+[clusters]string{"west", "east"}[c]+" takes another step", x.way(at)
			return r
		}
	}
	return r
}

// reach gives a state's number, a new one if nobody has been there.
func (x *explorer) reach(s state, before int32, name string) int32 {
	n, known := x.number[s]
	if !known {
		n = int32(len(x.visits))
		x.number[s] = n
		x.visits = append(x.visits, visit{state: s, before: before, name: name})
	}
	return n
}

// way gives the steps to a state.
func (x *explorer) way(at int32) []string {
	var names []string
	for ; x.visits[at].before >= 0; at = x.visits[at].before {
		names = append(names, x.visits[at].name)
	}
	slices.Reverse(names)
	return names
}

// stuck gives a state, the nearest to the beginning, from which none that is a
// goal can be reached by the steps that may be taken; -1 if there is none.
func (x *explorer) stuck(goal func(*state) bool, may func(uint8) bool) int32 {
	// The steps backwards, those to a state side by side.
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
