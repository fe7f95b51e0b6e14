package jetstream_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// TestTheStreamsOfTheDocuments creates every stream of docs/streams.md.
func TestTheStreamsOfTheDocuments(t *testing.T) {
	t.Parallel()

	page, err := os.ReadFile("../../docs/streams.md")
	if err != nil {
		t.Fatal(err)
	}
	east, west, _ := natstest.StartDomains(t, "east", "west")
	// The page describes the east; the mirror's origin is in the west.
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
		cfg.Replicas = 1 // there is only one server here
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
		publishWith(t, publisher, newEvents(1, 2)...) // duplicates
		pull(t, openStream(t, connect(t, east), "east", name), 2)
	}
}

func TestAStreamWhoseSettingsLoseEventsIsRefusedOrARisk(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	js := native(t, server)
	create := func(cfg natsjs.StreamConfig) {
		t.Helper()
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatalf("create stream %s: %v", cfg.Name, err)
		}
	}
	create(natsjs.StreamConfig{Name: "ORIGIN", Subjects: []string{"origin.>"}})
	create(natsjs.StreamConfig{Name: "ASYNC-ORIGIN", Subjects: []string{"async-origin.>"}, PersistMode: natsjs.AsyncPersistMode})
	create(natsjs.StreamConfig{Name: "SMALL-ORIGIN", Subjects: []string{"small-origin.>"}, MaxMsgs: 7})
	for _, tt := range []struct {
		name          string
		cfg           natsjs.StreamConfig
		refused, risk string
	}{
		{name: "LIMITS", cfg: natsjs.StreamConfig{MaxAge: 24 * time.Hour}},
		{name: "NEW", cfg: natsjs.StreamConfig{Discard: natsjs.DiscardNew, MaxMsgs: 10, MaxBytes: 1 << 20, MaxMsgsPerSubject: 5, DiscardNewPerSubject: true}},
		{name: "MIRROR", cfg: natsjs.StreamConfig{Mirror: &natsjs.StreamSource{Name: "ORIGIN"}}},
		{name: "QUEUE", cfg: natsjs.StreamConfig{Retention: natsjs.WorkQueuePolicy}, refused: "stream QUEUE has retention workqueue"},
		{name: "ASYNC", cfg: natsjs.StreamConfig{PersistMode: natsjs.AsyncPersistMode}, refused: "stream ASYNC has persist_mode async"},
		{name: "ASYNC-MIRROR", cfg: natsjs.StreamConfig{Mirror: &natsjs.StreamSource{Name: "ASYNC-ORIGIN"}}, refused: "stream ASYNC-ORIGIN has persist_mode async"},
		{
			name: "TRANSFORM", cfg: natsjs.StreamConfig{Mirror: &natsjs.StreamSource{
				Name: "ORIGIN", SubjectTransforms: []natsjs.SubjectTransformConfig{{Source: "origin.>", Destination: "other.>"}},
			}}, refused: "stream TRANSFORM is a mirror that changes subjects",
		},
		{name: "TRANSFORM-MIRROR", cfg: natsjs.StreamConfig{Mirror: &natsjs.StreamSource{Name: "TRANSFORM"}}, refused: "stream TRANSFORM is a mirror that changes subjects"},
		{name: "MSGS", cfg: natsjs.StreamConfig{MaxMsgs: 10}, risk: "stream MSGS can lose events: max_msgs 10 with discard old"},
		{name: "BYTES", cfg: natsjs.StreamConfig{MaxBytes: 1 << 20}, risk: "max_bytes 1048576 with discard old"},
		{name: "SUBJECTS", cfg: natsjs.StreamConfig{MaxMsgsPerSubject: 1}, risk: "max_msgs_per_subject 1 with discard old"},
		{name: "AGE", cfg: natsjs.StreamConfig{MaxAge: time.Minute, Discard: natsjs.DiscardNew}, risk: "max_age 1m0s is shorter than an outage"},
		{name: "INTEREST", cfg: natsjs.StreamConfig{Retention: natsjs.InterestPolicy}, risk: "retention interest"},
		{name: "FILTER", cfg: natsjs.StreamConfig{Mirror: &natsjs.StreamSource{Name: "ORIGIN", FilterSubject: "origin.x"}}, risk: "the mirror has only subject origin.x"},
		{name: "SMALL-MIRROR", cfg: natsjs.StreamConfig{Mirror: &natsjs.StreamSource{Name: "SMALL-ORIGIN"}}, risk: "stream SMALL-ORIGIN, the origin of SMALL-MIRROR can lose events: max_msgs 7"},
	} {
		tt.cfg.Name = tt.name
		if tt.cfg.Mirror == nil {
			tt.cfg.Subjects = []string{strings.ToLower(tt.name) + ".>"}
		}
		create(tt.cfg)
		stream, err := jetstream.NewStream(connect(t, server), "east", "flights", jetstream.StreamConfig{Name: tt.name})
		if err != nil {
			t.Fatal(err)
		}
		reader, err := stream.Open(t.Context(), eventing.OpenConfig{})
		if tt.refused != "" {
			wantError(t, err, tt.refused)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		risk := riskOf(reader)
		if tt.risk == "" {
			if risk != nil {
				t.Errorf("%s: %v", tt.name, risk)
			}
			continue
		}
		wantError(t, risk, tt.risk)
		if strings.Contains(risk.Error(), "\n") {
			t.Errorf("%q: want one line", risk)
		}
	}
}

