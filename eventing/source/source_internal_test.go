package source

import (
	"context"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
)

// A message that arrives before the hedge is known waits for a lookup, which needs a
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

// oneEvent is a ledger that has one event.
type oneEvent struct {
	Ledger

	id string
}

func (l oneEvent) Committed(_ context.Context, _ string, events []EventID) ([]bool, error) {
	committed := make([]bool, len(events))
	for i, e := range events {
		committed[i] = e.ID == l.id
	}
	return committed, nil
}

func TestAWitnessIsAnEventThatTheLedgerHas(t *testing.T) {
	t.Parallel()

	now := time.Now()
	s := &Source{sender: &delivery.Sender{}, cfg: Config{Ledger: oneEvent{id: "flight"}, Now: func() time.Time { return now }}}
	s.witnesses.byType = map[string]witness{
		"transfer": {id: EventID{ID: "transfer"}, at: now}, // of another function of the image
		"flight":   {id: EventID{ID: "flight"}, at: now},
	}
	if w, ok := s.findWitness(t.Context()); !ok || w.id.ID != "flight" {
		t.Errorf("the witness is %v, %t; want the one that the ledger has", w.id, ok)
	}
	now = now.Add(witnessAge)
	if w, ok := s.findWitness(t.Context()); ok {
		t.Errorf("the witness is %v, which the ledger may have forgotten", w.id)
	}
}
