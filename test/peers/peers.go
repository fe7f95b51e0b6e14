package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter/schema"

	"github.com/tandem-fn/tandem/test/peers/consume"
)

// peer is one way to do the work.
type peer struct {
	name, title string
	consumer    string // its name in package consume; empty for Tandem
	shared      bool   // both clusters read through one durable consumer

	// concurrencies are tried beforehand; the best one is measured.
	concurrencies []int

	// factor multiplies the events of a trial: a fast peer needs more, or the
	// trial ends before it can be measured.
	factor int

	env   []string // of Tandem's processes
	setup func(ctx context.Context, pool *pgxpool.Pool) error
}

// workers are the concurrencies of peers with a transaction for each event.
var workers = []int{8, 24, 64}

// allPeers returns all peers, in the order of the table.
func allPeers() []peer {
	handWritten := func(ctx context.Context, pool *pgxpool.Pool) error { return tables(ctx, pool) }
	watermill := func(ctx context.Context, pool *pgxpool.Pool) error {
		if err := tables(ctx, pool); err != nil {
			return err
		}
		return consume.PrepareWatermill(ctx, pool)
	}
	list := []peer{
		{name: "by-hand", title: "by hand, a round trip a statement", consumer: "by-hand", setup: handWritten},
		{name: "by-hand-1", title: "by hand, one statement", consumer: "by-hand-1", setup: handWritten},
		{name: "by-hand-1-shared", title: "by hand, one statement, one durable", consumer: "by-hand-1", shared: true, setup: handWritten},
		{name: "watermill", title: "Watermill", consumer: "watermill", setup: watermill},
		{name: "watermill-shared", title: "Watermill, one durable", consumer: "watermill", shared: true, setup: watermill},
		{name: "dbos", title: "DBOS", consumer: "dbos", setup: consume.PrepareDBOS},
		{name: "dbos-queue", title: "DBOS, through a queue", consumer: "dbos-queue", setup: consume.PrepareDBOS},
		{name: "dbos-shared", title: "DBOS, one durable", consumer: "dbos", shared: true, setup: consume.PrepareDBOS},
		{name: "river", title: "River", consumer: "river", setup: consume.PrepareRiver},
		{name: "river-shared", title: "River, one durable", consumer: "river", shared: true, setup: consume.PrepareRiver},
		{name: "tandem", title: "Tandem", concurrencies: inFlight, factor: tandemFactor},
		{name: "tandem-single", title: "Tandem, TANDEM_BATCH=1", concurrencies: inFlight, factor: tandemFactor, env: []string{"TANDEM_BATCH=1"}},
	}
	for i := range list {
		if list[i].consumer != "" {
			list[i].concurrencies, list[i].factor = workers, 1
		}
	}
	return list
}

// inFlight are the values of TANDEM_IN_FLIGHT; the first one is the default.
var inFlight = []int{1024}

// tandemFactor multiplies the events of Tandem's trials.
const tandemFactor = 5

// prepared returns the name of the template of the peer's database.
func (p peer) prepared() string {
	if p.consumer == "" {
		return "tandem"
	}
	return p.consumer
}

// prepare creates the common tables, and the peer's own.
func (p peer) prepare(ctx context.Context, databaseURL string) error {
	if p.consumer == "" {
		return schema.Migrate(ctx, databaseURL, schema.MigrationSet{Name: "flights", Files: flights.Function().Migrations})
	}
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer pool.Close()
	sql, err := fs.ReadFile(flights.Function().Migrations, "0001_flights.sql")
	if err != nil {
		return fmt.Errorf("read the tables of flights: %w", err)
	}
	if _, err := pool.Exec(ctx, string(sql)); err != nil {
		return fmt.Errorf("create the tables of flights: %w", err)
	}
	return p.setup(ctx, pool)
}

func tables(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, consume.Tables); err != nil {
		return fmt.Errorf("make tables: %w", err)
	}
	return nil
}

// durable returns the name of the peer's consumer in a cluster.
func (p peer) durable(cluster string) string {
	if p.consumer == "" {
		return "tandem-" + cluster + "-flights"
	}
	return consume.Config{Cluster: cluster, Shared: p.shared}.Durable()
}

// start starts the processes of a cluster.
func (p peer) start(ctx context.Context, d *deployment, cluster string, concurrency int) ([]*supervisor.Process, error) {
	databaseURL, err := d.URL(trialDatabase)
	if err != nil {
		return nil, err
	}
	if p.consumer == "" {
		return p.startTandem(ctx, d, cluster, databaseURL, concurrency)
	}
	text, err := json.Marshal(consume.Config{
		Peer: p.consumer, Cluster: cluster, DatabaseURL: databaseURL, NATSURL: d.NATSURL(), Concurrency: concurrency, Shared: p.shared,
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	part, err := d.Supervisor.Start(supervisor.ProcessConfig{
		Name: p.name + "-" + cluster, Path: d.self, Env: append(environment(), consume.Variable+"="+string(text)),
	})
	if err != nil {
		return nil, err
	}
	return []*supervisor.Process{part}, nil
}

// startTandem starts a function and a source, as they are deployed.
func (p peer) startTandem(ctx context.Context, d *deployment, cluster, databaseURL string, concurrency int) ([]*supervisor.Process, error) {
	port, err := devcluster.FreePort()
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	env := slices.Concat(environment(), []string{
		"TANDEM_CLUSTER=" + cluster, "DATABASE_URL=" + databaseURL, "NATS_URL=" + d.NATSURL(), "LOG_LEVEL=warn",
	}, p.env)
	function, err := d.Supervisor.Start(supervisor.ProcessConfig{
		Name: p.name + "-function-" + cluster, Path: d.programs.Function,
		Env: append(slices.Clone(env), "LISTEN_ADDRESS="+address, "TANDEM_FUNCTIONS=flights"),
	})
	if err != nil {
		return nil, err
	}
	parts := []*supervisor.Process{function}
	if err := awaitOK(ctx, "http://"+address+"/health/readiness"); err != nil {
		function.Destroy()
		return nil, fmt.Errorf("start %s: the function is not ready: %w", p.name, err)
	}
	source, err := d.Supervisor.Start(supervisor.ProcessConfig{
		Name: p.name + "-source-" + cluster, Path: d.programs.Source,
		Env: append(slices.Clone(env), "K_SINK=http://"+address, "TANDEM_FUNCTION=flights", "TANDEM_IN_FLIGHT="+strconv.Itoa(concurrency)),
	})
	if err != nil {
		function.Destroy()
		return nil, err
	}
	return append(parts, source), nil
}

// environment returns our environment without variables that would redirect a
// process.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool {
		for _, prefix := range []string{"PG", "DATABASE_URL=", "NATS_URL=", "TANDEM_", "K_", "DBOS_", "OTEL_", "LISTEN_ADDRESS=", "METRICS_ADDRESS=", "PORT="} {
			if strings.HasPrefix(s, prefix) {
				return true
			}
		}
		return false
	})
}

func awaitOK(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("GET %s: %s", url, resp.Status)
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
