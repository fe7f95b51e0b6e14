package jetstream_test

import (
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
)

// The messages of one call reuse the same headers.
func TestEventsOfOneCallKeepTheirOwnAttributes(t *testing.T) {
	t.Parallel()

	events := newEvents(1, 6)
	events[0].SetSubject("only here")
	events[1].SetType("com.example.other")
	events[1].SetExtension("tenant", "acme")
	events[2].SetExtension("region", "north")
	events[2].SetTime(time.Date(2001, 1, 1, 0, 47, 0, 0, time.UTC))
	events[3].SetExtension("note", "bad \x00") // is rejected
	events[4].SetExtension("tenant", "other")
	conn := connect(t, natstest.Start(t))
	if err := newPublisher(t, conn).Publish(t.Context(), events); err == nil {
		t.Error("an event with a control character is stored")
	}
	var got []event.Event
	for _, m := range pull(t, open(t, conn, "east"), 5) {
		got = append(got, m.Event())
	}
	if diff := cmp.Diff(append(events[:3:3], events[4:]...), got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}
