//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/expected"
	"github.com/tandem-fn/tandem/hack/feed"
)

const (
	functionPods = "serving.knative.dev/service=flights"
	sourcePods   = "sources.knative.dev/containerSource=flights"

	// rate is how many flights are sent per second: slow enough that all faults
	// fit in before the end, and for a single machine that runs everything.
	rate = 150

	// maxGap is the longest time without a commit while a cluster is cut off, in race
	// mode.
	maxGap = time.Second
)

// TestTwoClusters is one test, because the installation takes longer than any of its
// parts.
func TestTwoClusters(t *testing.T) {
	o := readOptions(t)
	east, west := cluster{"east", o.East}, cluster{"west", o.West}
	s := startServers(t)
	config := makeConfig(t, o, s)
	for _, c := range []cluster{east, west} {
		c.remove(t)
		if o.Keep == "" {
			t.Cleanup(func() { c.remove(t) })
		}
	}

	t.Run("manifests are accepted by the API servers and nonsense is not", func(t *testing.T) { acceptsManifests(t, east, config) })
	begun := time.Now()
	east.install(t, config)
	west.install(t, config)
	t.Run("flights, with harm done meanwhile", func(t *testing.T) {
		flightsWithHarm(t, o, s, east, west, config)
		t.Logf("from two bare clusters to this: %s", time.Since(begun).Round(time.Second))
	})
	t.Run("from zero", func(t *testing.T) { fromZero(t, s, east, west) })
	t.Run("hedge", func(t *testing.T) { hedge(t, o, s, east, west, config) })
	t.Run("scale", func(t *testing.T) { scale(t, o, s, east, west, config) })
	t.Run("broker and triggers", func(t *testing.T) { throughBroker(t, s, east, west, config) })
}

// acceptsManifests validates the applied manifests with the API server and Knative's
// webhooks, and a manifest that they must reject.
func acceptsManifests(t *testing.T, c cluster, config string) {
	t.Helper()

	// Serving's webhook validates a pod with a dry run, which needs the account.
	c.do(t, "apply", "-f", filepath.Join(config, "base", "namespace.yaml"))
	c.do(t, "-n", namespace, "apply", "-f", filepath.Join(config, "base", "accounts.yaml"))
	for _, components := range []string{"", "func", "broker", "plain"} {
		folder := variant(t, config, c.name, components)
		said := c.do(t, "apply", "--dry-run=server", "-k", folder)
		t.Logf("%s accepts %d objects (component %q)", c.name, strings.Count(said, "server dry run"), components)
	}
	for _, tt := range []struct{ file, old, new, want string }{
		{"functions/flights/function.yaml", `min-scale: "0"`, `min-scale: "-1"`, "min-scale"},
		{"functions/flights/function.yaml", "containerConcurrency:", "containerConcurency:", "unknown field"},
		{"functions/flights/source.yaml", "kind: Service\n      name: flights", "kind: Service", "name"},
	} {
		folder := variant(t, config, c.name, "")
		file := filepath.Join(filepath.Dir(folder), "..", tt.file)
		change(t, file, tt.old, tt.new)
		if _, err := c.try(within(t, time.Minute), "apply", "--dry-run=server", "--validate=strict", "-k", folder); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %s: %v, want it refused for %s", tt.file, tt.new, err, tt.want)
		}
	}
}

