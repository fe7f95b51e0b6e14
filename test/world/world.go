package world

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
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/test/world/bank"
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

// Config sets up a [World]. A field left at zero takes the default named beside it.
type Config struct {
	// Dir holds all data and logs. Required; PostgreSQL must be able to enter it,
	// as [MakeDir] sees to.
	Dir string

	// Programs are what [Build] gives. Required.
	Programs devcluster.Programs

	// Wrong are what [BuildWrong] gives, for clusters whose clock is to be off.
	Wrong devcluster.Programs

	// Disks says that database and streams get disks of their own, where that is
	// possible, which can be full.
	Disks bool

	// Plant is a fault to be planted in the function. Defaults to none.
	Plant string

	// Env are further variables for the parts of a cluster, by its name.
	Env map[string][]string

	// Standby says that the database has one, which follows asynchronously.
	Standby bool

	// Settings are added to PostgreSQL's, and Grace is what devcluster.PostgresConfig has.
	Settings map[string]string
	Grace    time.Duration
}

// World is everything that runs. What it does to clusters and links may be done
// concurrently.
type World struct {
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
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", programs.Function, "github.com/tandem-fn/tandem/test/world/function")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return devcluster.Programs{}, fmt.Errorf("build the function: %w", err)
	}
	return programs, nil
}

// Start starts everything and waits until it works.
func Start(ctx context.Context, cfg Config) (*World, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	w := &World{
		cfg: cfg, links: map[string]*link.Link{}, clusters: map[string]*devcluster.Cluster{},
		versions: map[string]string{}, clocks: map[string]time.Duration{}, disks: map[string]string{}, changing: map[string]*sync.Mutex{}, ports: map[string]int{},
	}
	if err := w.startAll(ctx); err != nil {
		w.Stop()
		return nil, err
	}
	return w, nil
}

func (w *World) startAll(ctx context.Context) (err error) {
	if w.sup, err = supervisor.New(supervisor.Config{LogDir: filepath.Join(w.cfg.Dir, "log"), RestartDelay: 300 * time.Millisecond}); err != nil {
		return err
	}
	if err = w.startDatabase(ctx); err != nil {
		return err
	}
	if w.NATS, err = devcluster.StartNATSCluster(ctx, w.sup, replicas, devcluster.NATSConfig{
		Program: w.cfg.Programs.NATS, Dir: w.cfg.Dir,
		Route: func(from, to, url string) (string, error) { return w.through(routeName(from, to), url) },
	}); err != nil {
		return err
	}
	if err = w.connect(ctx); err != nil {
		return err
	}
	for _, name := range Clusters() {
		w.changing[name], w.versions[name] = &sync.Mutex{}, "v1"
		if err = w.StartCluster(ctx, name); err != nil {
			return err
		}
	}
	return w.waitForClusters(ctx)
}

func (w *World) startDatabase(ctx context.Context) (err error) {
	dir := w.cfg.Dir
	if w.cfg.Disks {
		if err := w.mountDisks(); err != nil {
			return err
		}
		dir = filepath.Join(dir, "database")
	}
	settings := map[string]string{"max_connections": "60"}
	for name, value := range w.cfg.Settings {
		settings[name] = value
	}
	server := func(dir string) devcluster.PostgresConfig {
		return devcluster.PostgresConfig{Dir: dir, Settings: settings, Grace: w.cfg.Grace}
	}
	if w.cfg.Standby {
		if w.Replicated, err = devcluster.StartReplicated(ctx, w.sup, server(dir), server(filepath.Join(w.cfg.Dir, "standby"))); err == nil {
			w.standbyPort = w.Replicated.Standby().Port()
		}
	} else {
		w.single, err = devcluster.StartPostgres(ctx, w.sup, server(dir))
	}
	if err != nil {
		return err
	}
	var sets []sinkwriter.MigrationSet
	for _, f := range Functions() {
		sets = append(sets, sinkwriter.MigrationSet{Name: f.Name, Files: f.Migrations})
	}
	return sinkwriter.Migrate(ctx, w.DatabaseURL(), sets...)
}

// Postgres is the server that takes writes, or did so last.
func (w *World) Postgres() *devcluster.Postgres {
	if w.Replicated != nil {
		return w.Replicated.Primary()
	}
	return w.single
}

// DatabaseURL connects to the server that takes writes, over no link.
func (w *World) DatabaseURL() string {
	if w.Replicated != nil {
		return w.Replicated.URL()
	}
	return w.single.URL()
}

