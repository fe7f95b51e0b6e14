package deployment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
	"github.com/tandem-fn/tandem/test/deployment/workload/bank"
)

const (
	replicas     = 3
	startTimeout = 2 * time.Minute
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

	// Env are further variables for the processes of a cluster, by its name.
	Env map[string][]string

	// Standby adds a standby to the database, which follows asynchronously.
	Standby bool

	// Settings are added to PostgreSQL's, and Grace is what devcluster.PostgresConfig has.
	Settings map[string]string
	Grace    time.Duration
}

// Deployment is everything that runs. Methods on clusters and links are safe for
// concurrent use.
type Deployment struct {
	// Replicated is the database with its standby; nil without one.
	Replicated *devcluster.Replicated

	// NATS are the servers that share the streams.
	NATS []*devcluster.NATS

	// Pool is the database's, as the role that owns it; Admin is the superuser's, of
	// the server that was the primary at first. Neither goes over a link.
	Pool, Admin *pgxpool.Pool

	// JS and Conn are connections to the streams that go over no link.
	JS   natsjs.JetStream
	Conn *jetstream.Conn

	cfg    Config
	sup    *supervisor.Supervisor
	single *devcluster.Postgres

	standbyPort int // of the server that was the standby at first

	nc       *nats.Conn
	links    map[string]*link.Link
	mu       sync.Mutex // for the clusters and the links
	clusters map[string]*devcluster.Cluster
	versions map[string]string
	clocks   map[string]time.Duration
	disks    map[string]string // folder by server
	changing map[string]*sync.Mutex
	ports    map[string]int
}

// Clusters are the names of the clusters.
func Clusters() []string { return []string{"east", "west"} }

// Functions are those that run, in their first version.
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
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	d := &Deployment{
		cfg: cfg, links: map[string]*link.Link{}, clusters: map[string]*devcluster.Cluster{},
		versions: map[string]string{}, clocks: map[string]time.Duration{}, disks: map[string]string{}, changing: map[string]*sync.Mutex{}, ports: map[string]int{},
	}
	if err := d.startAll(ctx); err != nil {
		d.Stop()
		return nil, err
	}
	return d, nil
}

func (d *Deployment) startAll(ctx context.Context) (err error) {
	if d.sup, err = supervisor.New(supervisor.Config{LogDir: filepath.Join(d.cfg.Dir, "log"), RestartDelay: 300 * time.Millisecond}); err != nil {
		return err
	}
	if err = d.startDatabase(ctx); err != nil {
		return err
	}
	if d.NATS, err = devcluster.StartNATSCluster(ctx, d.sup, replicas, devcluster.NATSConfig{
		Program: d.cfg.Programs.NATS, Dir: d.cfg.Dir,
		Route: func(from, to, url string) (string, error) { return d.through(routeName(from, to), url) },
	}); err != nil {
		return err
	}
	if err = d.connect(ctx); err != nil {
		return err
	}
	for _, name := range Clusters() {
		d.changing[name], d.versions[name] = &sync.Mutex{}, "v1"
		if err = d.StartCluster(ctx, name); err != nil {
			return err
		}
	}
	return d.waitForClusters(ctx)
}

