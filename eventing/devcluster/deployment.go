package devcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// PortStep is the difference between the first ports of two clusters, and between the
// servers' first port and that of the first cluster.
const PortStep = 10

// connectTimeout bounds the first connection to NATS.
const connectTimeout = 10 * time.Second

// Config is the configuration of a [Deployment].
type Config struct {
	// Dir holds the data of all servers, and the logs in Dir/log. Only one process may use
	// it at a time. PostgreSQL must be able to enter it, see [TempDir]. Required; created
	// if missing.
	Dir string

	// FirstPort on 127.0.0.1 is PostgreSQL's, the next one is NATS's. The ports of the
	// clusters begin at FirstPort + [PortStep], FirstPort + 2 · PortStep, and so on.
	// Defaults to free ports.
	FirstPort int

	// Programs are the result of [Build]. By default they are built into Dir/bin while
	// PostgreSQL starts, if NATS or a cluster is to be started, with the compiler's output
	// in BuildLog.
	Programs Programs
	BuildLog io.Writer

	// Postgres is a server to start, by default in Dir, unless DatabaseURL is an existing
	// database; with Standby a standby follows it asynchronously. Without either, every
	// cluster needs its own DatabaseURL.
	Postgres    *PostgresConfig
	Standby     bool
	DatabaseURL string

	// Prepare, if set, prepares the database before the clusters start, for example with
	// migrations. If the server is killed meanwhile, Prepare is called again.
	Prepare func(ctx context.Context, databaseURL string) error

	// NATS is a server, or several, to start, by default in Dir, unless NATSURL is an
	// existing server. Without either, every cluster needs its own NATSURL.
	NATS    *NATSConfig
	NATSURL string

	// Streams are created before the clusters start, unless they exist. Start waits until
	// each is stored on as many servers as it has replicas.
	Streams []jetstream.StreamConfig

	// Clusters are started last.
	Clusters []ClusterConfig

	// Linked puts a link between every two parts, see [Deployment.Link].
	Linked bool

	// RestartDelay and OnExit are those of [supervisor.Config].
	RestartDelay time.Duration
	OnExit       func(supervisor.Exit)

	// StopTimeout bounds Stop. Defaults to 10 s.
	StopTimeout time.Duration
}

// clusterPort returns the first port of a cluster.
func (c Config) clusterPort(i int) int { return c.FirstPort + PortStep*(i+1) }

// checkPorts detects early that a port is in use.
func (c Config) checkPorts() error {
	if c.FirstPort == 0 {
		return nil
	}
	check := func(what string, first, n int) error {
		for i := range n {
			if err := CheckPort(first + i); err != nil {
				return fmt.Errorf("%s: %w (--ports sets the first one, now %d)", what, err, c.FirstPort)
			}
		}
		return nil
	}
	var errs []error
	if c.Postgres != nil {
		errs = append(errs, check("PostgreSQL", c.FirstPort, 1))
	}
	if c.NATS != nil {
		errs = append(errs, check("NATS", c.FirstPort+1, 1))
	}
	for i, cluster := range c.Clusters {
		errs = append(errs, check("cluster "+cluster.Name, c.clusterPort(i), cluster.ports()))
	}
	return cmp.Or(errs...)
}

// Deployment is a database, streams and clusters on this machine, each part a process.
// Its methods are safe for concurrent use after Start.
type Deployment struct {
	// Supervisor runs all processes; more may be started.
	Supervisor *supervisor.Supervisor

	// Replicated is the database with its standby; nil without Config.Standby.
	Replicated *Replicated

	// NATS are the servers that were started.
	NATS []*NATS

	// Pool is connected to the database, NC and Conn are connected to NATS. They do not
	// use links. Nil without a database or NATS.
	Pool *pgxpool.Pool
	NC   *nats.Conn
	Conn *jetstream.Conn

	cfg         Config
	lock        *lock
	programs    Programs
	postgres    *Postgres
	standbyPort int // of the server that was the standby at first

	mu       sync.Mutex
	clusters []*Cluster
	links    map[string]*link.Link
}

// New returns a deployment whose folder is locked and whose ports are free. It starts
// no process. Stop must be called at the end, even if Start fails.
func New(cfg Config) (*Deployment, error) {
	if cfg.Dir == "" {
		return nil, errors.New("set up deployment: Dir is missing")
	}
	if cfg.DatabaseURL != "" {
		cfg.Postgres = nil
	}
	if cfg.NATSURL != "" {
		cfg.NATS = nil
	}
	cfg.StopTimeout = cmp.Or(cfg.StopTimeout, 10*time.Second)
	folder, err := acquireLock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	d := &Deployment{cfg: cfg, lock: folder, programs: cfg.Programs, links: map[string]*link.Link{}}
	if err = cfg.checkPorts(); err == nil {
		d.Supervisor, err = supervisor.New(supervisor.Config{
			LogDir: filepath.Join(cfg.Dir, "log"), RestartDelay: cfg.RestartDelay, OnExit: cfg.OnExit,
		})
	}
	if err != nil {
		folder.release()
		return nil, err
	}
	return d, nil
}