// flightsWithHarm sends the flights, injects faults into the clusters, and
// compares.
func flightsWithHarm(t *testing.T, o options, s *servers, east, west cluster, config string) {
	t.Helper()

	ctx := within(t, 10*time.Minute)
	gaps := s.watchGaps(t)
	f := s.feed(t, rate, feed.FlightEvents(0))
	waitFor := func(n int64) {
		t.Helper()
		eventually(t, 4*time.Minute, fmt.Sprintf("%d flights are committed", n), func() bool { return s.count(t, "select count(*) from flights") >= n })
	}
	waitFor(500)

	t.Log("the function's pods of east are killed")
	east.do(t, "-n", namespace, "delete", "pods", "-l", functionPods, "--force", "--grace-period=0", "--wait=false")
	waitFor(2000)

	t.Log("the source of west is killed")
	west.do(t, "-n", namespace, "delete", "pods", "-l", sourcePods, "--force", "--grace-period=0", "--wait=false")
	waitFor(3000)

	if o.CutWest == "" || o.HealWest == "" {
		t.Log("NOT DONE: the link of west is not cut, for there is no CUT_WEST and HEAL_WEST")
	} else {
		t.Logf("the link of west is cut for %d s", o.CutSeconds)
		gaps.start()
		run(t, o.CutWest)
		time.Sleep(time.Duration(o.CutSeconds) * time.Second)
		gap := gaps.longest()
		before := s.count(t, "select count(*) from flights")
		run(t, o.HealWest)
		t.Logf("while the link was cut nothing was committed for at most %s", gap.Round(time.Millisecond))
		if gap > maxGap {
			t.Errorf("nothing was committed for %s, at most %s are allowed", gap, maxGap)
		}
		if before < 3500 {
			t.Errorf("%d flights committed: east does not go on alone", before)
		}
	}

	t.Log("the function of west is deleted")
	west.do(t, "-n", namespace, "delete", "ksvc", "flights")
	waitFor(min(20_000, s.count(t, "select count(*) from flights")+1000))
	west.do(t, "apply", "-k", filepath.Join(config, "overlays", "west"))

	t.Log("a new revision is rolled out in east")
	east.do(t, "-n", namespace, "patch", "ksvc", "flights", "--type=merge", "-p", `{"spec":{"template":{"metadata":{"annotations":{"tandem.example/rolled-out":"again"}}}}}`)
	east.ready(t)
	t.Log("the activator of east is restarted")
	east.do(t, "-n", "knative-serving", "delete", "pods", "-l", "app=activator", "--wait=false")

	eventually(t, 5*time.Minute, "all flights are sent", f.Complete)
	waitFor(20_000)
	truth, err := feed.Truth()
	if err != nil {
		t.Fatal(err)
	}
	var differences []string
	eventually(t, 2*time.Minute, "the outputs of everything are published", func() bool {
		result, err := expected.Read(ctx, s.pool, s.NC)
		if err != nil {
			t.Fatal(err)
		}
		differences = result.Differences(truth)
		return len(differences) == 0 || time.Until(deadline(ctx)) < time.Minute
	})
	if len(differences) > 0 {
		t.Errorf("%s", strings.Join(differences, "\n"))
	}
	for _, name := range []string{"east", "west"} {
		won := s.count(t, "select count(*) from tandem.ledger l join tandem.writer w using (writer) where w.cluster = $1", name)
		t.Logf("%s has won %d", name, won)
		if won == 0 {
			t.Errorf("%s has won nothing", name)
		}
	}
	if n := s.count(t, "select count(*) from tandem.dead_letter"); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	eventually(t, 3*time.Minute, "both clusters are whole again", func() bool {
		for _, c := range []cluster{east, west} {
			if _, err := c.try(ctx, "-n", namespace, "wait", "--timeout=1s", "--for=condition=Ready", "ksvc/flights"); err != nil {
				return false
			}
		}
		return true
	})
}

// fromZero waits until no function runs and sends one event through ingest.
func fromZero(t *testing.T, s *servers, east, west cluster) {
	t.Helper()

	took := eventually(t, 6*time.Minute, "both functions are at zero", func() bool { return east.pods(t, functionPods)+west.pods(t, functionPods) == 0 })
	t.Logf("both functions at zero after another %s", took.Round(time.Second))
	url := east.ingest(t)
	begun := time.Now()
	send(t, url, "one")
	eventually(t, time.Minute, "the event is committed", func() bool { return s.count(t, "select count(*) from flights where source = '/e2e'") == 1 })
	took = time.Since(begun)
	var by string
	if err := s.pool.QueryRow(t.Context(), "select cluster from tandem.handled('flights', '/e2e', 'one')").Scan(&by); err != nil {
		t.Fatal(err)
	}
	t.Logf("from zero: committed by %s after %s", by, took.Round(10*time.Millisecond))
	if took > 3*time.Second {
		t.Errorf("an event took %s from zero, at most 3 s are allowed", took)
	}
	eventually(t, time.Minute, "the other cluster has woken too", func() bool { return east.pods(t, functionPods) > 0 || west.pods(t, functionPods) > 0 })
}

