package natstest_test

import (
	"context"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

func TestAClusterGoesOnWithoutItsLeader(t *testing.T) {
	t.Parallel()

	c := natstest.StartCluster(t)
	js := connect(t, c.URL(), "")
	makeStream(t, js, natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Replicas: 3})
	publish(t, js, "events.a")
	leader, _ := c.Leader(t, "EVENTS")
	leader.Stop()
	publish(t, js, "events.a")
	leader.Restart(t)
	want(t, js, "EVENTS", 2)
}

func TestASuperClusterSharesItsStreams(t *testing.T) {
	t.Parallel()

	clusters, link := natstest.StartSuperCluster(t, "east", "west")
	east, west := connect(t, clusters[0].URL(), ""), connect(t, clusters[1].URL(), "")
	makeStream(t, west, natsjs.StreamConfig{
		Name: "EVENTS", Subjects: []string{"events.>"}, Replicas: 3,
		Placement: &natsjs.Placement{Cluster: "east"},
	})
	publish(t, west, "events.a")
	want(t, west, "EVENTS", 1)
	link.Cut()
	publish(t, east, "events.a")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := west.Publish(ctx, "events.a", nil); err == nil {
		t.Error("published through a link that is cut")
	}
	link.Heal()
	want(t, west, "EVENTS", 2)
}

func TestDomainsMirrorEachOther(t *testing.T) {
	t.Parallel()

	first, second, link := natstest.StartDomains(t, "east", "west")
	east, west := connect(t, first.URL(), "east"), connect(t, second.URL(), "west")
	makeStream(t, east, natsjs.StreamConfig{Name: "EAST", Subjects: []string{"east.>"}})
	makeStream(t, west, natsjs.StreamConfig{Name: "EAST", Mirror: &natsjs.StreamSource{Name: "EAST", Domain: "east"}})
	publish(t, east, "east.a")
	want(t, west, "EAST", 1)
	link.Cut()
	publish(t, east, "east.a")
	link.Heal()
	want(t, west, "EAST", 2)
}

func connect(t *testing.T, url, domain string) natsjs.JetStream {
	t.Helper()

	js := natstest.JetStream(t, url)
	if domain == "" {
		return js
	}
	js, err := natsjs.NewWithDomain(js.Conn(), domain)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func makeStream(t *testing.T, js natsjs.JetStream, cfg natsjs.StreamConfig) {
	t.Helper()

	eventtest.Eventually(t, "the stream is there", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := js.CreateStream(ctx, cfg)
		return err == nil
	})
}

// publish retries until the message is stored.
func publish(t *testing.T, js natsjs.JetStream, subject string) {
	t.Helper()

	eventtest.Eventually(t, "a message is stored", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := js.Publish(ctx, subject, nil, natsjs.WithMsgID(t.Name()+time.Now().String()))
		return err == nil
	})
}

// want waits until there are n messages in the stream.
func want(t *testing.T, js natsjs.JetStream, stream string, n uint64) {
	t.Helper()

	eventtest.Eventually(t, "all messages are there", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		s, err := js.Stream(ctx, stream)
		return err == nil && s.CachedInfo().State.Msgs >= n
	})
}
