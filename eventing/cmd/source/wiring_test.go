package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/test/pgtest"
)

func TestProgressAndRelayAreThoseOfTheDatabase(t *testing.T) {
	t.Parallel()

	url := pgtest.URL(t)
	if err := sinkwriter.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	db, err := openDatabase(t.Context(), url, "east", "flights", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.close)
	if err := db.progress.Save(t.Context(), "flights", "EVENTS", "epoch", 7, 9, "0"); err != nil {
		t.Errorf("Save: %v", err)
	}
	n, err := db.relay.Relay(t.Context(), func(context.Context, []event.Event) error {
		t.Error("something to publish in an empty outbox")
		return nil
	})
	if n != 0 || err != nil {
		t.Errorf("Relay: %d, %v", n, err)
	}
}

func TestAWrongDatabaseURLIsNotShown(t *testing.T) {
	t.Parallel()

	_, err := openDatabase(t.Context(), "postgres://user:secret@x:port/name", "east", "flights", time.Hour)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("error %v", err)
	}
}
