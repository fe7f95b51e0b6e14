package clusters_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/feed"
)

var update = flag.Bool("update", false, "write what the commands of docs/adopt.md and docs/retire.md print")

// page runs the commands of a page in docs, and compares what they print: numbers, times and the
// width of columns may differ, and a line "…" stands for any lines. A comment <!-- test: NAME -->
// does what the page has the reader do outside, as in Kubernetes.
type page struct {
	name string
	env  []string
	do   map[string]func()
}

var pageAction = regexp.MustCompile(`^<!-- test: (.*) -->$`)

func (p page) run(t *testing.T) {
	t.Helper()

	file := filepath.Join("..", "..", "docs", p.name)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	exports := filepath.Join(t.TempDir(), "exports")
	if err := os.WriteFile(exports, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var written []string
	commands := 0
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		written = append(written, lines[i])
		if action := pageAction.FindStringSubmatch(lines[i]); action != nil {
			do, ok := p.do[action[1]]
			if !ok {
				t.Fatalf("%s:%d: unknown action %q", p.name, i+1, action[1])
			}
			do()
		}
		if lines[i] != "```console" {
			continue
		}
		for i++; lines[i] != "```"; {
			command := lines[i]
			if !strings.HasPrefix(command, "$ ") {
				t.Fatalf("%s:%d: want a command", p.name, i+1)
			}
			for strings.HasSuffix(lines[i], `\`) {
				i++
				command += "\n" + lines[i]
			}
			at := i + 1
			var want []string
			for i++; lines[i] != "```" && !strings.HasPrefix(lines[i], "$ "); i++ {
				want = append(want, lines[i])
			}
			got := p.bash(t, exports, strings.TrimPrefix(command, "$ "))
			commands++
			written = append(written, strings.Split(command, "\n")...)
			written = append(written, got...)
			if diff := cmp.Diff(strings.Join(masked(want), "\n"), strings.Join(masked(got), "\n")); diff != "" && !*update && !elided(want, got) {
				t.Errorf("%s:%d: %s printed (-page +printed):\n%s", p.name, at, command, diff)
			}
		}
		written = append(written, "```")
	}
	if commands < 5 {
		t.Errorf("%s: only %d commands were run", p.name, commands)
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(written, "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// bash runs a command and returns the lines that it prints. Variables that it exports are kept.
func (p page) bash(t *testing.T, exports, command string) []string {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", fmt.Sprintf(". %s\n%s\nexport -p >%s", exports, command, exports))
	cmd.Env = p.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out.String())
	}
	t.Logf("$ %s\n%s", command, out.String())
	if out.Len() == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
}

var (
	varying = regexp.MustCompile(`[0-9][0-9a-f.,:TZ+-]*(ms|µs|s|m|h)?`)
	spaces  = regexp.MustCompile(` +`)
)

// masked returns lines without what differs from run to run.
func masked(lines []string) []string {
	var list []string
	for _, line := range lines {
		list = append(list, strings.TrimSpace(spaces.ReplaceAllString(varying.ReplaceAllString(line, "#"), " ")))
	}
	return list
}

// elided reports whether lines are as the page has them, which leaves some out.
func elided(want, got []string) bool {
	want, got = masked(want), masked(got)
	for i, line := range want {
		if line == "…" {
			rest := want[i+1:]
			return len(got) >= i+len(rest) && cmp.Equal(want[:i], got[:i]) && cmp.Equal(rest, got[len(got)-len(rest):])
		}
	}
	return false
}

// build builds a package of this module into the folder of the programs.
func build(t *testing.T, programs devcluster.Programs, name, pkg string) (program string) {
	t.Helper()

	program = filepath.Join(filepath.Dir(programs.Source), name)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, pkg).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// pageEnv is the environment of commands on a page.
func pageEnv(d *devcluster.Deployment, programs devcluster.Programs) []string {
	return []string{
		"PATH=" + filepath.Dir(programs.Source) + string(os.PathListSeparator) + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
		"DATABASE_URL=" + d.DatabaseURL(), "NATS_URL=" + d.NATSURL(),
	}
}

// publishAll stores events in the stream.
func publishAll(t *testing.T, conn *jetstream.Conn, events []event.Event) {
	t.Helper()

	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: inputStream})
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "events are not stored", func(ctx context.Context) bool { return publisher.Publish(ctx, events) == nil })
}

// allCaughtUp waits until clusters have saved that they acknowledged the whole stream.
func allCaughtUp(t *testing.T, d *devcluster.Deployment, pool *pgxpool.Pool, clusters ...string) {
	t.Helper()

	poll(t, "a cluster lags", func(ctx context.Context) bool {
		extent, err := d.Conn.Extent(ctx, jetstream.StreamConfig{Name: inputStream})
		if err != nil {
			return false
		}
		var n int
		err = pool.QueryRow(ctx, "select count(*) from tandem.progress where cluster = any($1) and floor = $2", clusters, extent.Last+1).Scan(&n)
		return err == nil && n == len(clusters)
	})
}

