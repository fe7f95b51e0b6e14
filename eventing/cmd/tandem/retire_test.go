package main

import (
	gocmp "cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"         //nolint:depguard // the test looks into the database
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test looks into the database
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

const placed = "com.example.order.placed"

// retireWorld is a database, a stream, and the sources and functions of clusters.
type retireWorld struct {
	pool *pgxpool.Pool
	nats *natstest.Server
	js   natsjs.JetStream
	env  map[string]string
	sent int

	// Of clusters that do not read stream EVENTS of nats.
	servers map[string]*natstest.Server
	streams map[string]string
}

func newRetireWorld(t *testing.T) *retireWorld {
	t.Helper()

	return newRetireWorldAt(t, natstest.Start(t))
}

func newRetireWorldAt(t *testing.T, server *natstest.Server) *retireWorld {
	t.Helper()

	w := &retireWorld{pool: sinktest.NewDatabase(t), nats: server, servers: map[string]*natstest.Server{}, streams: map[string]string{}}
	w.js = natstest.JetStream(t, w.nats.URL())
	w.env = map[string]string{"DATABASE_URL": w.pool.Config().ConnString(), "NATS_URL": w.nats.URL()}
	conn := eventtest.Connect(t, w.nats, nil)
	eventtest.Eventually(t, "the stream is there", func() bool { return conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}) == nil })
	return w
}

// handle adds to the totals of the function, and stores an order. It rejects bad events, and
// emits an output for loud ones.
func handle(name string) functions.Function {
	return functions.Function{Name: name, Version: "1", Types: []string{placed}, Handle: func(_ context.Context, e event.Event) (fx functions.Effects, err error) {
		if strings.HasPrefix(e.ID(), "bad") {
			return fx, functions.Reject(errors.New("no such product"))
		}
		fx.Add("totals", functions.Row{"region": name}, functions.Row{"orders": 1, "amount": 1})
		if strings.HasPrefix(e.ID(), "loud") {
			fx.Emit(functions.Output{Type: "com.example.order.stored", Data: map[string]any{"id": e.ID()}})
		}
		return fx, nil
	}}
}

