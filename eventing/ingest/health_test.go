package ingest_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/ingest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

func TestIngestIsUnhealthyExactlyWhileNothingCanBeStored(t *testing.T) {
	t.Parallel()

	c := natstest.StartCluster(t)
	in := startIngestAt(t, c.URL(), jetstream.StreamConfig{Name: "EVENTS", Replicas: 3})
	eventtest.Eventually(t, "it is healthy", in.healthy)
	eventtest.Eventually(t, "it stores", func() bool { return in.post(t, "first") == http.StatusAccepted })

	leader, others := c.Leader(t, "EVENTS")
	others[0].Stop()
	for range 10 {
		// Ingest may take a moment: on a busy machine the remaining two may need to elect a leader.
		eventtest.Eventually(t, "it is healthy without one of three replicas", in.healthy)
		eventtest.Eventually(t, "it stores without one", func() bool { return in.post(t, "without one") == http.StatusAccepted })
	}

	for _, busy := range []bool{false, true} {
		// Two of three are stopped: there is no leader, or one that cannot store.
		if busy {
			in.busy.Store(true)
			leader, others = c.Leader(t, "EVENTS")
			others[0].Stop()
		}
		leader.Stop()
		eventtest.Eventually(t, "it is unhealthy", func() bool { return !in.healthy() })
		for range 2 {
			if in.healthy() {
				t.Errorf("healthy without two of three replicas (busy %t)", busy)
			}
			in.send(t, "without two", http.StatusServiceUnavailable)
		}
		leader.Restart(t)
		eventtest.Eventually(t, "it is healthy again", in.healthy)
		eventtest.Eventually(t, "it stores with two again", func() bool { return in.post(t, "with two again") == http.StatusAccepted })
		others[0].Restart(t)
		eventtest.Eventually(t, "all replicas are there again", func() bool { return replicas(t, c.URL()) == 3 })
	}
	in.busy.Store(false)

	// Every accepted event is stored once.
	var accepted []string
	for id := range in.accepted.Range {
		accepted = append(accepted, id.(string))
	}
	stored := readIDs(t, c.URL())
	for _, id := range accepted {
		if stored[id] != 1 {
			t.Errorf("event %s is stored %d times", id, stored[id])
		}
	}
	if len(accepted) < 13 {
		t.Errorf("only %d events were accepted", len(accepted))
	}
}

func TestIngestIsUnhealthyWhenItsServerSaysThatAllIsWellAndStoresNothing(t *testing.T) {
	t.Parallel()

	// Like a full disk: the stream exists, and stores nothing.
	s := natstest.StartWith(t, func(o *server.Options) { o.JetStreamMaxStore = 64 << 10 })
	in := startIngestAt(t, s.URL(), jetstream.StreamConfig{Name: "EVENTS"})
	eventtest.Eventually(t, "it is healthy", in.healthy)
	in.size = 16 << 10
	js := natstest.JetStream(t, s.URL())
	eventtest.Eventually(t, "it is full", func() bool {
		if in.post(t, "more") != http.StatusServiceUnavailable {
			return false
		}
		stream, err := js.Stream(t.Context(), "EVENTS") // otherwise it may only have been late
		return err == nil && stream.CachedInfo().State.Bytes >= 64<<10
	})
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, s, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "the stream does not know it", func() bool { return publisher.Ready(t.Context()) == nil })
	for range 3 {
		if in.healthy() {
			t.Error("healthy though nothing can be stored")
		}
	}
	stream, err := natstest.JetStream(t, s.URL()).Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "it is healthy again", in.healthy)
}

func TestAStreamThatTakesNothingSaysWhy(t *testing.T) {
	t.Parallel()

	s := natstest.Start(t)
	js := natstest.JetStream(t, s.URL())
	for _, tt := range []struct {
		cfg  natsjs.StreamConfig
		want string
	}{
		{cfg: natsjs.StreamConfig{Name: "FULL", Subjects: []string{"full.>"}, Discard: natsjs.DiscardNew, MaxMsgs: 1}, want: "stream FULL is full"},
		{cfg: natsjs.StreamConfig{Name: "MIRROR", Mirror: &natsjs.StreamSource{Name: "FULL"}}, want: "stream MIRROR is a mirror of FULL"},
		{cfg: natsjs.StreamConfig{Name: "SHORT", Subjects: []string{"short.>"}, Duplicates: time.Second}, want: "duplicate window is too short: it is 1s, want at least 30s"},
	} {
		name := tt.cfg.Name
		if _, err := js.CreateStream(t.Context(), tt.cfg); err != nil {
			t.Fatal(err)
		}
		if name == "FULL" {
			if _, err := js.Publish(t.Context(), "full.x", nil); err != nil {
				t.Fatal(err)
			}
		}
		in := startIngestAt(t, s.URL(), jetstream.StreamConfig{Name: name, LeastWindow: contract.RelayTakeover})
		eventtest.Eventually(t, name+" says so", func() bool {
			code, body := Request(t, http.MethodGet, in.url+"/health", nil, "")
			return code == http.StatusServiceUnavailable && strings.Contains(body, tt.want)
		})
		in.send(t, "x", http.StatusServiceUnavailable)
	}
}