// needsClients skips a test without PostgreSQL's client programs, which a downloaded server lacks.
func needsClients(t *testing.T) {
	t.Helper()

	for _, program := range []string{"psql", "pg_dump"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v: install PostgreSQL's client programs to run the commands of the page", err)
		}
	}
}

func TestTheCommandsOfThePageRetire(t *testing.T) {
	t.Parallel()

	needsClients(t)
	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	build(t, built, "tandem", "../../eventing/cmd/tandem")
	var clusters []devcluster.ClusterConfig
	for _, name := range []string{"east", "west"} {
		clusters = append(clusters, devcluster.ClusterConfig{Name: name, Env: []string{"TANDEM_SITE=" + name + "-site"}})
	}
	d, _ := start(t, devcluster.Config{
		Programs: built, Postgres: &devcluster.PostgresConfig{}, NATS: &devcluster.NATSConfig{}, Clusters: clusters,
		Streams: []jetstream.StreamConfig{{Name: inputStream}},
	})
	sent := 0
	publish := func(n int) {
		var events []event.Event
		for e, err := range feed.FlightEvents(sent) {
			if err != nil {
				t.Fatal(err)
			}
			if events = append(events, e); len(events) == n {
				break
			}
		}
		sent += n
		publishAll(t, d.Conn, events)
	}
	publish(1000)
	allCaughtUp(t, d, d.Pool, "east", "west")
	outboxEmpties(t, d.Pool)
	page{
		name: "retire.md", env: pageEnv(d, built), do: map[string]func(){
			"west is stopped":  func() { d.Cluster("west").Stop(t.Context()) },
			"east is stopped":  func() { d.Cluster("east").Stop(t.Context()) },
			"events arrive":    func() { publish(200) },
			"east has them":    func() { allCaughtUp(t, d, d.Pool, "east"); outboxEmpties(t, d.Pool) },
			"a bad event":      func() { publishAll(t, d.Conn, []event.Event{badFlight()}) },
			"east is deployed": func() { restart(t, d, clusters[0]) },
		},
	}.run(t)
}

// badFlight is an event that function flights rejects.
func badFlight() event.Event {
	e := event.New()
	e.SetID("flight-without-delay")
	e.SetSource("/tandem/flights-2001")
	e.SetType(feed.FlightType)
	_ = e.SetData(event.ApplicationJSON, map[string]any{"date": "2001/01/01 00:47", "origin": "DTW", "destination": "LAS", "distance": 1750})
	return e
}

// restart starts a cluster that was stopped, or a new one, and waits until it is ready.
func restart(t *testing.T, d *devcluster.Deployment, cfg devcluster.ClusterConfig) {
	t.Helper()

	c, err := d.StartCluster(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitUntilReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// worker is a service that reads the stream and writes the tables of docs/adopt.md by itself, in
// one place: it takes a message, writes in a transaction, and acknowledges.
type worker struct {
	stop func()
}

const workerName = "orders-worker"

func startWorker(t *testing.T, d *devcluster.Deployment, pool *pgxpool.Pool, from uint64) *worker {
	t.Helper()

	js, err := natsjs.New(d.NC)
	if err != nil {
		t.Fatal(err)
	}
	cfg := natsjs.ConsumerConfig{Durable: workerName, AckPolicy: natsjs.AckExplicitPolicy}
	if from > 0 {
		if err := js.DeleteConsumer(t.Context(), inputStream, workerName); err != nil && !errors.Is(err, natsjs.ErrConsumerNotFound) {
			t.Fatal(err)
		}
		cfg.DeliverPolicy, cfg.OptStartSeq = natsjs.DeliverByStartSequencePolicy, from
	}
	consumer, err := js.CreateOrUpdateConsumer(t.Context(), inputStream, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() {
		for ctx.Err() == nil {
			m, err := consumer.Next(natsjs.FetchMaxWait(100 * time.Millisecond))
			if errors.Is(err, nats.ErrTimeout) || errors.Is(err, natsjs.ErrNoMessages) {
				continue
			}
			if err == nil {
				err = work(context.WithoutCancel(ctx), pool, m)
			}
			if err != nil {
				t.Errorf("the worker: %v", err)
				return
			}
		}
	})
	stop := sync.OnceFunc(func() { cancel(); working.Wait() })
	t.Cleanup(stop)
	return &worker{stop}
}

func work(ctx context.Context, pool *pgxpool.Pool, m natsjs.Msg) error {
	var order struct {
		Customer string
		Amount   int64
	}
	if err := json.Unmarshal(m.Data(), &order); err != nil {
		return err
	}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "insert into orders values ($1, $2, $3) on conflict do nothing", m.Headers().Get("ce-id"), order.Customer, order.Amount)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, "insert into customers as c values ($1, 1, $2) on conflict (customer) do update set orders = c.orders + 1, spent = c.spent + $2", order.Customer, order.Amount)
		return err
	})
	if err != nil {
		return err
	}
	return m.DoubleAck(ctx)
}

