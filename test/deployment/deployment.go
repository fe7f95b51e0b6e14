package deployment

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
	"github.com/tandem-fn/tandem/test/deployment/workload/bank"
	"github.com/tandem-fn/tandem/test/deployment/workload/harm"
)

const (
	// replicas is the number of servers that share the streams.
	replicas = 3

	// tryFor is how long an event may fail before it becomes a dead letter.
	tryFor = 20 * time.Second
)

// The streams.
const (
	Inputs  = "EVENTS"
	Outputs = "OUTPUTS"
)

// Config configures a [Deployment]. The zero value of a field selects its default.
type Config struct {
	// Dir holds all data and logs. Required; PostgreSQL must have access to it, as
	// to one of [devcluster.TempDir].
	Dir string

	// Programs are those that [Build] returns. Required.
	Programs devcluster.Programs

	// Wrong are those that [BuildWrong] returns, for clusters whose clock is
	// wrong.
	Wrong devcluster.Programs

	// Disks puts the database and each server of the streams on a disk of its own that
	// can be filled, if the system supports it.
	Disks bool

	// Plant is a fault that is planted in the function. Defaults to none.
	Plant string

	// Env holds further variables for the processes of a cluster, by its name, and Sources
	// the number of replicas of its source.
	Env     map[string][]string
	Sources map[string]int

	// Standby adds an asynchronous standby to the database.
	Standby bool

	// Settings are added to PostgreSQL's, and Grace is that of devcluster.PostgresConfig.
	Settings map[string]string
	Grace    time.Duration
}

// Deployment holds everything that runs. Methods on clusters and links are safe
// for concurrent use.
type Deployment struct {
	*devcluster.Deployment

	// Admin is a superuser's pool on the server that was the primary at first.
	Admin *pgxpool.Pool

	// JS is a connection to the streams that does not cross a link.
	JS natsjs.JetStream

	cfg    Config
	states map[string]*state // by cluster
	disks  map[string]string // folder by server
}

// state is the part of a cluster's configuration that faults change.
type state struct {
	changing sync.Mutex
	version  string
	clock    time.Duration
}

// Clusters returns the names of the clusters.
func Clusters() []string { return []string{"east", "west"} }

// Functions returns the functions in their first version, except harm: the comparison
// must not compute its events.
func Functions() []functions.Function {
	return []functions.Function{flights.Function(), bank.Function("v1")}
}

// Build compiles the programs into dir; the function includes the faults that can
// be planted.
func Build(ctx context.Context, dir string, log io.Writer) (devcluster.Programs, error) {
	programs, err := devcluster.Build(ctx, dir, log)
	if err != nil {
		return devcluster.Programs{}, err
	}
	programs.Function = filepath.Join(dir, "function")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", programs.Function, "github.com/tandem-fn/tandem/test/deployment/function")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return devcluster.Programs{}, fmt.Errorf("build the function: %w", err)
	}
	return programs, nil
}

// Start starts everything and waits until it works.
func Start(ctx context.Context, cfg Config) (*Deployment, error) {
	d := &Deployment{cfg: cfg, states: map[string]*state{}, disks: map[string]string{}}
	if err := d.start(ctx); err != nil {
		d.Stop()
		return nil, err
	}
	return d, nil
}

func (d *Deployment) start(ctx context.Context) (err error) {
	postgres := &devcluster.PostgresConfig{Settings: map[string]string{"max_connections": "60"}, Grace: d.cfg.Grace}
	for name, value := range d.cfg.Settings {
		postgres.Settings[name] = value
	}
	if d.cfg.Disks {
		if err := d.mountDisks(); err != nil {
			return err
		}
		postgres.Dir = filepath.Join(d.cfg.Dir, "database")
	}
	cfg := devcluster.Config{
		Dir: d.cfg.Dir, Programs: d.cfg.Programs, Postgres: postgres, Standby: d.cfg.Standby, Prepare: migrate,
		NATS:    &devcluster.NATSConfig{Servers: replicas},
		Streams: []jetstream.StreamConfig{{Name: Inputs, Replicas: replicas}, {Name: Outputs, Replicas: replicas}},
		Linked:  true, RestartDelay: 300 * time.Millisecond,
	}
	for _, name := range Clusters() {
		d.states[name] = &state{version: "v1"}
		cfg.Clusters = append(cfg.Clusters, d.cluster(name))
	}
	if d.Deployment, err = devcluster.New(cfg); err != nil {
		return err
	}
	if err := d.Start(ctx); err != nil {
		return err
	}
	if d.JS, err = natsjs.New(d.NC); err != nil {
		return err
	}
	d.Admin, err = pgxpool.New(ctx, d.Postgres().AdminURL("postgres"))
	return err
}

func migrate(ctx context.Context, databaseURL string) error {
	var sets []schema.MigrationSet
	for _, f := range append(Functions(), harm.Function()) {
		sets = append(sets, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
	}
	return schema.Migrate(ctx, databaseURL, sets...)
}

// Publisher publishes inputs.
func (d *Deployment) Publisher() (*jetstream.Publisher, error) {
	return jetstream.NewPublisher(d.Conn, jetstream.StreamConfig{Name: Inputs})
}

// StartCluster starts a cluster again. It does not wait for it.
func (d *Deployment) StartCluster(name string) error {
	_, err := d.Deployment.StartCluster(d.cluster(name))
	return err
}

// cluster returns the configuration of a cluster as changed by faults.
func (d *Deployment) cluster(name string) devcluster.ClusterConfig {
	s := d.states[name]
	cfg := devcluster.ClusterConfig{Name: name, Sources: d.cfg.Sources[name], Env: slices.Concat([]string{
		"LOG_LEVEL=warn", fmt.Sprintf("TANDEM_STREAM_REPLICAS=%d", replicas), "TANDEM_TRY_FOR=" + tryFor.String(),
		"TANDEM_CHAOS_PLANT=" + d.cfg.Plant, "TANDEM_CHAOS_VERSION=" + s.version,
		clockVariable + "=" + s.clock.String(),
	}, d.cfg.Env[name])}
	if s.clock != 0 {
		cfg.Programs = d.cfg.Wrong
	}
	return cfg
}

// Process returns a process by name, or nil if its cluster is lost.
func (d *Deployment) Process(name string) *supervisor.Process {
	for _, n := range d.NATS {
		if n.Process().Name() == name {
			return n.Process()
		}
	}
	for _, c := range d.Clusters() {
		for _, p := range c.Processes() {
			if p.Name() == name {
				return p
			}
		}
	}
	return nil
}

// Stop ends everything, in any state.
func (d *Deployment) Stop() {
	if d.Admin != nil {
		d.Admin.Close()
	}
	if d.Deployment != nil {
		d.Deployment.Stop(context.Background())
	}
	d.unmountDisks()
}

// Wait waits for d. It returns false if ctx ended before.
func Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