func (d *Deployment) startDatabase(ctx context.Context) (err error) {
	dir := d.cfg.Dir
	if d.cfg.Disks {
		if err := d.mountDisks(); err != nil {
			return err
		}
		dir = filepath.Join(dir, "database")
	}
	settings := map[string]string{"max_connections": "60"}
	for name, value := range d.cfg.Settings {
		settings[name] = value
	}
	server := func(dir string) devcluster.PostgresConfig {
		return devcluster.PostgresConfig{Dir: dir, Settings: settings, Grace: d.cfg.Grace}
	}
	if d.cfg.Standby {
		if d.Replicated, err = devcluster.StartReplicated(ctx, d.sup, server(dir), server(filepath.Join(d.cfg.Dir, "standby"))); err == nil {
			d.standbyPort = d.Replicated.Standby().Port()
		}
	} else {
		d.single, err = devcluster.StartPostgres(ctx, d.sup, server(dir))
	}
	if err != nil {
		return err
	}
	var sets []schema.MigrationSet
	for _, f := range Functions() {
		sets = append(sets, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
	}
	return schema.Migrate(ctx, d.DatabaseURL(), sets...)
}

// Postgres is the server that takes writes, or did so last.
func (d *Deployment) Postgres() *devcluster.Postgres {
	if d.Replicated != nil {
		return d.Replicated.Primary()
	}
	return d.single
}

// DatabaseURL connects to the server that takes writes, over no link.
func (d *Deployment) DatabaseURL() string {
	if d.Replicated != nil {
		return d.Replicated.URL()
	}
	return d.single.URL()
}

// connect connects this program, and makes the streams.
func (d *Deployment) connect(ctx context.Context) error {
	var err error
	if d.Pool, err = pgxpool.New(ctx, d.DatabaseURL()); err != nil {
		return err
	}
	if d.Admin, err = pgxpool.New(ctx, d.Postgres().AdminURL("postgres")); err != nil {
		return err
	}
	var urls []string
	for _, n := range d.NATS {
		urls = append(urls, n.URL())
	}
	all := strings.Join(urls, ",")
	if d.nc, err = nats.Connect(all, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return err
	}
	if d.JS, err = natsjs.New(d.nc); err != nil {
		return err
	}
	if d.Conn, err = jetstream.Connect(ctx, all, jetstream.Config{Name: "deployment"}); err != nil {
		return err
	}
	for _, name := range []string{Inputs, Outputs} {
		for {
			err := d.Conn.EnsureStream(ctx, jetstream.StreamConfig{Name: name, Replicas: replicas})
			if err == nil {
				break
			}
			if !Wait(ctx, 100*time.Millisecond) {
				return fmt.Errorf("make stream %s: %w", name, err)
			}
		}
	}
	return nil
}

// Publisher publishes inputs.
func (d *Deployment) Publisher() (*jetstream.Publisher, error) {
	return jetstream.NewPublisher(d.Conn, jetstream.StreamConfig{Name: Inputs})
}

// StartCluster starts a cluster behind its links; again, at its old addresses. It
// does not wait for it.
func (d *Deployment) StartCluster(ctx context.Context, name string) error {
	databaseURL := d.DatabaseURL()
	if d.Replicated != nil {
		databaseURL += "&connect_timeout=2" // until the other server is tried
	}
	databaseURL, err := d.through(name+"-postgres", databaseURL)
	if err != nil {
		return err
	}
	var natsURLs []string
	for _, n := range d.NATS {
		u, err := d.through(name+"-nats", n.URL())
		if err != nil {
			return err
		}
		natsURLs = append(natsURLs, u)
	}
	if d.ports[name] == 0 {
		if d.ports[name], err = freePorts(devcluster.ClusterPorts); err != nil {
			return err
		}
	}
	programs := d.cfg.Programs
	if d.clocks[name] != 0 {
		programs = d.cfg.Wrong
	}
	var linkErr error
	c, err := devcluster.StartCluster(d.sup, devcluster.ClusterConfig{
		Name: name, Programs: programs, DatabaseURL: databaseURL, NATSURL: strings.Join(natsURLs, ","),
		FirstPort: d.ports[name],
		Through: func(target string) string {
			u, err := d.through(name+"-function", target)
			linkErr = err
			return u
		},
		Env: slices.Concat([]string{
			"LOG_LEVEL=warn", fmt.Sprintf("TANDEM_STREAM_REPLICAS=%d", replicas),
			"TANDEM_CHAOS_PLANT=" + d.cfg.Plant, "TANDEM_CHAOS_VERSION=" + d.versions[name],
			clockVariable + "=" + d.clocks[name].String(),
		}, d.cfg.Env[name]),
	})
	if err = errors.Join(err, linkErr); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clusters[name] = c
	return nil
}

// Cluster is the cluster of a name, also if it is gone.
func (d *Deployment) Cluster(name string) *devcluster.Cluster {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clusters[name]
}

func (d *Deployment) waitForClusters(ctx context.Context) error {
	for _, name := range Clusters() {
		if err := d.Cluster(name).WaitUntilReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// through returns the URL by which target is reached over a link. There may be several
// hosts in it, with commas between.
func (d *Deployment) through(name, target string) (string, error) {
	cluster, _, _ := strings.Cut(name, "-")
	u, err := link.MapHosts(target, func(host string) (string, error) {
		if d.Replicated != nil && strings.HasSuffix(host, ":"+strconv.Itoa(d.standbyPort)) {
			return d.Link(cluster + "-standby").Listen(host)
		}
		return d.Link(name).Listen(host)
	})
	if err != nil {
		return "", fmt.Errorf("make link %s: %w", name, err)
	}
	return u, nil
}

// Link is what is between a cluster and something else: east-postgres, east-standby
// (the server that was the standby at first), east-nats, and east-function, which is
// the way from its source to its function; or between two servers of the streams:
// nats-1+nats-2.
func (d *Deployment) Link(name string) *link.Link {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.links[name]
	if l == nil {
		l = link.New()
		d.links[name] = l
	}
	return l
}

// freePorts gives the first of so many side by side, none of which is given again.
func freePorts(n int) (int, error) {
	first, last := 0, 0
	for range 1000 {
		port, err := devcluster.FreePort()
		if err != nil {
			return 0, err
		}
		if port != last+1 {
			first = port
		}
		if last = port; last == first+n-1 {
			return first, nil
		}
	}
	return 0, errors.New("no free ports side by side")
}

// Process returns a process by its name, nil if its cluster is gone.
func (d *Deployment) Process(name string) *supervisor.Process {
	for _, n := range d.NATS {
		if n.Process().Name() == name {
			return n.Process()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.clusters {
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
	if d.nc != nil {
		d.nc.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if d.Conn != nil {
		_ = d.Conn.Close(ctx)
	}
	d.mu.Lock()
	links := d.links
	d.links = map[string]*link.Link{}
	d.mu.Unlock()
	for _, l := range links {
		l.Close()
	}
	for _, pool := range []*pgxpool.Pool{d.Pool, d.Admin} {
		if pool != nil {
			pool.Close()
		}
	}
	if d.sup != nil {
		d.sup.Stop(ctx)
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
