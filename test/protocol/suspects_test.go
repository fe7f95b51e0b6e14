package protocol_test

import (
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/test/protocol"
)

func TestOnlyTheEventThatEndsTheProcessIsDead(t *testing.T) {
	t.Parallel()
	holds(t, protocol.Suspects{}.Explore(), 1000)
}

func TestEveryMutantOfSuspectsIsFound(t *testing.T) {
	t.Parallel()
	found(t, func(m protocol.Mutant) protocol.Result { return protocol.Suspects{Mutant: m}.Explore() }, map[protocol.Mutant]string{
		protocol.StrikeInBatch:   "the harmless event has a strike",
		protocol.StrikeInDrain:   "the harmless event has a strike",
		protocol.StrikeInCompany: "the harmless event has a strike",
		protocol.NoLease:         "both functions are down by trials",
		protocol.NoStrikes:       "no end state is reachable",
	})
}

// holds checks that a model satisfies all properties, and has at least that many
// states.
func holds(t *testing.T, result protocol.Result, states int) {
	t.Helper()
	t.Log(result)
	if result.Wrong != "" {
		t.Error("something is wrong")
	}
	if result.States < states {
		t.Errorf("%d states: hardly anything can happen", result.States)
	}
}

// found checks that each mutant is detected, by the violated property.
func found(t *testing.T, explore func(protocol.Mutant) protocol.Result, mutants map[protocol.Mutant]string) {
	t.Helper()
	for mutant, wrong := range mutants {
		t.Run(string(mutant), func(t *testing.T) {
			t.Parallel()

			result := explore(mutant)
			t.Log(result)
			if !strings.Contains(result.Wrong, wrong) {
				t.Errorf("found %q, want %q in it", result.Wrong, wrong)
			}
		})
	}
}
