package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/hack/local"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/test/chaos/bank"
)

const (
	replicas     = 3
	startTimeout = 2 * time.Minute
)

// world is everything that runs.
type world struct {
	o        options
	sup      *local.Supervisor
	programs local.Programs
	postgres *local.Postgres
	nats     []*local.NATS
	links    map[string]*link
	pool     *pgxpool.Pool // not through a link
	admin    *pgxpool.Pool
	nc       *nats.Conn
	js       natsjs.JetStream
	conn     *jetstream.Conn

	mu       sync.Mutex // for the clusters, and who changes one
	clusters map[string]*local.Cluster
	versions map[string]string
	changing map[string]*sync.Mutex
	ports    map[string]int
}

// chaosFunctions are those that run, in their first version.
func chaosFunctions() []functions.Function {
	return []functions.Function{flights.Function(), bank.Function("v1")}
}

// build compiles the parts, the function with what may be planted.
func build(ctx context.Context, dir string, log io.Writer) (local.Programs, error) {
	programs, err := local.Build(ctx, dir, log)
	if err != nil {
		return local.Programs{}, err
	}
	programs.Function = filepath.Join(dir, "chaos-function")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", programs.Function, "github.com/tandem-fn/tandem/test/chaos/function")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return local.Programs{}, fmt.Errorf("build the function: %w", err)
	}
	return programs, nil
}

// start starts everything in o.dir and waits until it works.
func start(ctx context.Context, o options, programs local.Programs) (*world, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	w := &world{
		o: o, programs: programs, links: map[string]*link{}, clusters: map[string]*local.Cluster{},
		versions: map[string]string{}, changing: map[string]*sync.Mutex{}, ports: map[string]int{},
	}
	if err := w.startAll(ctx); err != nil {
		w.stop()
		return nil, err
	}
	return w, nil
}

func (w *world) startAll(ctx context.Context) (err error) {
	o := w.o
	if w.sup, err = local.NewSupervisor(local.SupervisorConfig{LogDir: filepath.Join(o.dir, "log"), RestartDelay: 300 * time.Millisecond}); err != nil {
		return err
	}
	if w.postgres, err = local.StartPostgres(ctx, w.sup, local.PostgresConfig{Dir: o.dir, BinDir: os.Getenv("TANDEM_PG_BIN"), Settings: map[string]string{"max_connections": "60"}}); err != nil {
		return err
	}
	var sets []sinkwriter.MigrationSet
	for _, f := range chaosFunctions() {
		sets = append(sets, sinkwriter.MigrationSet{Name: f.Name, Files: f.Migrations})
	}
	if err = sinkwriter.Migrate(ctx, w.postgres.URL(), sets...); err != nil {
		return err
	}
	if w.nats, err = local.StartNATSCluster(ctx, w.sup, replicas, local.NATSConfig{Program: w.programs.NATS, Dir: o.dir}); err != nil {
		return err
	}
	if err = w.connect(ctx); err != nil {
		return err
	}
	for _, name := range clusterNames {
		w.changing[name], w.versions[name] = &sync.Mutex{}, "v1"
		if err = w.startCluster(ctx, name); err != nil {
			return err
		}
	}
	for _, c := range w.clusters {
		if err = c.WaitUntilReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// connect connects this program, and makes the streams.
func (w *world) connect(ctx context.Context) error {
	var err error
	if w.pool, err = pgxpool.New(ctx, w.postgres.URL()); err != nil {
		return err
	}
	if w.admin, err = pgxpool.New(ctx, w.postgres.AdminURL("postgres")); err != nil {
		return err
	}
	var urls []string
	for _, n := range w.nats {
		urls = append(urls, n.URL())
	}
	all := strings.Join(urls, ",")
	if w.nc, err = nats.Connect(all, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return err
	}
	if w.js, err = natsjs.New(w.nc); err != nil {
		return err
	}
	if w.conn, err = jetstream.Connect(ctx, all, jetstream.Config{Name: "chaos"}); err != nil {
		return err
	}
	for _, name := range []string{"EVENTS", "OUTPUTS"} {
		for {
			err := w.conn.EnsureStream(ctx, jetstream.StreamConfig{Name: name, Replicas: replicas})
			if err == nil {
				break
			}
			if !wait(ctx, 100*time.Millisecond) {
				return fmt.Errorf("make stream %s: %w", name, err)
			}
		}
	}
	return nil
}

// startCluster starts a cluster behind its links; again, at its old addresses.
func (w *world) startCluster(ctx context.Context, name string) error {
	databaseURL, err := w.through(ctx, name+"-postgres", w.postgres.URL())
	if err != nil {
		return err
	}
	var natsURLs []string
	for _, n := range w.nats {
		u, err := w.through(ctx, name+"-nats", n.URL())
		if err != nil {
			return err
		}
		natsURLs = append(natsURLs, u)
	}
	if w.ports[name] == 0 {
		if w.ports[name], err = freePorts(local.ClusterPorts); err != nil {
			return err
		}
	}
	var linkErr error
	c, err := local.StartCluster(w.sup, local.ClusterConfig{
		Name: name, Programs: w.programs, DatabaseURL: databaseURL, NATSURL: strings.Join(natsURLs, ","),
		FirstPort: w.ports[name],
		Through: func(target string) string {
			u, err := w.through(ctx, name+"-function", target)
			linkErr = err
			return u
		},
		Env: []string{
			"LOG_LEVEL=warn", fmt.Sprintf("TANDEM_STREAM_REPLICAS=%d", replicas),
			"CHAOS_PLANT=" + w.o.plant, "CHAOS_VERSION=" + w.versions[name],
		},
	})
	if err = errors.Join(err, linkErr); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clusters[name] = c
	return nil
}

// through gives the URL by which target is reached over a link.
func (w *world) through(ctx context.Context, name, target string) (string, error) {
	u, err := url.Parse(target)
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.links[name]
	if l == nil {
		l = newLink(name)
		w.links[name] = l
	}
	if u.Host, err = l.to(context.WithoutCancel(ctx), u.Host); err != nil {
		return "", fmt.Errorf("make link %s: %w", name, err)
	}
	return u.String(), nil
}

// freePorts gives the first of so many side by side, none of which is given again.
func freePorts(n int) (int, error) {
	first, last := 0, 0
	for range 1000 {
		port, err := local.FreePort()
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

// part finds a process by its name; nil if its cluster is gone.
func (w *world) part(name string) *local.Part {
	for _, n := range w.nats {
		if n.Part().Name() == name {
			return n.Part()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.clusters {
		for _, p := range c.Parts() {
			if p.Name() == name {
				return p
			}
		}
	}
	return nil
}

// stop ends everything, in whatever state it is.
func (w *world) stop() {
	if w.nc != nil {
		w.nc.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if w.conn != nil {
		_ = w.conn.Close(ctx)
	}
	for _, l := range w.links {
		l.close()
	}
	for _, pool := range []*pgxpool.Pool{w.pool, w.admin} {
		if pool != nil {
			pool.Close()
		}
	}
	if w.sup != nil {
		w.sup.Stop(ctx)
	}
}

// wait waits; false if ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
