package clusters_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/expected"
	"github.com/tandem-fn/tandem/hack/feed"
)

// side is a cluster with its NATS servers, and the stream that accepts events
// there.
type side struct {
	name string
	nats string   // URLs of its NATS servers
	in   string   // the stream that accepts events here; empty if there is none
	read []string // the streams that its source reads
	out  string   // the stream that its function publishes to

	js      natsjs.JetStream
	cluster *devcluster.Cluster
	feed    *feed.Feed
	fed     <-chan error
}

// sides are clusters that share a database, each with NATS servers of its own.
type sides struct {
	*devcluster.Deployment

	all    []*side
	idle   func()
	supply *supply
}

// newSides connects to the NATS servers of each side. The test creates the
// streams.
func newSides(t *testing.T, all ...*side) *sides {
	t.Helper()

	for _, s := range all {
		nc, err := nats.Connect(s.nats, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.Timeout(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		if s.js, err = natsjs.New(nc); err != nil {
			t.Fatal(err)
		}
	}
	return &sides{all: all, supply: newSupply()}
}

// begin starts the clusters and feeds the flights at a rate for all together.
// Every side that accepts events receives its share.
func (w *sides) begin(t *testing.T, rate float64) {
	t.Helper()

	cfg := devcluster.Config{DatabaseURL: pgtest.URL(t)}
	var feeding []*side
	for _, s := range w.all {
		env := []string{"TANDEM_STREAMS=" + strings.Join(s.read, ","), "TANDEM_OUTPUT_STREAM=" + s.out}
		if s.in != "" {
			env = append(env, "TANDEM_STREAM="+s.in)
			feeding = append(feeding, s)
		}
		cfg.Clusters = append(cfg.Clusters, devcluster.ClusterConfig{Name: s.name, NATSURL: s.nats, Env: env})
	}
	w.Deployment, w.idle = start(t, cfg)
	for _, s := range w.all {
		s.cluster = w.Cluster(s.name)
	}
	for i, s := range feeding {
		conn, err := jetstream.Connect(t.Context(), s.nats, jetstream.Config{Name: "test feed"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		publisher, err := jetstream.NewPublisher(conn, jetstream.ParseStream(s.in))
		if err != nil {
			t.Fatal(err)
		}
		s.feed = feed.New(publisher, feed.Config{Rate: rate / float64(len(feeding))})
		s.fed = w.supply.run(t.Context(), s.feed, i, len(feeding))
	}
}

// waitFor waits until every side that accepts events has stored that many.
func (w *sides) waitFor(t *testing.T, events int64) {
	t.Helper()

	for _, s := range w.all {
		if s.feed != nil {
			pollDown(t, "the feed of "+s.name+" is behind", func(context.Context) int64 { return events - s.feed.Published() })
		}
	}
}

// finish ends the supply, waits until every cluster has acknowledged everything, and compares
// the result with the truth.
func (w *sides) finish(t *testing.T) {
	t.Helper()

	w.supply.end()
	var outputs []natsjs.Stream
	seen := map[string]bool{}
	for _, s := range w.all {
		if s.fed == nil {
			continue
		}
		if err := <-s.fed; err != nil {
			t.Fatalf("feed of %s: %v", s.name, err)
		}
	}
	pollDown(t, "events are still under way", func(ctx context.Context) int64 { return w.supply.total() - w.counted(t, ctx) })
	// Acknowledgements are lost with a leader or a link. Their messages are
	// redelivered after a minute and a half, or at once to a source that starts.
	for _, s := range w.all {
		kill(t, s.cluster.Source, 1)
	}
	t.Cleanup(func() { w.logStreams(t) })
	for _, s := range w.all {
		for _, stream := range s.read {
			pollDown(t, s.name+" has not acknowledged everything in "+stream, func(ctx context.Context) int64 {
				return w.unacknowledged(ctx, s, stream)
			})
		}
	}
	w.idle() // while outputs of a dead winner wait for the relay
	outboxEmpties(t, w.Pool)

	got, err := expected.ReadTables(t.Context(), w.Pool)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range w.all {
		if seen[s.out] {
			continue
		}
		seen[s.out] = true
		stream, err := jetstream.Ask(t.Context(), func(ctx context.Context) (natsjs.Stream, error) { return s.js.Stream(ctx, s.out) })
		if err != nil {
			t.Fatal(err)
		}
		outputs = append(outputs, stream)
	}
	if got.Outputs, err = expected.ReadOutputsOf(t.Context(), outputs...); err != nil {
		t.Fatal(err)
	}
	for _, difference := range got.Differences(w.supply.want) {
		t.Error(difference)
	}
	var ledger, letters int64
	if err := w.Pool.QueryRow(t.Context(), `select (select count(*) from tandem.ledger), (select count(*) from tandem.dead_letter)`).Scan(&ledger, &letters); err != nil {
		t.Fatal(err)
	}
	if ledger != w.supply.total() || letters != 0 {
		t.Errorf("%d events in the ledger and %d dead letters, want %d and none", ledger, letters, w.supply.total())
	}
}

// unacknowledged returns how many messages of the input streams a cluster has not
// acknowledged, including those that a mirror has not received yet.
func (w *sides) unacknowledged(ctx context.Context, s *side, stream string) int64 {
	there, err := s.js.Stream(ctx, jetstream.ParseStream(stream).Name)
	if err != nil {
		return unknown
	}
	origin := there.CachedInfo().Config.Name
	if mirror := there.CachedInfo().Config.Mirror; mirror != nil {
		origin = mirror.Name
	}
	var missing int64
	for _, other := range w.all {
		if other.in != origin {
			continue
		}
		from, err := other.js.Stream(ctx, origin)
		if err != nil {
			return unknown
		}
		missing = int64(from.CachedInfo().State.LastSeq) - int64(there.CachedInfo().State.LastSeq)
	}
	consumer, err := there.Consumer(ctx, "tandem-"+s.name+"-"+s.cluster.FunctionName())
	if err != nil {
		return unknown
	}
	left := notAcknowledged(consumer.CachedInfo())
	if left == unknown {
		return unknown
	}
	return max(0, missing) + left
}

// logStreams logs the state of the streams and consumers, if the test has failed.
func (w *sides) logStreams(t *testing.T) {
	t.Helper()
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), tryTimeout)
	defer cancel()
	for _, s := range w.all {
		for _, name := range s.read {
			stream, err := s.js.Stream(ctx, jetstream.ParseStream(name).Name)
			if err != nil {
				t.Logf("stream %s in %s: %v", name, s.name, err)
				continue
			}
			t.Logf("stream %s in %s: %+v, mirror %+v", name, s.name, stream.CachedInfo().State, stream.CachedInfo().Mirror)
			for info := range stream.ListConsumers(ctx).Info() {
				t.Logf("consumer %s: %+v", info.Name, *info)
			}
		}
	}
}

// counted returns how many events the clusters have committed.
func (w *sides) counted(t *testing.T, ctx context.Context) (n int64) { //nolint:revive // the parameters of poll
	t.Helper()

	err := w.Pool.QueryRow(ctx, `select count(*) from tandem.ledger`).Scan(&n)
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	return n
}

func makeStream(t *testing.T, js natsjs.JetStream, cfg natsjs.StreamConfig) {
	t.Helper()

	if err := jetstream.Do(t.Context(), func(ctx context.Context) error { _, err := js.CreateStream(ctx, cfg); return err }); err != nil {
		t.Fatalf("make stream %s: %v", cfg.Name, err)
	}
}

func TestTheStreamsLeaderIsKilledUnderLoad(t *testing.T) {
	t.Parallel()

	c := natstest.StartCluster(t)
	w := newSides(t,
		&side{name: "east", nats: c.URL(), in: "EVENTS", read: []string{"EVENTS"}, out: "OUTPUTS"},
		&side{name: "west", nats: c.URL(), read: []string{"EVENTS"}, out: "OUTPUTS"})
	js := w.all[0].js
	makeStream(t, js, natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Replicas: 3})
	makeStream(t, js, natsjs.StreamConfig{Name: "OUTPUTS", Subjects: []string{"outputs.>"}, Replicas: 3})
	w.begin(t, 3000)
	for i, stream := range []string{"EVENTS", "EVENTS", "OUTPUTS"} {
		w.waitFor(t, int64(2000*i+1000))
		leader, _ := c.Leader(t, stream)
		leader.Stop()
		w.waitFor(t, int64(2000*i+2000)) // which the other two accept
		leader.Restart(t)
	}
	w.finish(t)
}

func TestTwoClustersJoinedByGatewaysAreCutApart(t *testing.T) {
	t.Parallel()

	clusters, link := natstest.StartSuperCluster(t, "east", "west")
	both := []string{"EAST", "WEST"}
	w := newSides(t,
		&side{name: "east", nats: clusters[0].URL(), in: "EAST", read: both, out: "EAST-OUT"},
		&side{name: "west", nats: clusters[1].URL(), in: "WEST", read: both, out: "WEST-OUT"})
	for _, s := range w.all {
		placed := &natsjs.Placement{Cluster: s.name}
		makeStream(t, s.js, natsjs.StreamConfig{Name: s.in, Subjects: []string{s.name + ".>"}, Replicas: 3, Placement: placed})
		makeStream(t, s.js, natsjs.StreamConfig{Name: s.out, Subjects: []string{s.name + "-out.>"}, Replicas: 3, Placement: placed})
	}
	w.begin(t, 3000)
	w.waitFor(t, 1000)
	link.Cut()
	before := w.counted(t, t.Context())
	w.waitFor(t, 2500) // from each, because both accept events
	poll(t, "nothing is committed while they are apart", func(ctx context.Context) bool { return w.counted(t, ctx) > before+1000 })
	leader, _ := clusters[0].Leader(t, "EAST")
	leader.Stop()
	link.Heal()
	w.waitFor(t, 3500)
	leader.Restart(t)
	w.finish(t)
}

func TestTwoDomainsThatMirrorEachOtherAreCutApart(t *testing.T) {
	t.Parallel()

	first, second, link := natstest.StartDomains(t, "east", "west")
	// Each cluster reads the streams of its own side: its origin, and the mirror
	// of the other one.
	w := newSides(t,
		&side{name: "east", nats: first.URL(), in: "EAST", read: []string{"EAST", "WEST@east"}, out: "EAST-OUT"},
		&side{name: "west", nats: second.URL(), in: "WEST", read: []string{"EAST@west", "WEST"}, out: "WEST-OUT"})
	for i, s := range w.all {
		other := w.all[1-i]
		makeStream(t, s.js, natsjs.StreamConfig{Name: s.in, Subjects: []string{s.name + ".>"}})
		makeStream(t, s.js, natsjs.StreamConfig{Name: s.out, Subjects: []string{s.name + "-out.>"}})
		makeStream(t, s.js, natsjs.StreamConfig{Name: other.in, Mirror: &natsjs.StreamSource{Name: other.in, Domain: other.name}})
	}
	w.begin(t, 3000)
	w.waitFor(t, 1000)
	link.Cut()
	before := w.counted(t, t.Context())
	w.waitFor(t, 3500)
	poll(t, "nothing is committed while they are apart", func(ctx context.Context) bool { return w.counted(t, ctx) > before+2000 })
	link.Heal()
	w.finish(t)
	for _, s := range w.all {
		if won := wonBy(t, w.Pool, s.name); won == 0 {
			t.Errorf("%s has won nothing", s.name)
		}
	}
}
