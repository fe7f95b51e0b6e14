package protocol_test

import (
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/test/protocol"
)

func TestOnlyTheEventThatEndsTheProcessIsDead(t *testing.T) {
	t.Parallel()

	result := protocol.Suspects{}.Explore()
	t.Log(result)
	if result.Wrong != "" {
		t.Error("something is wrong")
	}
	if result.States < 1000 {
		t.Errorf("%d states: hardly anything can happen", result.States)
	}
}

func TestEveryMutantOfSuspectsIsFound(t *testing.T) {
	t.Parallel()

	for mutant, wrong := range map[protocol.Mutant]string{
		protocol.StrikeInBatch:   "the harmless event has a strike",
		protocol.StrikeInDrain:   "the harmless event has a strike",
		protocol.StrikeInCompany: "the harmless event has a strike",
		protocol.NoLease:         "both functions are down by trials",
		protocol.NoStrikes:       "never comes to an end",
	} {
		t.Run(string(mutant), func(t *testing.T) {
			t.Parallel()

			result := protocol.Suspects{Mutant: mutant}.Explore()
			t.Log(result)
			if !strings.Contains(result.Wrong, wrong) {
				t.Errorf("found %q, want %q in it", result.Wrong, wrong)
			}
		})
	}
}
