package protocol_test

import (
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/test/protocol"
)

func TestClustersThatShareHandleEverythingInOrder(t *testing.T) {
	t.Parallel()

	result := protocol.Share{}.Explore()
	t.Log(result)
	if result.Wrong != "" {
		t.Error("something is wrong")
	}
	if result.States < 100 {
		t.Errorf("%d states: hardly anything can happen", result.States)
	}
}

func TestEveryMutantOfShareIsFound(t *testing.T) {
	t.Parallel()

	for mutant, wrong := range map[protocol.Mutant]string{
		protocol.NeverTake:  "never comes to an end by itself",
		protocol.TrustFirst: "acknowledged and not committed",
		protocol.OwnAtOnce:  "before the one before it",
		protocol.SentIsDone: "before the one before it",
	} {
		t.Run(string(mutant), func(t *testing.T) {
			t.Parallel()

			result := protocol.Share{Mutant: mutant}.Explore()
			t.Log(result)
			if !strings.Contains(result.Wrong, wrong) {
				t.Errorf("found %q, want %q in it", result.Wrong, wrong)
			}
		})
	}
}
