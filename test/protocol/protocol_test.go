package protocol_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/test/protocol"
)

var long = flag.Bool("long", false, "explore larger models too, which takes minutes and gigabytes")

type namedModel struct {
	name  string
	model protocol.Model
}

func TestNoWayLeadsToAnythingWrong(t *testing.T) {
	t.Parallel()

	models := []namedModel{
		{"two events", protocol.Model{Events: 2}},
		{"a failover that loses commits", protocol.Model{Events: 1, Failover: true}},
		{"a failover and back", protocol.Model{Events: 1, Failover: true, Failback: true, Lone: true}},
		{"a failover that loses commits of two events", protocol.Model{Events: 2, Failover: true, Lone: true}},
		{"an output that is rejected", protocol.Model{Events: 2, Reject: true, Lone: true}},
		{"an output that is rejected, and a failover", protocol.Model{Events: 1, Reject: true, Failover: true}},
		{"a ledger that forgets", protocol.Model{Events: 1, Forget: true}},
		{"a ledger that forgets two events", protocol.Model{Events: 2, Forget: true, Lone: true}},
	}
	if *long {
		models = append(
			models,
			namedModel{"a failover and back of two events", protocol.Model{Events: 2, Failover: true, Failback: true, Lone: true}},
			namedModel{"a failover that loses commits, and a ledger that forgets", protocol.Model{Events: 1, Failover: true, Forget: true}},
			namedModel{"two clusters and a ledger that forgets two events", protocol.Model{Events: 2, Forget: true}},
		)
	}
	for _, tt := range models {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			result := tt.model.Explore()
			t.Log(result)
			if result.Wrong != "" {
				t.Error("something is wrong")
			}
			if result.States < 1000 {
				t.Errorf("%d states: hardly anything can happen", result.States)
			}
		})
	}
}

func TestEveryMutantIsFound(t *testing.T) {
	t.Parallel()

	one, two := protocol.Model{Events: 1}, protocol.Model{Events: 2}
	failover := protocol.Model{Events: 1, Failover: true}
	failoverOfTwo := protocol.Model{Events: 2, Failover: true, Lone: true}
	forget := protocol.Model{Events: 1, Forget: true}
	for _, tt := range []struct {
		mutant protocol.Mutant
		model  protocol.Model
		wrong  string
	}{
		{protocol.EarlyAck, one, "acknowledged and not applied"},
		{protocol.UnknownIsDone, one, "acknowledged and not applied"},
		{protocol.LooseClaim, one, "applied twice"},
		{protocol.ClaimOutside, one, "but not both"},
		{protocol.NoWait, one, "acknowledged and not applied"},
		{protocol.LostTogether, two, "acknowledged and not applied"},
		{protocol.LookUpUncommitted, two, "acknowledged and not applied"},
		{protocol.Unsorted, two, "wait for each other"},
		{protocol.NoTimeout, one, "takes another step"},
		{protocol.AskUncommitted, one, "acknowledged and not applied"},
		{protocol.PublishEarly, one, "output without rows"},
		{protocol.NoOutbox, one, "neither emitted nor in the outbox"},
		{protocol.DeleteFirst, one, "neither emitted nor in the outbox"},
		{protocol.RelayDeletesFirst, one, "neither emitted nor in the outbox"},
		{protocol.AsideAfterDelete, protocol.Model{Events: 1, Reject: true}, "nor set aside"},
		{protocol.NoRelay, one, "no end state is reachable"},
		{protocol.NoRewind, failover, "below the progress"},
		{protocol.TrustFloor, protocol.Model{Events: 1, Failover: true, Failback: true, Lone: true}, "below the progress"},
		{protocol.AdoptFirst, failover, "below the progress"},
		{protocol.AskLost, failover, "below the progress"},
		{protocol.FloorElsewhere, failover, "below the progress"},
		{protocol.FloorAhead, failoverOfTwo, "below the progress"},
		{protocol.KeepRequests, failover, "below the progress"},
		{protocol.RandomIDs, failover, "two identities"},
		{protocol.ReusedRows, failoverOfTwo, "neither emitted nor in the outbox"},
		{protocol.NoHorizon, forget, "applied twice"},
		{protocol.ForemostForgets, forget, "applied twice"},
	} {
		t.Run(string(tt.mutant), func(t *testing.T) {
			t.Parallel()

			tt.model.Mutant = tt.mutant
			result := tt.model.Explore()
			t.Log(result)
			if !strings.Contains(result.Wrong, tt.wrong) {
				t.Errorf("found %q, want %q in it", result.Wrong, tt.wrong)
			}
		})
	}
}
