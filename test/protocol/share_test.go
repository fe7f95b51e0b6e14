package protocol_test

import (
	"testing"

	"github.com/tandem-fn/tandem/test/protocol"
)

func TestClustersThatShareHandleEverythingInOrder(t *testing.T) {
	t.Parallel()
	holds(t, protocol.Share{}.Explore(), 100)
}

func TestEveryMutantOfShareIsFound(t *testing.T) {
	t.Parallel()
	found(t, func(m protocol.Mutant) protocol.Result { return protocol.Share{Mutant: m}.Explore() }, map[protocol.Mutant]string{
		protocol.NeverTake:  "cannot reach an end state",
		protocol.TrustFirst: "acknowledged and not committed",
		protocol.OwnAtOnce:  "before the one before it",
		protocol.SentIsDone: "before the one before it",
	})
}
