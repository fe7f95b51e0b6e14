package protocol_test

import (
	"testing"

	"github.com/tandem-fn/tandem/test/protocol"
)

func TestADeferredEventIsAppliedOnceHoweverLate(t *testing.T) {
	t.Parallel()
	holds(t, protocol.Deferred{}.Explore(), 100)
}

func TestEveryMutantOfDeferredIsFound(t *testing.T) {
	t.Parallel()
	found(t, func(m protocol.Mutant) protocol.Result { return protocol.Deferred{Mutant: m}.Explore() }, map[protocol.Mutant]string{
		protocol.AckBeforeStored: "neither committed nor deferred",
		protocol.ForgetDeferred:  "applied twice",
		protocol.DeferForgotten:  "applied twice",
		protocol.SweepFirst:      "applied twice",
		protocol.EndBeforeRun:    "neither committed nor deferred",
	})
}