// orders returns n orders, from a number on.
func orders(from, n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		e := event.New()
		e.SetID(fmt.Sprintf("order-%05d", from+i))
		e.SetSource("/shop")
		e.SetType("com.example.order.placed")
		_ = e.SetData(event.ApplicationJSON, map[string]any{"customer": fmt.Sprintf("c%d", (from+i)%7), "amount": from + i})
		events[i] = e
	}
	return events
}

// adopted is what the tables of docs/adopt.md hold.
func adopted(t *testing.T, pool *pgxpool.Pool) (orders, spent int) {
	t.Helper()

	if err := pool.QueryRow(t.Context(), "select (select count(*) from orders), (select coalesce(sum(spent), 0) from customers)::bigint").Scan(&orders, &spent); err != nil {
		t.Fatal(err)
	}
	return orders, spent
}

func TestTheCommandsOfThePageAdopt(t *testing.T) {
	t.Parallel()

	needsClients(t)
	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	build(t, built, "tandem", "../../eventing/cmd/tandem")
	built.Function = build(t, built, "orders", "./testdata/orders")
	d, _ := start(t, devcluster.Config{
		Programs: built, Postgres: &devcluster.PostgresConfig{}, NATS: &devcluster.NATSConfig{},
		Streams: []jetstream.StreamConfig{{Name: inputStream}},
		Prepare: func(ctx context.Context, databaseURL string) error {
			conn, err := pgx.Connect(ctx, databaseURL)
			if err != nil {
				return err
			}
			defer conn.Close(ctx) //nolint:errcheck // nothing is open on it
			ddl, err := os.ReadFile(filepath.Join("testdata", "orders", "orders.sql"))
			if err == nil {
				_, err = conn.Exec(ctx, string(ddl))
			}
			return err
		},
	})
	sent := 0
	publish := func(n int) {
		publishAll(t, d.Conn, orders(sent+1, n))
		sent += n
	}
	var service *worker
	work := func(from uint64) { service = startWorker(t, d, d.Pool, from) }
	workerDone := func() {
		poll(t, "the worker lags", func(ctx context.Context) bool {
			n, waiting, err := d.Conn.SequenceAfter(ctx, jetstream.StreamConfig{Name: inputStream}, workerName)
			return err == nil && waiting == 0 && n == uint64(sent+1)
		})
	}
	shadowURL, err := url.Parse(d.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	shadowURL.Path = "/shadow"
	cluster := func(name string, env ...string) devcluster.ClusterConfig {
		return devcluster.ClusterConfig{Name: name, Function: "orders", Env: append(env, "TANDEM_SITE="+name)}
	}
	var shadow *pgxpool.Pool
	publish(1000)
	work(0)
	workerDone()
	page{
		name: "adopt.md", env: append(pageEnv(d, built), "SHADOW_URL="+shadowURL.String(), "ADMIN_URL="+d.Postgres().AdminURL("postgres")), do: map[string]func(){
			"the service is stopped": func() { service.stop() },
			"the service is started": func() { work(0) },
			"events arrive":          func() { publish(500) },
			"the service has them":   workerDone,
			"shadow is deployed": func() {
				cfg := cluster("shadow", "TANDEM_OUTPUT_STREAM=SHADOW")
				cfg.DatabaseURL = shadowURL.String()
				restart(t, d, cfg)
				if shadow, err = pgxpool.New(t.Context(), cfg.DatabaseURL); err != nil {
					t.Fatal(err)
				}
			},
			"shadow has them": func() { allCaughtUp(t, d, shadow, "shadow") },
			"shadow is stopped": func() {
				d.Cluster("shadow").Stop(t.Context())
				shadow.Close()
			},
			"both clusters are deployed": func() { restart(t, d, cluster("east")); restart(t, d, cluster("west")) },
			"both clusters have them":    func() { allCaughtUp(t, d, d.Pool, "east", "west") },
			"both clusters are stopped":  func() { d.Cluster("east").Stop(t.Context()); d.Cluster("west").Stop(t.Context()) },
			"the service starts after the function": func() {
				var floor uint64
				if err := d.Pool.QueryRow(t.Context(), "select max(floor)::bigint from tandem.progress where function = 'orders'").Scan(&floor); err != nil {
					t.Fatal(err)
				}
				work(floor)
			},
		},
	}.run(t)
	workerDone()
	if n, spent := adopted(t, d.Pool); n != sent || spent != sent*(sent+1)/2 {
		t.Errorf("%d orders of %d, want %d of %d", n, spent, sent, sent*(sent+1)/2)
	}
}