// start starts the function and its source in a cluster. The returned function stops them.
func (w *retireWorld) start(t *testing.T, cluster, function string) (stop func()) {
	t.Helper()

	writer := sinktest.NewWriter(t, w.pool, sinkwriter.Config{Cluster: cluster})
	h, err := serve.New([]functions.Function{handle(function)}, writer, serve.Config{DeadLetters: deadletter.NewStore(w.pool, cluster)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	sender, err := delivery.New(server.URL, server.URL+"/dead-letters", delivery.Config{Function: function})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := jetstream.Connect(t.Context(), gocmp.Or(w.servers[cluster], w.nats).URL(), jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	activate := func(held lease.Lease, until func() time.Time) (*source.Source, error) {
		stream, err := jetstream.NewStream(conn, cluster, function, jetstream.StreamConfig{Name: gocmp.Or(w.streams[cluster], "EVENTS")})
		if err != nil {
			return nil, err
		}
		return source.New(eventing.StreamList{stream}, sender, ledger.NewCheckpoints(w.pool, cluster).With(held), source.Config{
			Function: function, Cluster: cluster, Ledger: lookups{ledger.New(w.pool)}, Peers: ledger.NewCheckpoints(w.pool, cluster),
			SaveInterval: 50 * time.Millisecond, ActiveUntil: until,
		})
	}
	replica := source.NewReplica(lease.New(w.pool, cluster), activate, sender.Probe, source.ReplicaConfig{
		Cluster: cluster, Function: function, Holder: lease.Holder{Site: "site-" + cluster, Replica: "one"},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = replica.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		_ = conn.Close(context.WithoutCancel(ctx))
	})
	t.Cleanup(stop)
	return stop
}

// lookups looks events up in the ledger, like a source.
type lookups struct{ *ledger.Ledger }

func (l lookups) Committed(ctx context.Context, function string, events []source.EventID) ([]bool, error) {
	keys := make([]ledger.Key, len(events))
	for i, e := range events {
		keys[i] = ledger.NewKey(function, e.Source, e.ID)
	}
	found, _, err := l.Ledger.Committed(ctx, keys)
	done := make([]bool, len(keys))
	for i, k := range keys {
		done[i] = found[k]
	}
	return done, err
}

// publish publishes n events with a prefix of their ids.
func (w *retireWorld) publish(t *testing.T, prefix string, n int) {
	t.Helper()

	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, w.nats, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]event.Event, n)
	for i := range events {
		w.sent++
		events[i] = sinktest.NewEvent(fmt.Sprintf("%s-%d", prefix, w.sent))
	}
	eventtest.Eventually(t, "events are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
}

// startAndProcess starts a source, publishes n events "o", waits until the source has processed all of
// the stream, and returns a function that stops it.
func (w *retireWorld) startAndProcess(t *testing.T, cluster, function string, n int) (stop func()) {
	t.Helper()

	stop = w.start(t, cluster, function)
	w.publish(t, "o", n)
	w.caughtUp(t, cluster, function)
	return stop
}

// caughtUp waits until a cluster's saved checkpoint is at the end of the stream.
func (w *retireWorld) caughtUp(t *testing.T, cluster, function string) {
	t.Helper()

	eventtest.Eventually(t, function+" in "+cluster+" has acknowledged everything", func() bool {
		return w.count(t, "select count(*) from tandem.progress where cluster = $1 and function = $2 and floor = $3", cluster, function, w.sent+1) == 1
	})
}

func (w *retireWorld) count(t *testing.T, sql string, args ...any) int {
	t.Helper()

	return sinktest.Query[int](t, w.pool, sql, args...)
}

// processed returns how many events a function has added to its total.
func (w *retireWorld) processed(t *testing.T, function string) int {
	t.Helper()

	return w.count(t, "select coalesce(sum(orders), 0)::bigint from totals where region = $1", function)
}

func (w *retireWorld) retire(t *testing.T, args ...string) ran {
	t.Helper()

	return invoke(t, w.env, append([]string{"retire"}, args...)...)
}

// result returns the output of the command in JSON.
func (w *retireWorld) result(t *testing.T, code int, args ...string) (result retirement) {
	t.Helper()

	got := w.retire(t, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(got.out), &result); err != nil || got.code != code {
		t.Fatalf("%v: exit code %d, want %d: %v\n%s%s", args, got.code, code, err, got.err, got.out)
	}
	return result
}

// kinds returns the kinds of the obstacles.
func (r retirement) kinds() []string {
	var kinds []string
	for _, o := range r.Obstacles {
		kinds = append(kinds, o.Kind)
	}
	slices.Sort(kinds)
	return kinds
}

// consumers returns the names of the sources' consumers.
func (w *retireWorld) consumers(t *testing.T) []string {
	t.Helper()

	stream, err := w.js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	list := stream.ConsumerNames(t.Context())
	var names []string
	for name := range list.Name() {
		if strings.HasPrefix(name, "tandem-") { // without the consumers that only read messages
			names = append(names, name)
		}
	}
	if list.Err() != nil {
		t.Fatal(list.Err())
	}
	slices.Sort(names)
	return names
}

func (w *retireWorld) wantConsumers(t *testing.T, want ...string) {
	t.Helper()

	if diff := cmp.Diff(want, w.consumers(t)); diff != "" {
		t.Errorf("consumers (-want +got):\n%s", diff)
	}
}

// leftOf returns the tables that have rows of a function, with their numbers.
func (w *retireWorld) leftOf(t *testing.T, function string) map[string]int {
	t.Helper()

	left := map[string]int{}
	for _, table := range []string{"progress", "source_lease", "standby", "hedge", "tries", "dead_letter", "deferred_event", "blocked_event", "floor_sample", "divergence", "divergence_count", "writer"} {
		if n := w.count(t, "select count(*) from tandem."+table+" where function = $1", function); n > 0 {
			left[table] = n
		}
	}
	if n := w.count(t, "select count(*) from tandem.ledger l left join tandem.writer w using (writer) where coalesce(w.function, $1) = $1", function); n > 0 {
		left["ledger"] = n
	}
	if n := w.count(t, "select count(*) from tandem.outbox_event where event_source = '/tandem/' || $1", function); n > 0 {
		left["outbox"] = n
	}
	if n := w.count(t, "select count(*) from tandem.rejected_output where source = '/tandem/' || $1", function); n > 0 {
		left["rejected_output"] = n
	}
	return left
}

func (w *retireWorld) wantLeft(t *testing.T, function string, want map[string]int) {
	t.Helper()

	if diff := cmp.Diff(want, w.leftOf(t, function)); diff != "" {
		t.Errorf("rows of function %s (-want +got):\n%s", function, diff)
	}
}

func (w *retireWorld) horizon(t *testing.T, function string) int {
	t.Helper()

	return w.count(t, "select coalesce(max(floor), 0)::bigint from tandem.horizon where function = $1", function)
}

func TestARetiredClusterHoldsNothingBack(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	w.start(t, "east", "orders")
	stopWest := w.start(t, "west", "orders")
	w.publish(t, "o", 20)
	w.caughtUp(t, "east", "orders")
	w.caughtUp(t, "west", "orders")
	stopWest()
	w.publish(t, "o", 20)
	w.caughtUp(t, "east", "orders")

	// Ten days later, west has been at message 20 the whole time.
	sinktest.Execute(t, w.pool, `update tandem.ledger set committed_at = now() - interval '10 days'`)
	sinktest.Execute(t, w.pool, `insert into tandem.floor_sample (function, stream, epoch, taken_at, head) select function, stream, epoch, now() - interval '9 days', 41 from tandem.progress where cluster = 'east'`)
	retention, err := ledger.NewRetention(w.pool, ledger.RetentionConfig{Pause: -1})
	if err != nil {
		t.Fatal(err)
	}
	sweep := func() int64 {
		t.Helper()
		forgotten, err := retention.Sweep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return forgotten
	}
	if n := sweep(); n != 0 || w.horizon(t, "orders") != 0 {
		t.Fatalf("west holds nothing back: %d events are forgotten, the horizon is %d", n, w.horizon(t, "orders"))
	}

	before := w.leftOf(t, "orders")
	out := w.retire(t, "--cluster", "west", "orders").ok(t)
	for _, want := range []string{"REMOVES", "consumer tandem-west-orders  stream EVENTS", "checkpoints", "tandem.source_lease", "nothing was removed: --yes does it\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	w.wantLeft(t, "orders", before)
	w.wantConsumers(t, "tandem-east-orders", "tandem-west-orders")

	result := w.result(t, 0, "--cluster", "west", "orders", "--yes")
	if !result.Done || result.Cluster != "west" || result.Removed[0] != (removedThing{"consumer tandem-west-orders", "stream EVENTS", 1}) {
		t.Errorf("printed %+v", result)
	}
	w.wantConsumers(t, "tandem-east-orders")
	if n := w.count(t, "select count(*) from tandem.progress where cluster = 'west'"); n != 0 {
		t.Errorf("%d checkpoints of west are left", n)
	}
	if n := sweep(); n != 40 || w.horizon(t, "orders") != 41 {
		t.Errorf("%d events are forgotten, the horizon is %d; want 40 and 41", n, w.horizon(t, "orders"))
	}
	w.publish(t, "o", 5)
	w.caughtUp(t, "east", "orders")

	if out := w.retire(t, "--cluster", "west", "orders", "--yes").ok(t); out != "note: the clusters of the function are east\nnothing is left of cluster west of function orders\n" {
		t.Errorf("printed\n%s", out)
	}

	// A cluster that returns starts at the horizon, and applies nothing twice.
	w.start(t, "west", "orders")
	w.caughtUp(t, "west", "orders")
	if n := w.processed(t, "orders"); n != 45 {
		t.Errorf("%d events are processed, want 45", n)
	}
}

func TestARetiredFunctionLeavesOthersAlone(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	var stops []func()
	for _, cluster := range []string{"east", "west"} {
		w.start(t, cluster, "audit")
		stops = append(stops, w.start(t, cluster, "orders"))
	}
	w.publish(t, "o", 30)
	for _, cluster := range []string{"east", "west"} {
		w.caughtUp(t, cluster, "audit")
		w.caughtUp(t, cluster, "orders")
	}
	running := w.result(t, 1, "orders", "--yes")
	if diff := cmp.Diff([]string{"running", "running"}, running.kinds()); diff != "" || running.Done {
		t.Errorf("obstacles (-want +got):\n%s", diff)
	}
	for _, stop := range stops {
		stop()
	}
	w.wantConsumers(t, "tandem-east-audit", "tandem-east-orders", "tandem-west-audit", "tandem-west-orders")

	// Others continue while it is stopped: messages that it has not read would be lost.
	w.publish(t, "o", 2)
	if got := w.result(t, 1, "orders", "--yes"); len(got.Obstacles) != 1 || got.Obstacles[0].Kind != "messages" || got.Obstacles[0].Count != 2 ||
		!strings.Contains(strings.Join(got.Notes, "\n"), "stream EVENTS has 2 messages that no cluster has acknowledged: 2 "+placed) {
		t.Errorf("printed %+v", got)
	}
	out := w.retire(t, "orders", "--yes", "--discard", "messages").ok(t)
	for _, want := range []string{"REMOVED", "events in the ledger         tandem.ledger        30\n", "note: 2 messages that no cluster has acknowledged are lost\n", "function orders is retired\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	w.wantConsumers(t, "tandem-east-audit", "tandem-west-audit")
	w.wantLeft(t, "orders", map[string]int{})
	if w.horizon(t, "orders") != 31 || w.horizon(t, "audit") != 0 {
		t.Errorf("the horizons are %d and %d, want 31 and 0", w.horizon(t, "orders"), w.horizon(t, "audit"))
	}
	w.publish(t, "o", 8)
	for _, cluster := range []string{"east", "west"} {
		w.caughtUp(t, cluster, "audit")
	}
	if w.processed(t, "audit") != 40 || w.processed(t, "orders") != 30 {
		t.Errorf("%d and %d events are processed, want 40 and 30", w.processed(t, "audit"), w.processed(t, "orders"))
	}
	w.retire(t, "orders", "--yes").ok(t)

	// A function that returns continues where it ended.
	w.start(t, "east", "orders")
	w.caughtUp(t, "east", "orders")
	if n := w.processed(t, "orders"); n != 40 {
		t.Errorf("%d events are processed, want 40", n)
	}
}

// lose stores something of each kind that may be lost, in cluster west of function
// orders.
func (w *retireWorld) lose(t *testing.T) {
	t.Helper()

	stop := w.start(t, "west", "orders")
	w.publish(t, "o", 3)
	w.publish(t, "bad", 1)
	w.publish(t, "loud", 2)
	w.caughtUp(t, "west", "orders")
	stop()
	w.publish(t, "o", 4) // which it does not read
	// A row of the outbox that also has an output of another function.
	sinktest.Execute(t, w.pool, `update tandem.outbox set events = '[' || substr(events, 2, length(events) - 2) || E',\n{"specversion":"1.0","id":"7","source":"/tandem/audit","type":"t"}]'
		where id = (select min(id) from tandem.outbox)`)
	sinktest.Execute(t, w.pool, `insert into tandem.rejected_output (source, id, type, code, reason, event) values ('/tandem/orders', '1', 't', 413, 'too large', '{}'), ('/tandem/audit', '1', 't', 413, 'too large', '{}')`)
	late := deferred.Event{
		Key: ledger.NewKey("orders", "/test", "late"), Source: "/test", ID: "late", Type: placed, Stream: "EVENTS", Epoch: "e1", Sequence: 4, Arrived: time.Now(),
		Version: "1", Fingerprint: "23514 orders", Reason: "no partition", Proven: true, Event: []byte("{}"),
	}
	if _, err := deferred.NewStore(w.pool, "west").Defer(t.Context(), "orders", []deferred.Event{late}, time.Hour); err != nil {
		t.Fatal(err)
	}
	behind := ledger.StoredEvent{Subject: "s", Source: "/test", ID: "behind", Stream: "EVENTS", Event: []byte("{}")}
	if _, err := ledger.NewBlocked(w.pool, "west").Store(t.Context(), "orders", []ledger.StoredEvent{behind}); err != nil {
		t.Fatal(err)
	}
}

func TestItRefusesToLoseAnything(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	w.lose(t)
	all := []string{"dead-letters", "deferred", "messages", "outputs", "rejected-outputs", "stored"}
	got := w.result(t, 1, "orders", "--yes")
	if diff := cmp.Diff(all, got.kinds()); diff != "" {
		t.Fatalf("obstacles (-want +got):\n%s", diff)
	}
	counts := map[string]int64{}
	for _, o := range got.Obstacles {
		counts[o.Kind] = o.Count
	}
	if diff := cmp.Diff(map[string]int64{"messages": 4, "dead-letters": 1, "deferred": 1, "stored": 1, "outputs": 2, "rejected-outputs": 1}, counts); diff != "" {
		t.Errorf("obstacles (-want +got):\n%s", diff)
	}
	refused := w.retire(t, "orders")
	refused.fails(t, 1, "")
	if want := "refused: 1 deferred events: tandem deferred list --function orders, or --discard deferred\n"; !strings.Contains(refused.out, want) {
		t.Errorf("no %q in\n%s", want, refused.out)
	}
	for i, kind := range all { // each of them alone is enough
		others := strings.Join(slices.Concat(all[:i:i], all[i+1:]), ",")
		if got := w.result(t, 1, "orders", "--yes", "--discard", others); len(got.Obstacles) != 1 || got.Obstacles[0].Kind != kind {
			t.Errorf("without %s, the obstacles are %v", kind, got.kinds())
		}
	}
	if n := len(w.consumers(t)); n != 1 {
		t.Errorf("%d consumers are left, want 1", n)
	}
	if holder := sinktest.Query[string](t, w.pool, "select site from tandem.source_lease"); holder != "site-west" {
		t.Errorf("the lease is that of %s, so the source could not start", holder)
	}
	w.result(t, 0, "orders", "--yes", "--discard", strings.Join(all, ","))
	w.wantLeft(t, "orders", map[string]int{})
	w.wantLeft(t, "audit", map[string]int{"outbox": 1, "rejected_output": 1})
	if events := sinktest.Query[string](t, w.pool, "select string_agg(events, ' ') from tandem.outbox"); !json.Valid([]byte(events)) || strings.Contains(events, "orders") {
		t.Errorf("the outbox has %s", events)
	}
}

func TestWhatAnotherClusterHoldsIsNotLost(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	w.start(t, "east", "orders")
	w.lose(t)
	w.caughtUp(t, "east", "orders")
	// East has a dead letter of the same event; only west has the deferred and the stored one.
	if got := w.result(t, 1, "orders", "--cluster", "west", "--yes"); cmp.Diff([]string{"deferred", "stored"}, got.kinds()) != "" {
		t.Errorf("the obstacles are %v", got.kinds())
	}
	sinktest.Execute(t, w.pool, `insert into tandem.dead_letter (function, source, id, cluster, type, code, reason, event) values ('orders', '/test', 'late', 'east', 't', 422, '', '{}')`)
	commitOnce(t, w.pool, "behind")
	w.result(t, 0, "orders", "--cluster", "west", "--yes")
	if n := w.count(t, "select count(*) from tandem.dead_letter where cluster = 'east'"); n != 2 {
		t.Errorf("east has %d dead letters, want 2", n)
	}
	w.wantConsumers(t, "tandem-east-orders")
}

// commitOnce commits an event of function orders without effects.
func commitOnce(t *testing.T, pool *pgxpool.Pool, id string) {
	t.Helper()

	writer := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	if r, err := writer.Commit(t.Context(), sinkwriter.Offer{Function: "orders", Version: "1", Event: sinktest.NewEvent(id)}); err != nil || !r.Won {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestTheLastWorkingClusterStays(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	stop := w.startAndProcess(t, "east", "orders", 3)
	if got := w.result(t, 1, "--cluster", "east", "orders", "--yes"); cmp.Diff([]string{"last", "running"}, got.kinds()) != "" {
		t.Errorf("the obstacles are %v", got.kinds())
	}
	stop()
	w.start(t, "west", "orders")
	w.caughtUp(t, "west", "orders")
	sinktest.Execute(t, w.pool, `insert into tandem.standby (function, cluster) values ('orders', 'west')`)
	if got := w.result(t, 1, "--cluster", "east", "orders"); cmp.Diff([]string{"standby"}, got.kinds()) != "" || got.Obstacles[0].Next != "tandem hedge orders race" {
		t.Errorf("the obstacles are %+v", got.Obstacles)
	}
	sinktest.Execute(t, w.pool, `delete from tandem.standby`)
	w.result(t, 0, "--cluster", "east", "orders", "--yes")
}

func TestAProcessThatReadsTheStreamOfAnotherDatabaseCounts(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	w.startAndProcess(t, "east", "orders", 3)
	// A copy of the database, in which the source ended long ago.
	other := sinktest.NewDatabase(t)
	sinktest.Execute(t, other, `insert into tandem.progress (cluster, function, stream, epoch, floor, head, saved_at) values ('east', 'orders', 'EVENTS', 'e1', 4, 4, now() - interval '1 hour')`)
	w.env["DATABASE_URL"] = other.Config().ConnString()
	got := w.result(t, 1, "orders", "--yes")
	if len(got.Obstacles) != 1 || got.Obstacles[0].Text != "a process reads stream EVENTS for cluster east, and saves no checkpoint in this database" {
		t.Errorf("the obstacles are %+v", got.Obstacles)
	}
}

func TestARetirementWithoutItsStreams(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	stop := w.startAndProcess(t, "east", "orders", 3)
	stop()
	delete(w.env, "NATS_URL")
	w.retire(t, "orders").fails(t, 2, "if the servers are gone for good, --discard messages")
	// The answering servers do not have the stream.
	w.env["NATS_URL"] = natstest.Start(t).URL()
	if got := w.result(t, 1, "orders"); len(got.Obstacles) != 1 || !strings.Contains(got.Obstacles[0].Text, "have no stream EVENTS") {
		t.Errorf("the obstacles are %+v", got.Obstacles)
	}
	delete(w.env, "NATS_URL")
	got := w.result(t, 0, "orders", "--yes", "--discard", "messages")
	if !got.Done || !slices.Contains(got.Notes, "without --nats-url no consumer is deleted, and messages are not looked at") {
		t.Errorf("printed %+v", got)
	}
	w.wantLeft(t, "orders", map[string]int{})
}

func TestARetirementInTwoDomains(t *testing.T) {
	t.Parallel()

	east, west, _ := natstest.StartDomains(t, "east", "west")
	w := newRetireWorldAt(t, east)
	w.servers["west"], w.streams["west"] = west, "COPY"
	mirror := natsjs.StreamConfig{Name: "COPY", Mirror: &natsjs.StreamSource{Name: "EVENTS", External: &natsjs.ExternalStream{APIPrefix: "$JS.east.API"}}}
	eventtest.Eventually(t, "the mirror is there", func() bool {
		_, err := natstest.JetStream(t, west.URL()).CreateStream(t.Context(), mirror)
		return err == nil
	})
	stop := []func(){w.start(t, "east", "orders"), w.start(t, "west", "orders")}
	w.publish(t, "o", 5)
	for i, cluster := range []string{"east", "west"} {
		w.caughtUp(t, cluster, "orders")
		stop[i]()
	}
	got := w.result(t, 0, "orders")
	if want := "no consumer of cluster west reads EVENTS or a mirror of it at these servers: if one does in another domain, --domains"; !slices.Contains(got.Notes, want) {
		t.Errorf("printed %+v", got)
	}
	got = w.result(t, 0, "orders", "--domains", "west", "--yes")
	if want := (removedThing{"consumer tandem-west-orders", "stream COPY@west", 1}); !slices.Contains(got.Removed, want) || len(got.Notes) > 0 {
		t.Errorf("printed %+v", got)
	}
	for server, stream := range map[*natstest.Server]string{east: "EVENTS", west: "COPY"} {
		if _, err := natstest.JetStream(t, server.URL()).Consumer(t.Context(), stream, "tandem-east-orders"); !errors.Is(err, natsjs.ErrConsumerNotFound) {
			t.Errorf("stream %s: %v", stream, err)
		}
		if _, err := natstest.JetStream(t, server.URL()).Consumer(t.Context(), stream, "tandem-west-orders"); !errors.Is(err, natsjs.ErrConsumerNotFound) {
			t.Errorf("stream %s: %v", stream, err)
		}
	}
	if n := w.horizon(t, "orders"); n != 6 {
		t.Errorf("the horizon is %d, want 6", n)
	}
}

// TestAFunctionWithoutASourceMayBeAtWork has events that something else delivers, as Knative's
// KafkaSource: there are no checkpoints.
func TestAFunctionWithoutASourceMayBeAtWork(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	commitOnce(t, w.pool, "just-now")
	if got := w.result(t, 1, "orders", "--yes"); len(got.Obstacles) != 1 || !strings.Contains(got.Obstacles[0].Text, "and no source of its own has a checkpoint") {
		t.Errorf("the obstacles are %+v", got.Obstacles)
	}
	sinktest.Execute(t, w.pool, "update tandem.ledger set committed_at = now() - interval '4 minutes'")
	delete(w.env, "NATS_URL") // it reads no stream of NATS
	w.result(t, 0, "orders", "--yes")
	w.wantLeft(t, "orders", map[string]int{})
}

func TestAWrongRetirementIsExplained(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	stop := w.startAndProcess(t, "east", "orders", 3)
	stop()
	for want, args := range map[string][]string{
		"want the name of a function: see tandem retire --help":   {},
		`argument "more": want FUNCTION only`:                     {"orders", "more"},
		`--discard "all": want dead-letters, deferred, messages,`: {"orders", "--discard", "all"},
		"--revoke and --cluster":                                  {"orders", "--cluster", "east", "--revoke", "x"},
		`ever run for function "order"`:                           {"order", "--yes"},
		`nor of cluster "south" of it`:                            {"order", "--cluster", "south"},
		"there is no such role":                                   {"orders", "--revoke", "nobody-at-all"},
	} {
		w.retire(t, args...).fails(t, 2, want)
	}

	// The writing role lacks the privileges, and nothing has changed.
	owner := w.env["DATABASE_URL"]
	writer := pgtest.Role(t, owner)
	u, err := url.Parse(writer)
	if err != nil {
		t.Fatal(err)
	}
	role := u.User.Username()
	if _, err := schema.Grant(t.Context(), owner, role); err != nil {
		t.Fatal(err)
	}
	before := w.leftOf(t, "orders")
	w.env["DATABASE_URL"] = writer
	w.retire(t, "orders", "--yes").fails(t, 2, "use the role that runs tandem migrate")
	w.wantLeft(t, "orders", before)
	w.wantConsumers(t, "tandem-east-orders")

	// A role that has sessions is not revoked either.
	w.env["DATABASE_URL"] = owner
	conn, err := pgx.Connect(t.Context(), writer)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.result(t, 1, "orders", "--yes", "--revoke", role); len(got.Obstacles) != 1 || got.Obstacles[0].Text != "role "+role+" has 1 sessions in this database" {
		t.Errorf("the obstacles are %+v", got.Obstacles)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "the session has ended", func() bool {
		return w.count(t, "select count(*) from pg_stat_activity where usename = $1", role) == 0
	})
	got := w.result(t, 0, "orders", "--yes", "--revoke", role)
	if !got.Done || len(got.Revoked) == 0 || !strings.HasSuffix(got.Revoked[0], " from "+role) {
		t.Errorf("printed %+v", got)
	}
	if n := w.count(t, "select count(*) from tandem.writing_role where role = $1", role); n != 0 {
		t.Error("the role is still among those that write")
	}
}

func TestTwoRetireAFunctionAtOnce(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	for _, cluster := range []string{"east", "west"} {
		stop := w.start(t, cluster, "orders")
		w.publish(t, "loud", 20)
		w.caughtUp(t, cluster, "orders")
		stop()
	}
	w.start(t, "east", "audit")
	w.caughtUp(t, "east", "audit")
	var together sync.WaitGroup
	results := make([]ran, 4)
	for i := range results {
		together.Go(func() { results[i] = w.retire(t, "orders", "--yes", "--discard", "outputs,messages") })
	}
	together.Wait()
	for _, got := range results {
		if out := got.ok(t); !strings.HasSuffix(out, "function orders is retired\n") && !strings.HasSuffix(out, "nothing is left of function orders\n") {
			t.Errorf("printed\n%s", out)
		}
	}
	w.wantLeft(t, "orders", map[string]int{})
	w.wantConsumers(t, "tandem-east-audit")
	if w.horizon(t, "orders") != 41 || w.processed(t, "audit") != 40 {
		t.Errorf("the horizon is %d, and %d events are processed; want 41 and 40", w.horizon(t, "orders"), w.processed(t, "audit"))
	}
}

// runTool is the variable that makes this test binary the tool.
const runTool = "TANDEM_TEST_RUN_TOOL"

func TestARetirementThatIsKilledGoesOn(t *testing.T) {
	t.Parallel()

	for name, hold := range map[string]string{
		"in the ledger":   `select from tandem.ledger where ctid = (select max(ctid) from tandem.ledger where writer = 1) for update`,
		"before its rows": `lock table tandem.dead_letter in share row exclusive mode`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := newRetireWorld(t)
			stop := w.startAndProcess(t, "east", "orders", 10)
			stop()
			w.start(t, "east", "audit")
			w.caughtUp(t, "east", "audit")
			// More rows of the ledger than one transaction deletes.
			sinktest.Execute(t, w.pool, `insert into tandem.writer (writer, cluster, function, version) values (1, 'east', 'orders', '0')`)
			sinktest.Execute(t, w.pool, `insert into tandem.ledger (key, digest, writer) select gen_random_uuid(), '\x00112233445566778899aabbccddeeff', 1 from generate_series(1, 150000)`)
			tx, err := w.pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
			if _, err := tx.Exec(t.Context(), hold); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(context.Background(), os.Args[0], "retire", "orders", "--yes")
			cmd.Env = append(os.Environ(), runTool+"=1", "DATABASE_URL="+w.env["DATABASE_URL"], "NATS_URL="+w.env["NATS_URL"])
			p := eventtest.StartProcess(t, cmd)
			eventtest.Eventually(t, "it waits for the lock", func() bool {
				return w.count(t, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'tandem' and wait_event_type = 'Lock'") == 1
			})
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if p.Wait(t) == nil {
				t.Fatal("it was not killed")
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			// Until it is run again, no source starts.
			held, holder, err := lease.New(w.pool, "east").Acquire(t.Context(), "orders", lease.Holder{Site: "site-east", Replica: "one"}, true)
			if err != nil || held.Epoch != 0 || holder.Site != "tandem-retire" {
				t.Errorf("the lease is %+v of %+v, %v", held, holder, err)
			}
			left := w.leftOf(t, "orders")
			if left["progress"] != 1 || left["source_lease"] != 1 || left["writer"] == 0 || w.horizon(t, "orders") != 11 || len(w.consumers(t)) != 1 {
				t.Errorf("left are %v, horizon %d, and consumers %v", left, w.horizon(t, "orders"), w.consumers(t))
			}
			w.result(t, 0, "orders", "--yes")
			w.wantLeft(t, "orders", map[string]int{})
			w.wantConsumers(t, "tandem-east-audit")
			w.publish(t, "o", 5)
			w.caughtUp(t, "east", "audit")
			w.start(t, "east", "orders")
			w.caughtUp(t, "east", "orders")
			if w.processed(t, "orders") != 15 || w.processed(t, "audit") != 15 {
				t.Errorf("%d and %d events are processed, want 15 and 15", w.processed(t, "orders"), w.processed(t, "audit"))
			}
		})
	}
}

func TestAFunctionStartsWhereItIsTold(t *testing.T) {
	t.Parallel()

	w := newRetireWorld(t)
	startAt := func(args ...string) ran {
		return invoke(t, w.env, append([]string{"start-at"}, args...)...)
	}
	w.publish(t, "o", 10)
	if out := startAt("orders", "7").ok(t); out != "function orders starts at message 7 of stream EVENTS, in every cluster; 4 messages wait for it\n" {
		t.Errorf("printed\n%s", out)
	}
	stop := w.start(t, "east", "orders")
	w.caughtUp(t, "east", "orders")
	stopWest := w.start(t, "west", "orders")
	w.caughtUp(t, "west", "orders")
	if n := w.processed(t, "orders"); n != 4 {
		t.Errorf("%d events are processed, want 4", n)
	}
	if c, err := w.js.Consumer(t.Context(), "EVENTS", "tandem-west-orders"); err != nil || c.CachedInfo().Config.OptStartSeq != 7 {
		t.Errorf("the consumer reads what lies before: %+v, %v", c, err)
	}
	startAt("orders", "beginning").fails(t, 2, "a cluster has a checkpoint of function orders in stream EVENTS: tandem retire orders first")
	stop()
	stopWest()
	w.retire(t, "orders", "--yes").ok(t)
	var got started
	for position, want := range map[string]uint64{"beginning": 1, "new": 11, "11": 11, "1h": 1, "2100-01-01T00:00:00Z": 11, "2001-01-01T00:00:00Z": 1} {
		if out := startAt("orders", position, "-o", "json").ok(t); json.Unmarshal([]byte(out), &got) != nil || got.Sequence != want || got.Messages != 11-want {
			t.Errorf("%s: %s, want message %d", position, out, want)
		}
	}
	startAt("orders", "12").fails(t, 2, "the last message of stream EVENTS is 10")
	startAt("orders", "soon").fails(t, 2, `position "soon": want a sequence, new, beginning`)
	startAt("orders").fails(t, 2, "want FUNCTION and POSITION: see tandem start-at --help")
	startAt("orders", "beginning").ok(t)
	w.start(t, "east", "orders")
	w.caughtUp(t, "east", "orders")
	if n := w.processed(t, "orders"); n != 14 {
		t.Errorf("%d events are processed, want the first 4 once more", n)
	}
}