func TestAFullTypeDoesNotMakeTheStreamUnhealthy(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	createStream(t, server, natsjs.StreamConfig{
		Name: "EVENTS", Subjects: []string{"events.full", "events.other"}, Discard: natsjs.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1,
	})
	address, _ := startIngest(t, server, ingest.Config{})
	if code, body := settled(t, http.MethodPost, address, header("0", "full"), ""); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, body)
	}
	for i := range 30 {
		// One type is full, and the stream does not accept the other.
		for _, eventType := range []string{"full", "foreign"} {
			if eventType == "foreign" && i%10 != 0 { // finding out takes a while
				continue
			}
			if code, body := Request(t, http.MethodPost, address, header(fmt.Sprint(eventType, i), eventType), ""); code != http.StatusServiceUnavailable {
				t.Errorf("type %s: answered %d %s, want 503", eventType, code, body)
			}
			if code, body := settled(t, http.MethodGet, address+"/health", nil, ""); code != http.StatusOK {
				t.Errorf("unhealthy, since type %s is not taken: %s", eventType, body)
			}
		}
	}
	if code, body := settled(t, http.MethodPost, address, header("other", "other"), ""); code != http.StatusAccepted {
		t.Errorf("another type: %d %s", code, body)
	}
}

// readIDs counts the ids in stream EVENTS. Each request has its own timeout: a server that
// was just restarted may not answer one.
func readIDs(t *testing.T, url string) map[string]int {
	t.Helper()

	ask := func(request func(ctx context.Context) error) {
		t.Helper()
		eventtest.Eventually(t, "the stream is read", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), jetstream.RequestTimeout)
			defer cancel()
			return request(ctx) == nil
		})
	}
	js := natstest.JetStream(t, url)
	var stream natsjs.Stream
	ask(func(ctx context.Context) (err error) {
		stream, err = js.Stream(ctx, "EVENTS")
		return err
	})
	ids := map[string]int{}
	state := stream.CachedInfo().State
	for sequence := state.FirstSeq; state.Msgs > 0 && sequence <= state.LastSeq; sequence++ {
		ask(func(ctx context.Context) error {
			m, err := stream.GetMsg(ctx, sequence)
			if err == nil {
				ids[m.Header.Get("ce-id")]++
			}
			return err
		})
	}
	return ids
}

// ingestion is an ingest address with a sender.
type ingestion struct {
	url      string
	size     int // of the data
	busy     atomic.Bool
	accepted sync.Map
	sent     atomic.Int64
}

func startIngestAt(t *testing.T, url string, cfg jetstream.StreamConfig) *ingestion {
	t.Helper()

	conn, err := jetstream.Connect(t.Context(), url, jetstream.Config{Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	publisher, err := jetstream.NewPublisher(conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	in := &ingestion{url: serve(t, publisher, ingest.Config{Ready: publisher.Ready, TakesType: publisher.TakesType, Timeout: 3 * time.Second})}
	ended := make(chan struct{})
	t.Cleanup(func() { <-ended })
	go func() {
		defer close(ended)
		for t.Context().Err() == nil {
			if in.busy.Load() {
				in.post(t, "busy")
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return in
}

func (in *ingestion) healthy() bool {
	res, err := http.Get(in.url + "/health") //nolint:noctx // of this process
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// send sends another event and expects this answer.
func (in *ingestion) send(t *testing.T, what string, want int) {
	t.Helper()

	if code := in.post(t, what); code != want {
		t.Errorf("%s: answered %d, want %d", what, code, want)
	}
}

// post sends another event and records whether it was accepted.
func (in *ingestion) post(t *testing.T, what string) int {
	t.Helper()

	id := fmt.Sprintf("%s-%d", strings.ReplaceAll(what, " ", "-"), in.sent.Add(1))
	req, err := http.NewRequest(http.MethodPost, in.url, strings.NewReader(strings.Repeat("x", in.size))) //nolint:noctx // may outlive the test
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header = http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {id}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	_ = res.Body.Close()
	switch res.StatusCode {
	case http.StatusAccepted:
		in.accepted.Store(id, true)
	case http.StatusServiceUnavailable:
		if res.Header.Get("Retry-After") != "1" {
			t.Errorf("503 with Retry-After %q", res.Header.Get("Retry-After"))
		}
	default:
		t.Errorf("%s: answered %d", id, res.StatusCode)
	}
	return res.StatusCode
}

// replicas returns the number of replicas of stream EVENTS that are up to date.
func replicas(t *testing.T, url string) int {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	stream, err := natstest.JetStream(t, url).Stream(ctx, "EVENTS")
	if err != nil || stream.CachedInfo().Cluster == nil || stream.CachedInfo().Cluster.Leader == "" { // nil briefly after creation
		return 0
	}
	n := 1
	for _, peer := range stream.CachedInfo().Cluster.Replicas {
		if peer.Current && !peer.Offline {
			n++
		}
	}
	return n
}
