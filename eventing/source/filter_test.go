package source_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

func TestOnlyTheTypesThatAreWantedAreDelivered(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		types []string
		hedge time.Duration
		want  string
	}{
		{name: "all", want: "com.example.made com.example.made.again com.other " + eventing.MessageType},
		{name: "one", types: []string{"com.example.made"}, want: "com.example.made"},
		{name: "prefix", types: []string{"com.example.*", "nothing"}, want: "com.example.made com.example.made.again"},
		{name: "hedge", types: []string{"com.other"}, hedge: 50 * time.Millisecond, want: "com.other"},
		{name: "no CloudEvents", types: []string{eventing.MessageType}, want: eventing.MessageType},
		{name: "none", types: []string{"nothing"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			conn := eventtest.Connect(t, server, nil)
			publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "EVENTS"})
			if err != nil {
				t.Fatal(err)
			}
			for _, eventType := range []string{"com.example.made", "com.example.made.again", "com.other"} {
				e := eventtest.NewEvent(eventType)
				e.SetType(eventType)
				eventtest.Eventually(t, "it is stored", func() bool { return publisher.Publish(t.Context(), []event.Event{e}) == nil })
			}
			if _, err := natstest.JetStream(t, server.URL()).Publish(t.Context(), "events.foreign", []byte("no CloudEvent")); err != nil {
				t.Fatal(err)
			}

			f, l, p := newFunction(t), &testLedger{}, &progress{}
			var mu sync.Mutex
			var got []string
			f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, e.Type())
				return http.StatusNoContent
			})
			hedging(t, server, f, p, source.Config{Types: tt.types, Hedge: eventing.Hedge{Delay: tt.hedge}, Ledger: l})
			eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 5 })
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(got)
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("delivered %q, want %q", got, tt.want)
			}
			want := 0
			if tt.hedge > 0 {
				want = len(strings.Fields(tt.want))
			}
			if _, largest := l.asked(); largest != want {
				t.Errorf("the ledger was asked about %d events, want %d", largest, want)
			}
		})
	}
}