func riskOf(reader eventing.Reader) error {
	return reader.(interface{ Risk() error }).Risk()
}

func TestARiskIsOverWhenTheStreamIsMended(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	js := native(t, server)
	cfg := natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, MaxMsgs: 10}
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	reader := open(t, connect(t, server), "east")
	wantError(t, riskOf(reader), "max_msgs 10")
	cfg.Discard = natsjs.DiscardNew
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "there is no risk any more", func() bool {
		if _, err := reader.Position(t.Context()); err != nil {
			t.Fatal(err)
		}
		return riskOf(reader) == nil
	})
}

func TestAConsumerThatSomebodyElseCreatedMissesNothing(t *testing.T) {
	t.Parallel()

	for _, policy := range []natsjs.DeliverPolicy{natsjs.DeliverNewPolicy, natsjs.DeliverLastPolicy, natsjs.DeliverAllPolicy} {
		server := natstest.Start(t)
		conn := connect(t, server)
		publish(t, conn, newEvents(1, 3)...)
		if _, err := native(t, server).CreateConsumer(t.Context(), "EVENTS", natsjs.ConsumerConfig{
			Durable: "tandem-east-flights", AckPolicy: natsjs.AckExplicitPolicy, DeliverPolicy: policy,
		}); err != nil {
			t.Fatal(err)
		}
		pull(t, open(t, conn, "east"), 3)
	}
}

func TestAConsumerThatWasChangedByHandIsCorrectedAndMissesNothing(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		change func(*natsjs.ConsumerConfig)
		again  bool // every message is read again
	}{
		{"a filter", func(c *natsjs.ConsumerConfig) { c.FilterSubject = "events.none" }, true},
		{"filters", func(c *natsjs.ConsumerConfig) { c.FilterSubjects = []string{"events.a", "events.b"} }, true},
		{"headers only", func(c *natsjs.ConsumerConfig) { c.HeadersOnly = true }, true},
		{"backoff", func(c *natsjs.ConsumerConfig) {
			c.MaxDeliver, c.BackOff = 3, []time.Duration{time.Millisecond, time.Second}
		}, false},
		{"a threshold of inactivity", func(c *natsjs.ConsumerConfig) { c.InactiveThreshold = time.Minute }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			conn := connect(t, server)
			publish(t, conn, newEvents(1, 3)...)
			reader := open(t, conn, "east")
			for _, m := range pull(t, reader, 3) {
				if err := m.Ack(); err != nil {
					t.Fatal(err)
				}
			}
			eventtest.Eventually(t, "they are acknowledged", func() bool {
				position, err := reader.Position(t.Context())
				return err == nil && position.Floor == 4
			})
			js := native(t, server)
			consumer, err := js.Consumer(t.Context(), "EVENTS", "tandem-east-flights")
			if err != nil {
				t.Fatal(err)
			}
			made := consumer.CachedInfo().Config
			changed := made
			tt.change(&changed)
			if _, err := js.UpdateConsumer(t.Context(), "EVENTS", changed); err != nil {
				t.Fatal(err)
			}
			publish(t, conn, newEvents(4, 2)...)
			if tt.again { // even without a restart
				if _, err := reader.Position(t.Context()); err != nil {
					t.Fatal(err)
				}
				err := reader.Pull(t.Context(), 1, 1<<20, func(eventing.Message) {})
				wantError(t, err, "consumer tandem-east-flights of stream EVENTS has ")
			}
			reader = open(t, conn, "east")
			want := 2
			if tt.again {
				want = 5
			}
			for i, m := range pull(t, reader, want) {
				if got := m.Sequence(); got != uint64(5-want+i+1) || len(m.Event().Data()) == 0 {
					t.Errorf("message %d is %v", got, m.Event())
				}
			}
			if consumer, err = js.Consumer(t.Context(), "EVENTS", "tandem-east-flights"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(made, consumer.CachedInfo().Config); diff != "" {
				t.Errorf("consumer (-as made +as corrected):\n%s", diff)
			}
		})
	}
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
		t.Errorf("it has %d messages: docs/streams.md differs", info.State.Msgs)
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
	eventtest.Eventually(t, "interest has crossed the link", func() bool {
		n++
		if _, err := js.Publish(t.Context(), "events.x", nil, natsjs.WithMsgID(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
		stream, err := native(t, second).Stream(t.Context(), "EVENTS")
		return err == nil && stream.CachedInfo().State.Msgs > 0
	})
	// Both streams store every message, so a source that reads both would read each message
	// twice. With a mirror, the source detects this and returns an error.
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
