package jetstream_test

import (
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestAStreamTakesTheTypesOfItsSubjectsUntilTheyAreFull(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	js := native(t, server)
	subjects := []string{"events.full", "events.a.*", "events.b.>"}
	limited := natsjs.StreamConfig{Name: "EVENTS", Subjects: subjects, Discard: natsjs.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1}
	if _, err := js.CreateStream(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "events.full", nil); err != nil {
		t.Fatal(err)
	}
	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	takes := func(want map[string]bool) {
		for eventType, want := range want {
			if got, err := publisher.TakesType(t.Context(), eventType); err != nil || got != want {
				t.Errorf("type %s: %t, error %v, want %t", eventType, got, err, want)
			}
		}
	}
	takes(map[string]bool{"full": false, "a": false, "a.b": true, "a.b.c": false, "b": false, "b.c.d.e": true, "c": false})
	limited.DiscardNewPerSubject = false // the oldest message is dropped
	if _, err := js.UpdateStream(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	takes(map[string]bool{"full": true, "c": false})
	if err := js.DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.TakesType(t.Context(), "full"); err == nil {
		t.Error("no error without a stream")
	}
}
