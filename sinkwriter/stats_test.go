package sinkwriter_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

func TestEveryOfferIsCountedForItsFunction(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	var log bytes.Buffer
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	west := sinktest.NewWriter(t, pool, sinkwriter.Config{
		Cluster: "west", Logger: slog.New(slog.NewJSONHandler(&log, nil)),
		ClaimTimeout: 10 * time.Second, // long enough that a busy machine causes no retry
	})

	if _, err := east.Commit(t.Context(), sinktest.Order("o-1", 1)); err != nil {
		t.Fatal(err)
	}
	newer, invoice, negative, nameless := sinktest.Order("o-1", 3), sinktest.Order("o-1", 1), sinktest.Order("o-2", -1), sinktest.Order("o-3", 1)
	newer.Version, invoice.Function = "2", "invoices"
	negative.Effects.Emit(functions.Output{Type: "com.example.more"})
	nameless.Effects.Emit(functions.Output{})
	lacking := sinktest.Order("o-4", 1)
	lacking.Effects.Insert("no_such_table", functions.Row{"id": 1})
	// One after the other, except for two offers of one event.
	for _, offers := range [][]sinkwriter.Offer{
		{sinktest.Order("o-1", 1)},
		{sinktest.Order("o-1", 2)},
		{newer},
		{invoice},
		{sinktest.Order("o-5", 1), sinktest.Order("o-5", 1)},
		{negative, negative},
		{nameless},
		{lacking},
	} {
		west.CommitAll(t.Context(), offers)
	}
	want := map[string]sinkwriter.FunctionStats{
		"orders": {
			Won: 1, Lost: 4, Diverged: 1, OtherVersion: 1,
			Refused: map[sinkwriter.Fault]int64{sinkwriter.FaultEvent: 2, sinkwriter.FaultFunction: 1, sinkwriter.FaultDeployment: 1},
		},
		"invoices": {Won: 1, Refused: map[sinkwriter.Fault]int64{}},
	}
	if diff := cmp.Diff(want, west.FunctionStats()); diff != "" {
		t.Errorf("by function (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(sinkwriter.Stats{Won: 2, Lost: 4, Diverged: 1, OtherVersion: 1, Refused: 4, Batches: 2}, west.Stats()); diff != "" {
		t.Errorf("in all (-want +got):\n%s", diff)
	}

	// The log line must name the place to look at.
	var said map[string]any
	for _, line := range bytes.Split(bytes.TrimSpace(log.Bytes()), []byte("\n")) {
		var entry map[string]any
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if entry["level"] == "ERROR" {
			said = entry
		}
	}
	delete(said, "time")
	if diff := cmp.Diff(map[string]any{
		"level": "ERROR", "msg": "divergence: the function's effects differ from the winner's, although the version is the same: the function is not deterministic, or two events share a source and id",
		"lost_cluster": "west", "won_cluster": "east", "function": "orders", "version": "1", "event_source": "/test", "event_id": "o-1",
	}, said); diff != "" {
		t.Errorf("logged (-want +got):\n%s", diff)
	}

	outbox := sinkwriter.NewOutbox(pool)
	if n, err := outbox.Bytes(t.Context()); n < 100 || err != nil {
		t.Errorf("the outbox has %d bytes, %v", n, err)
	}
}
