package source

import (
	"testing"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
)

// A message that arrives before the hedge is known waits for a lookup, which takes a
// ledger.
func TestASourceWithoutALedgerNeverLooksUp(t *testing.T) {
	t.Parallel()

	sender, err := delivery.New("http://function", "http://function/dead-letters", delivery.Config{Function: "flights"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(eventing.StreamList{unopened{}}, sender, nil, Config{Function: "flights"})
	if err != nil {
		t.Fatal(err)
	}
	if hedge := s.table.Hedge(); !hedge.Race() {
		t.Errorf("the hedge is %v before anything is known, want the race", hedge)
	}
}

type unopened struct{ eventing.Stream }

func (unopened) Name() string { return "EVENTS" }