// connect connects this program, and makes the streams.
func (w *World) connect(ctx context.Context) error {
	var err error
	if w.Pool, err = pgxpool.New(ctx, w.DatabaseURL()); err != nil {
		return err
	}
	if w.Admin, err = pgxpool.New(ctx, w.Postgres().AdminURL("postgres")); err != nil {
		return err
	}
	var urls []string
	for _, n := range w.NATS {
		urls = append(urls, n.URL())
	}
	all := strings.Join(urls, ",")
	if w.nc, err = nats.Connect(all, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return err
	}
	if w.JS, err = natsjs.New(w.nc); err != nil {
		return err
	}
	if w.Conn, err = jetstream.Connect(ctx, all, jetstream.Config{Name: "world"}); err != nil {
		return err
	}
	for _, name := range []string{Inputs, Outputs} {
		for {
			err := w.Conn.EnsureStream(ctx, jetstream.StreamConfig{Name: name, Replicas: replicas})
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
func (w *World) Publisher() (*jetstream.Publisher, error) {
	return jetstream.NewPublisher(w.Conn, jetstream.StreamConfig{Name: Inputs})
}

// StartCluster starts a cluster behind its links; again, at its old addresses. It
// does not wait for it.
func (w *World) StartCluster(ctx context.Context, name string) error {
	databaseURL := w.DatabaseURL()
	if w.Replicated != nil {
		databaseURL += "&connect_timeout=2" // until the other server is tried
	}
	databaseURL, err := w.through(name+"-postgres", databaseURL)
	if err != nil {
		return err
	}
	var natsURLs []string
	for _, n := range w.NATS {
		u, err := w.through(name+"-nats", n.URL())
		if err != nil {
			return err
		}
		natsURLs = append(natsURLs, u)
	}
	if w.ports[name] == 0 {
		if w.ports[name], err = freePorts(devcluster.ClusterPorts); err != nil {
			return err
		}
	}
	programs := w.cfg.Programs
	if w.clocks[name] != 0 {
		programs = w.cfg.Wrong
	}
	var linkErr error
	c, err := devcluster.StartCluster(w.sup, devcluster.ClusterConfig{
		Name: name, Programs: programs, DatabaseURL: databaseURL, NATSURL: strings.Join(natsURLs, ","),
		FirstPort: w.ports[name],
		Through: func(target string) string {
			u, err := w.through(name+"-function", target)
			linkErr = err
			return u
		},
		Env: slices.Concat([]string{
			"LOG_LEVEL=warn", fmt.Sprintf("TANDEM_STREAM_REPLICAS=%d", replicas),
			"TANDEM_CHAOS_PLANT=" + w.cfg.Plant, "TANDEM_CHAOS_VERSION=" + w.versions[name],
			clockVariable + "=" + w.clocks[name].String(),
		}, w.cfg.Env[name]),
	})
	if err = errors.Join(err, linkErr); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clusters[name] = c
	return nil
}

// Cluster is the cluster of a name, also if it is gone.
func (w *World) Cluster(name string) *devcluster.Cluster {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clusters[name]
}

func (w *World) waitForClusters(ctx context.Context) error {
	for _, name := range Clusters() {
		if err := w.Cluster(name).WaitUntilReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// through returns the URL by which target is reached over a link. There may be several
// hosts in it, with commas between.
func (w *World) through(name, target string) (string, error) {
	cluster, _, _ := strings.Cut(name, "-")
	u, err := link.MapHosts(target, func(host string) (string, error) {
		if w.Replicated != nil && strings.HasSuffix(host, ":"+strconv.Itoa(w.standbyPort)) {
			return w.Link(cluster + "-standby").Listen(host)
		}
		return w.Link(name).Listen(host)
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
func (w *World) Link(name string) *link.Link {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.links[name]
	if l == nil {
		l = link.New()
		w.links[name] = l
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
func (w *World) Process(name string) *supervisor.Process {
	for _, n := range w.NATS {
		if n.Process().Name() == name {
			return n.Process()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.clusters {
		for _, p := range c.Processes() {
			if p.Name() == name {
				return p
			}
		}
	}
	return nil
}

// Stop ends everything, in whatever state it is.
func (w *World) Stop() {
	if w.nc != nil {
		w.nc.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if w.Conn != nil {
		_ = w.Conn.Close(ctx)
	}
	w.mu.Lock()
	links := w.links
	w.links = map[string]*link.Link{}
	w.mu.Unlock()
	for _, l := range links {
		l.Close()
	}
	for _, pool := range []*pgxpool.Pool{w.Pool, w.Admin} {
		if pool != nil {
			pool.Close()
		}
	}
	if w.sup != nil {
		w.sup.Stop(ctx)
	}
	w.unmountDisks()
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