// hedge makes west wait for east: its function stays at zero while east does
// everything, and wakes when east is cut off.
func hedge(t *testing.T, o options, s *servers, east, west cluster, config string) {
	t.Helper()

	folder := variant(t, config, "west", "")
	change(t, filepath.Join(folder, "kustomization.yaml"), "literals: [TANDEM_STREAM_REPLICAS=1]", "literals: [TANDEM_STREAM_REPLICAS=1, TANDEM_HEDGE=2s]")
	west.do(t, "apply", "-k", folder)
	eventually(t, 3*time.Minute, "west hedges", func() bool {
		return s.count(t, "select count(*) from tandem.progress where cluster = 'west' and hedge = '2s'") > 0
	})
	// A start of east from zero takes longer than west waits, so west would wake, too:
	// east is kept awake until west sleeps.
	s.feed(t, 5, others("/e2e/hedge/awake", 20_000))
	eventually(t, 4*time.Minute, "west's function is at zero while east's is not", func() bool {
		return west.pods(t, functionPods) == 0 && east.pods(t, functionPods) > 0 && s.count(t, "select count(*) from flights where source = '/e2e/hedge/awake'") > 20
	})

	const n, alone = 10_000, 1_000
	f := s.feed(t, 250, others("/e2e/hedge", n))
	done := func() int64 { return s.count(t, "select count(*) from flights where source = '/e2e/hedge'") }
	woken, most := 0, 0
	eventually(t, 4*time.Minute, "east commits all", func() bool {
		if done()%100 < 20 {
			woken, most = max(woken, west.pods(t, functionPods)), max(most, east.pods(t, functionPods))
		}
		return f.Complete() && done() == n
	})
	t.Logf("east had at most %d instances", most)
	if woken > 0 {
		t.Errorf("west had %d instances though east did everything", woken)
	}
	if o.CutEast == "" || o.HealEast == "" {
		t.Log("NOT DONE: the link of east is not cut, for there is no CUT_EAST and HEAL_EAST")
		return
	}
	run(t, o.CutEast)
	defer run(t, o.HealEast)
	begun := time.Now()
	f = s.feed(t, 250, others("/e2e/hedge/alone", alone))
	count := func() int64 { return s.count(t, "select count(*) from flights where source = '/e2e/hedge/alone'") }
	eventually(t, time.Minute, "west goes on", func() bool { return count() > 0 })
	t.Logf("west has woken and committed %s after east was cut", time.Since(begun).Round(10*time.Millisecond))
	eventually(t, 3*time.Minute, "west commits all", func() bool { return count() == alone })
}

// others returns the first n flights as events of another source.
func others(source string, n int) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		i := 0
		for e, err := range feed.FlightEvents(0) {
			e.SetSource(source)
			if i++; i > n || !yield(e, err) {
				return
			}
		}
	}
}

// throughBroker switches both clusters to Broker and Triggers and sends more
// events.
func throughBroker(t *testing.T, s *servers, east, west cluster, config string) {
	t.Helper()

	for _, c := range []cluster{east, west} {
		c.do(t, "apply", "-k", variant(t, config, c.name, "broker"))
		c.do(t, "-n", namespace, "wait", "--timeout=170s", "--for=condition=Ready", "brokers.eventing.knative.dev,triggers.eventing.knative.dev", "--all")
		c.do(t, "-n", namespace, "rollout", "status", "--timeout=170s", "deployment", "-l", sourcePods)
	}
	const n = 1000
	f := s.feed(t, rate, others("/e2e/broker", n))
	eventually(t, 2*time.Minute, "all are sent", f.Complete)
	eventually(t, 3*time.Minute, "all are committed", func() bool { return s.count(t, "select count(*) from flights where source = '/e2e/broker'") == n })
	for _, name := range []string{"east", "west"} {
		won := s.count(t, "select count(*) from tandem.ledger l join tandem.writer w using (writer) where w.cluster = $1", name)
		t.Logf("%s has won %d by now", name, won)
	}
}

// variant returns the cluster's overlay with a component, in a copy of
// everything.
func variant(t *testing.T, config, cluster, component string) string {
	t.Helper()

	dir := copyOf(t, config)
	folder := filepath.Join(dir, "overlays", cluster)
	if component != "" {
		change(t, filepath.Join(folder, "kustomization.yaml"), "  - ../../images\n", "  - ../../images\n  - ../../components/"+component+"\n")
	}
	return folder
}

// feed starts to publish events at a rate per second.
func (s *servers) feed(t *testing.T, rate float64, events iter.Seq2[event.Event, error]) *feed.Feed {
	t.Helper()

	publisher, err := jetstream.NewPublisher(s.Conn, jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	f := feed.New(publisher, feed.Config{Rate: rate})
	ended := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	go func() { defer close(ended); _ = f.Run(ctx, 0, events) }()
	t.Cleanup(func() { stop(); <-ended })
	return f
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

func send(t *testing.T, url, id string) {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"date":"2001/01/01 00:47","origin":"DTW","destination":"LAS","distance":1750,"delay":66}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Type": feed.FlightType, "Ce-Source": "/e2e", "Ce-Id": id, "Content-Type": "application/json",
	} {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusAccepted {
		t.Fatalf("ingest answers %s: %s", res.Status, body)
	}
}
