package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

func TestProgressAndRelayAreThoseOfTheDatabase(t *testing.T) {
	t.Parallel()

	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	db, err := openDatabase(t.Context(), url, "east", "flights", "flights", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.close)
	saved, ok, err := db.progress.Save(t.Context(), "flights", "EVENTS", ledger.CheckpointUpdate{Epoch: "epoch", Floor: 7, Head: 9, Hedge: "0"}, ledger.Checkpoint{})
	if err != nil || !ok {
		t.Errorf("Save: %t, %v", ok, err)
	}
	if stored, timeline, err := db.progress.Load(t.Context(), "flights", "EVENTS"); err != nil || stored != saved || timeline != saved.Timeline {
		t.Errorf("Load: %+v on timeline %q, %v; saved %+v", stored, timeline, err, saved)
	}
	n, _, err := db.relay.Relay(t.Context(), func(context.Context, []event.Event) error {
		t.Error("something to publish in an empty outbox")
		return nil
	})
	if n != 0 || err != nil {
		t.Errorf("Relay: %d, %v", n, err)
	}
}

func TestAnAnswerOfTheLedgerIsBelievedOnlyFromWhereTheDatabaseIs(t *testing.T) {
	t.Parallel()

	now := &timeline{}
	for _, step := range []struct {
		met, adopted, answer string
		believed             bool
	}{
		{"", "", "7/00000001", true}, // no other timeline is known
		{"7/00000001", "", "7/00000001", true},
		{"7/00000001", "", "7/00000002", true}, // promoted since
		{"7/00000002", "", "7/00000001", false},
		{"7/00000001", "", "7/00000001", false}, // over a connection to the old primary
		{"", "7/00000001", "7/00000001", true},  // the old primary has taken over again
		{"7/00000002", "", "7/00000001", true},
		{"", "", "7/00000002", false}, // over a connection to the primary in between
		{"", "7/00000001", "7/00000002", false},
		{"", "7/00000003", "7/00000003", true},
		{"", "", "7/00000004", true},
		{"8/00000001", "", "7/00000002", false},
		{"started/5", "", "started/5", true},
		{"started/4", "", "started/5", false},
	} {
		if step.met != "" {
			now.met(step.met)
		}
		if step.adopted != "" {
			now.adopted(step.adopted)
		}
		if err := now.check(step.answer); (err == nil) != step.believed {
			t.Errorf("met %q, adopted %q, answer on %s: %v", step.met, step.adopted, step.answer, err)
		}
	}
}

func TestAWrongDatabaseURLIsNotShown(t *testing.T) {
	t.Parallel()

	_, err := openDatabase(t.Context(), "postgres://user:secret@x:port/name", "east", "flights", "flights", time.Hour)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("error %v", err)
	}
}
