package clusters_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions/chat"
	"github.com/tandem-fn/tandem/functions/flights"
)

// Each of the functions refuses the events of the other one. Without a filter a
// source would turn them into dead letters, which finish detects.
func TestTwoFunctionsShareOneStream(t *testing.T) {
	t.Parallel()
	const posts = 1000
	flight := []string{"TANDEM_TYPES=" + flights.Departed, "TANDEM_FUNCTIONS=flights"}
	// West asks its functions for their types.
	w := newWorldWith(t, 1500, flight, append(flight[1:], "TANDEM_HEDGE=500ms"))
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for name, hedge := range map[string]string{"east-chat": "0", "west-chat": "500ms"} {
		types := "TANDEM_TYPES=com.example.chat.*"
		if name == "west-chat" {
			types = "TANDEM_TYPES="
		}
		if _, err := w.StartCluster(devcluster.ClusterConfig{
			Name: name, Function: "chat",
			Env: []string{types, "TANDEM_FUNCTIONS=chat", "TANDEM_OUTPUT_STREAM=CHAT", "TANDEM_HEDGE=" + hedge},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WaitUntilReady(ctx); err != nil {
		t.Fatal(err)
	}

	publisher, err := jetstream.NewPublisher(w.Conn, jetstream.StreamConfig{Name: inputStream})
	if err != nil {
		t.Fatal(err)
	}
	for i := range posts {
		e := event.New()
		e.SetID(fmt.Sprintf("post-%06d", i))
		e.SetSource("/test/chat")
		e.SetType(chat.Posted)
		e.SetTime(time.Date(2026, 11, 21, 0, 0, i, 0, time.UTC))
		if err := e.SetData(event.ApplicationJSON, map[string]any{"room": fmt.Sprintf("room %d", i%50), "author": "ann", "text": "hello"}); err != nil {
			t.Fatal(err)
		}
		publish(t, publisher, e)
	}

	w.finish(t, w.Clusters()[0])

	// A message that looks like an event and cannot be read has no type.
	unreadable := &nats.Msg{Subject: "events.com.example.other", Header: nats.Header{
		"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/test"}, "ce-type": {"com.example.other"}, "ce-time": {"2026-11-21T00:00Z"},
	}}
	if _, err := w.NC.RequestMsg(unreadable, time.Minute); err != nil {
		t.Fatal(err)
	}
	js, err := natsjs.New(w.NC)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range w.Clusters() {
		w.poll(t, c.Name()+" is not through", func(ctx context.Context) bool { return through(ctx, js, c) })
		if filtered, _ := metric(t, c.MetricsURL(), "tandem_source_filtered_total"); filtered == 0 {
			t.Errorf("%s filtered nothing", c.Name())
		}
	}
	var stored, handled int
	if err := w.Pool.QueryRow(t.Context(), `select (select count(*) from chat_messages), (select count(*) from tandem.ledger)`).Scan(&stored, &handled); err != nil {
		t.Fatal(err)
	}
	// Flights and posts: no row for a filtered event.
	if want := int(w.supply.total()) + posts; stored != posts || handled != want {
		t.Errorf("%d messages are stored and %d events in the ledger, want %d and %d", stored, handled, posts, want)
	}
	var letters int
	if err := w.Pool.QueryRow(t.Context(), `select count(*) from tandem.dead_letter`).Scan(&letters); err != nil || letters != 4 {
		t.Errorf("%d dead letters, %v, want one of each source", letters, err)
	}
	if err := w.Pool.QueryRow(t.Context(), `select count(*) from tandem.verdict where verdict = 'poison' and code = 400 and
		reason like 'the message is not a valid CloudEvent: time "2026-11-21T00:00Z"%(id "1", source "/test", type "com.example.other")%'`).Scan(&letters); err != nil || letters != 2 {
		t.Errorf("%d dead letters have the reason, %v, want one of each function", letters, err)
	}
}
