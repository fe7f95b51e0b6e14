package jetstream_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// TestTheStreamsOfTheDocuments makes every stream that docs/streams.md has.
func TestTheStreamsOfTheDocuments(t *testing.T) {
	t.Parallel()

	page, err := os.ReadFile("../../docs/streams.md")
	if err != nil {
		t.Fatal(err)
	}
	east, west, _ := natstest.StartDomains(t, "east", "west")
	// What the page says is in east; the mirror's origin is in west.
	publisher, err := jetstream.NewPublisher(connect(t, west), jetstream.StreamConfig{Name: "WEST"})
	if err != nil {
		t.Fatal(err)
	}
	publishWith(t, publisher, newEvents(1, 3)...)
	js := native(t, east)
	made := map[string]natsjs.StreamConfig{}
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(page, -1) {
		var cfg natsjs.StreamConfig
		if err := json.Unmarshal(block[1], &cfg); err != nil {
			t.Fatalf("%s: %v", block[1], err)
		}
		if cfg.Replicas != 3 {
			t.Errorf("stream %s has %d replicas", cfg.Name, cfg.Replicas)
		}
		cfg.Replicas = 1 // there is one server here
		stream, err := js.CreateStream(t.Context(), cfg)
		if err != nil {
			t.Fatalf("make stream %s: %v", cfg.Name, err)
		}
		made[cfg.Name] = stream.CachedInfo().Config
	}
	if len(made) != 4 {
		t.Fatalf("made %d streams, want 4", len(made))
	}
	for name, cfg := range made {
		if cfg.Mirror != nil {
			pull(t, openStream(t, connect(t, east), "east", name), 3)
			continue
		}
		publisher, err := jetstream.NewPublisher(connect(t, east), jetstream.StreamConfig{Name: name, LeastWindow: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		publishWith(t, publisher, newEvents(1, 2)...)
		publishWith(t, publisher, newEvents(1, 2)...) // repeats
		pull(t, openStream(t, connect(t, east), "east", name), 2)
	}
}

func TestAWorkQueueIsNoStreamForTwoClusters(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	js := native(t, server)
	if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Retention: natsjs.WorkQueuePolicy}); err != nil {
		t.Fatal(err)
	}
	openStream(t, connect(t, server), "east", "EVENTS")
	stream, err := jetstream.NewStream(connect(t, server), "west", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Open(t.Context(), eventing.OpenConfig{})
	wantError(t, err, "workqueue stream")
}

func TestAStreamOfInterestForgetsWhatNobodyReadsYet(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	js := native(t, server)
	stream, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Retention: natsjs.InterestPolicy})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, connect(t, server), newEvents(1, 3)...)
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.Msgs != 0 {
		t.Errorf("it has %d messages: docs/streams.md says otherwise", info.State.Msgs)
	}
}

func TestTwoDomainsWithTheSameSubjectsBothStoreEverything(t *testing.T) {
	t.Parallel()

	first, second, _ := natstest.StartDomains(t, "east", "west")
	servers := []*natstest.Server{first, second}
	for _, s := range servers {
		if err := connect(t, s).EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
			t.Fatal(err)
		}
	}
	js := native(t, first)
	n := 0
	eventually(t, "interest has crossed the link", func() bool {
		n++
		if _, err := js.Publish(t.Context(), "events.x", nil, natsjs.WithMsgID(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
		stream, err := native(t, second).Stream(t.Context(), "EVENTS")
		return err == nil && stream.CachedInfo().State.Msgs > 0
	})
	// So a source that is to read both, as one would mirror them, refuses.
	mirror := natsjs.StreamConfig{Name: "EVENTS-WEST", Mirror: &natsjs.StreamSource{Name: "EVENTS", Domain: "west"}}
	if _, err := js.CreateStream(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, first)
	openStream(t, conn, "east", "EVENTS")
	stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS-WEST"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Open(t.Context(), eventing.OpenConfig{})
	if err == nil || !strings.Contains(err.Error(), "streams EVENTS and EVENTS-WEST are both EVENTS") {
		t.Errorf("error %v", err)
	}
}