// Start starts all parts and waits until they are ready. Each part has a time limit;
// building has none.
func (d *Deployment) Start(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.startDatabase(gctx) })
	g.Go(func() error { return d.startStreams(gctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	for _, cfg := range d.cfg.Clusters {
		if _, err := d.StartCluster(cfg); err != nil {
			return err
		}
	}
	return d.WaitUntilReady(ctx)
}

func (d *Deployment) startDatabase(ctx context.Context) error {
	if err := d.startPostgres(ctx); err != nil || d.DatabaseURL() == "" {
		return err
	}
	var err error
	if d.Pool, err = pgxpool.New(ctx, d.DatabaseURL()); err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	if d.cfg.Prepare == nil {
		return nil
	}
	err = d.RetryDatabase(ctx, func(ctx context.Context) error { return d.cfg.Prepare(ctx, d.DatabaseURL()) })
	if err != nil && d.cfg.Postgres == nil {
		return fmt.Errorf("%w; check DATABASE_URL", err)
	}
	return err
}

func (d *Deployment) startPostgres(ctx context.Context) (err error) {
	if d.cfg.Postgres == nil {
		return nil
	}
	cfg := *d.cfg.Postgres
	cfg.Dir = cmp.Or(cfg.Dir, d.cfg.Dir)
	cfg.Port = cmp.Or(cfg.Port, d.cfg.FirstPort)
	if !d.cfg.Standby {
		d.postgres, err = StartPostgres(ctx, d.Supervisor, cfg)
		return err
	}
	standby := cfg
	standby.Dir, standby.Port = filepath.Join(d.cfg.Dir, "standby"), 0
	if d.Replicated, err = startReplicated(ctx, d.Supervisor, cfg, standby); err == nil {
		d.standbyPort = d.Replicated.Standby().Port()
	}
	return err
}

func (d *Deployment) startStreams(ctx context.Context) (err error) {
	if d.programs == (Programs{}) && (d.cfg.NATS != nil || len(d.cfg.Clusters) > 0) {
		if d.programs, err = Build(ctx, filepath.Join(d.cfg.Dir, "bin"), d.cfg.BuildLog); err != nil {
			return err
		}
	}
	if d.cfg.NATS != nil {
		if d.NATS, err = d.startNATS(ctx, *d.cfg.NATS); err != nil {
			return err
		}
	}
	if d.NATSURL() == "" {
		return nil
	}
	err = d.RetryStreams(ctx, func(context.Context) error {
		d.NC, err = nats.Connect(d.NATSURL(), nats.Name("tandem devcluster"), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
		return err
	})
	if err != nil {
		return fmt.Errorf("connect to NATS: %w; check NATS_URL", err)
	}
	if d.Conn, err = jetstream.Connect(ctx, d.NATSURL(), jetstream.Config{Name: "tandem devcluster"}); err != nil {
		return err
	}
	if err := d.Conn.Wait(ctx, connectTimeout); err != nil {
		return err
	}
	return d.RetryStreams(ctx, func(ctx context.Context) error {
		for _, s := range d.cfg.Streams {
			if err := d.Conn.EnsureStream(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *Deployment) startNATS(ctx context.Context, cfg NATSConfig) ([]*NATS, error) {
	cfg.Program = cmp.Or(cfg.Program, d.programs.NATS)
	cfg.Dir = cmp.Or(cfg.Dir, d.cfg.Dir)
	if cfg.Servers > 1 {
		var route func(from, to, url string) (string, error)
		if d.cfg.Linked {
			route = func(from, to, url string) (string, error) { return d.through(min(from, to)+"+"+max(from, to), url) }
		}
		return startNATSCluster(ctx, d.Supervisor, cfg, route)
	}
	if d.cfg.FirstPort != 0 {
		cfg.Port = cmp.Or(cfg.Port, d.cfg.FirstPort+1)
	}
	n, err := StartNATS(ctx, d.Supervisor, cfg)
	if err != nil {
		return nil, err
	}
	return []*NATS{n}, nil
}

// Postgres returns the server that accepts writes, or was the last one that did; nil if
// none was started.
func (d *Deployment) Postgres() *Postgres {
	if d.Replicated != nil {
		return d.Replicated.Primary()
	}
	return d.postgres
}

// DatabaseURL returns the URL of the database, not through a link; empty without a
// database.
func (d *Deployment) DatabaseURL() string {
	switch {
	case d.Replicated != nil:
		return d.Replicated.URL()
	case d.postgres != nil:
		return d.postgres.URL()
	default:
		return d.cfg.DatabaseURL
	}
}

// NATSURL returns the URLs of all NATS servers, separated by commas, not through a
// link; empty without NATS.
func (d *Deployment) NATSURL() string {
	if len(d.NATS) == 0 {
		return d.cfg.NATSURL
	}
	urls := make([]string, len(d.NATS))
	for i, n := range d.NATS {
		urls[i] = n.URL()
	}
	return strings.Join(urls, ",")
}

// StartCluster starts a cluster and does not wait for it. Programs and URLs default to
// those of the deployment. A cluster that has ended is started again at its old addresses.
func (d *Deployment) StartCluster(cfg ClusterConfig) (*Cluster, error) {
	cfg.Programs = cmp.Or(cfg.Programs, d.programs)
	cfg.DatabaseURL = cmp.Or(cfg.DatabaseURL, d.DatabaseURL())
	cfg.NATSURL = cmp.Or(cfg.NATSURL, d.NATSURL())
	c, err := d.newCluster(cfg)
	if err != nil {
		return nil, fmt.Errorf("start cluster %s: %w", cfg.Name, err)
	}
	if err := c.start(d.Supervisor); err != nil {
		return nil, fmt.Errorf("start cluster %s: %w", cfg.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, other := range d.clusters {
		if other.Name() == cfg.Name {
			d.clusters[i] = c
			return c, nil
		}
	}
	d.clusters = append(d.clusters, c)
	return c, nil
}

// newCluster returns a cluster with its addresses, behind its links.
func (d *Deployment) newCluster(cfg ClusterConfig) (*Cluster, error) {
	c, err := newCluster(cfg)
	if err != nil {
		return nil, err
	}
	if before := d.Cluster(cfg.Name); before != nil {
		c.firstPort = before.firstPort
	} else if c.firstPort, err = d.choosePorts(c.cfg); err != nil {
		return nil, err
	}
	if c.sink, err = d.sinkOf(c); err != nil || !d.cfg.Linked {
		return c, err
	}
	if d.Replicated != nil {
		c.cfg.DatabaseURL += "&connect_timeout=2" // before the other server is tried
	}
	if c.cfg.DatabaseURL, err = d.through(cfg.Name+"-postgres", c.cfg.DatabaseURL); err != nil {
		return nil, err
	}
	urls := strings.Split(c.cfg.NATSURL, ",")
	for i := range urls {
		if urls[i], err = d.through(cfg.Name+"-nats", urls[i]); err != nil {
			return nil, err
		}
	}
	c.cfg.NATSURL = strings.Join(urls, ",")
	return c, nil
}

// sinkOf returns the URL through which the source of a cluster reaches its function, through
// links if there are any.
func (d *Deployment) sinkOf(c *Cluster) (string, error) {
	urls := c.FunctionURLs()
	for i := range urls {
		if !d.cfg.Linked {
			break
		}
		var err error
		if urls[i], err = d.through(c.functionLink(i), urls[i]); err != nil {
			return "", err
		}
	}
	if c.cfg.Sink != nil {
		return c.cfg.Sink(urls)
	}
	return strings.Join(urls, ","), nil
}

// choosePorts returns the first port of a cluster.
func (d *Deployment) choosePorts(cfg ClusterConfig) (int, error) {
	for i, configured := range d.cfg.Clusters {
		if d.cfg.FirstPort != 0 && configured.Name == cfg.Name {
			return d.cfg.clusterPort(i), nil
		}
	}
	return FreePorts(cfg.ports())
}

// Clusters returns the clusters in the order of their first start.
func (d *Deployment) Clusters() []*Cluster {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*Cluster(nil), d.clusters...)
}

// Cluster returns the cluster with a name, even if it has ended; nil if it was never
// started.
func (d *Deployment) Cluster(name string) *Cluster {
	for _, c := range d.Clusters() {
		if c.Name() == name {
			return c
		}
	}
	return nil
}

// WaitUntilReady waits until all clusters are ready.
func (d *Deployment) WaitUntilReady(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range d.Clusters() {
		g.Go(func() error { return c.WaitUntilReady(ctx) })
	}
	return g.Wait()
}

// Link returns the link with a name. With Config.Linked, cluster-postgres is between a
// cluster and the database, cluster-standby between it and the server that was the standby
// at first, cluster-nats between it and all NATS servers, cluster-function between its
// source and its function, cluster-function-2 between its source and the second instance,
// and nats-1+nats-2 between two NATS servers.
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

// through returns the URL through which target is reached over a link.
func (d *Deployment) through(name, target string) (string, error) {
	standby := net.JoinHostPort("127.0.0.1", strconv.Itoa(d.standbyPort))
	u, err := link.MapHosts(target, func(host string) (string, error) {
		if cluster, _, _ := strings.Cut(name, "-postgres"); host == standby {
			return d.Link(cluster + "-standby").Listen(host)
		}
		return d.Link(name).Listen(host)
	})
	if err != nil {
		return "", fmt.Errorf("make link %s: %w", name, err)
	}
	return u, nil
}

// Stop ends all processes, whatever their state, and unlocks the folder.
func (d *Deployment) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.StopTimeout)
	defer cancel()
	if d.Conn != nil {
		flushing, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_ = d.Conn.Close(flushing) // its published messages are already acknowledged
		cancel()
	}
	if d.NC != nil {
		d.NC.Close()
	}
	d.mu.Lock()
	links := d.links
	d.links = map[string]*link.Link{}
	d.mu.Unlock()
	for _, l := range links {
		l.Close()
	}
	if d.Pool != nil {
		go d.Pool.Close() // waits for connections in use, which wait for the server
	}
	d.Supervisor.Stop(ctx)
	d.lock.release()
}
