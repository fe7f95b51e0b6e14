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

	// tryFor is how long an event may fail until it is dead.
	tryFor = 20 * time.Second
)

// The streams.
const (
	Inputs  = "EVENTS"
	Outputs = "OUTPUTS"
)

// Config sets up a [Deployment]. A field left at zero takes the default named beside it.
type Config struct {
	// Dir holds all data and logs. Required; PostgreSQL must be able to enter it, as
	// one of [devcluster.TempDir].
	Dir string

	// Programs are those of [Build]. Required.
	Programs devcluster.Programs

	// Wrong are those of [BuildWrong], for clusters whose clock is wrong.
	Wrong devcluster.Programs

	// Disks puts the database and each server of the streams on a disk of its own that
	// can be full, where the system allows it.
	Disks bool

	// Plant is a fault that is planted in the function. Defaults to none.
	Plant string

	// Env are further variables for the processes of a cluster, by its name, and Sources is
	// how many replicas of the source it has.
	Env     map[string][]string
	Sources map[string]int

	// Standby adds a standby to the database, which follows asynchronously.
	Standby bool

	// Settings are added to PostgreSQL's, and Grace is what devcluster.PostgresConfig has.
	Settings map[string]string
	Grace    time.Duration
}

// Deployment is everything that runs. Methods on clusters and links are safe for
// concurrent use.
type Deployment struct {
	*devcluster.Deployment

	// Admin is connected as the superuser to the server that was the primary at first.
	Admin *pgxpool.Pool

	// JS is a connection to the streams that crosses no link.
	JS natsjs.JetStream

	cfg    Config
	states map[string]*state // by cluster
	disks  map[string]string // folder by server
}

// state is what faults change in a cluster.
type state struct {
	changing sync.Mutex
	version  string
	clock    time.Duration
}

// Clusters are the names of the clusters.
func Clusters() []string { return []string{"east", "west"} }

// Functions are those that run, in their first version, but for harm, of which nobody who
// has something to lose computes an event.
func Functions() []functions.Function {
	return []functions.Function{flights.Function(), bank.Function("v1")}
}

// Build compiles the parts into dir, the function with what may be planted.
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

// cluster returns a cluster as faults have left it.
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

// Process returns a process by its name, nil if its cluster is gone.
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

// Stop ends everything, in whatever state it is.
func (d *Deployment) Stop() {
	if d.Admin != nil {
		d.Admin.Close()
	}
	if d.Deployment != nil {
		d.Deployment.Stop(context.Background())
	}
	d.unmountDisks()
}

// Wait waits; false if ctx ended before.
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
