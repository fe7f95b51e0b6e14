package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions/chat"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-fn/tandem/hack/chat/push"
)

const (
	readyTimeout = 60 * time.Second
	stopTimeout  = 4 * time.Second

	inputStream  = "EVENTS"
	outputStream = "OUTPUTS"
)

// run is one `make chat`.
type run struct {
	o     options
	out   io.Writer
	sup   *supervisor.Supervisor
	parts devcluster.Programs
	dbURL string
	psql  string // the command line that opens the database
	nats  string
	self  string // this program
	sides []push.Side

	clusters []*devcluster.Cluster
	pages    []*supervisor.Process
}

// launch runs everything until ctx ends. Nothing is left when it returns.
func launch(ctx context.Context, args []string) error {
	o, err := parseOptions(args, os.Getenv, os.Stdout)
	if err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	lock, err := devcluster.AcquireLock(o.dir)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := o.checkPorts(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r := &run{o: o, out: os.Stdout, self: self}
	r.sup, err = supervisor.New(supervisor.Config{LogDir: filepath.Join(o.dir, "log"), OnExit: func(e supervisor.Exit) {
		r.say("%s (pid %d) ended, %s; it starts again in a second", e.Name, e.PID, e.Reason)
	}})
	if err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		r.sup.Stop(stopping)
	}()
	if err := r.start(ctx); err != nil {
		return err
	}
	r.introduce()
	<-ctx.Done()
	return nil
}

func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.out, format+"\n", args...)
}

// start starts everything and waits until it answers.
func (r *run) start(ctx context.Context) error {
	r.say("starting in %s: the parts are built, PostgreSQL and NATS started", r.o.dir)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.startDatabase(gctx) })
	g.Go(func() error { return r.startStreams(gctx) })
	if err := g.Wait(); err != nil {
		return err
	}
	for i, name := range clusterNames() {
		r.sides = append(r.sides, push.Side{Name: name, URL: "http://127.0.0.1:" + strconv.Itoa(r.o.page(i))})
	}
	g, gctx = errgroup.WithContext(ctx)
	for i, name := range clusterNames() {
		c, err := devcluster.StartCluster(r.sup, devcluster.ClusterConfig{
			Name: name, Programs: r.parts, DatabaseURL: r.dbURL, NATSURL: r.nats,
			Function:  chat.Function().Name,
			FirstPort: r.o.cluster(i),
		})
		if err != nil {
			return err
		}
		r.clusters = append(r.clusters, c)
		g.Go(func() error { return c.WaitUntilReady(gctx) })
		if err := r.startPage(i, c.IngestURL()); err != nil {
			return err
		}
		g.Go(func() error { return waitForPage(gctx, r.sides[i].URL) })
	}
	return g.Wait()
}

func (r *run) startDatabase(ctx context.Context) error {
	if r.dbURL = r.o.databaseURL; r.dbURL == "" {
		p, err := devcluster.StartPostgres(ctx, r.sup, devcluster.PostgresConfig{Dir: r.o.dir, Port: r.o.ports})
		if err != nil {
			return err
		}
		r.dbURL, r.psql = p.URL(), p.Psql()
	}
	return tandem.New().Migrate(ctx, r.dbURL)
}

func (r *run) startStreams(ctx context.Context) error {
	var err error
	if r.parts, err = devcluster.Build(ctx, filepath.Join(r.o.dir, "bin"), os.Stderr); err != nil {
		return err
	}
	if r.nats = r.o.natsURL; r.nats == "" {
		n, err := devcluster.StartNATS(ctx, r.sup, devcluster.NATSConfig{Program: r.parts.NATS, Dir: r.o.dir, Port: r.o.ports + 1})
		if err != nil {
			return err
		}
		r.nats = n.URL()
	}
	conn, err := jetstream.Connect(ctx, r.nats, jetstream.Config{Name: "tandem chat"})
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing waits to be sent
	return eventually(ctx, func(ctx context.Context) error {
		return errors.Join(
			conn.EnsureStream(ctx, jetstream.StreamConfig{Name: inputStream}),
			conn.EnsureStream(ctx, jetstream.StreamConfig{Name: outputStream}),
		)
	})
}

// startPage starts the websocket server of cluster i: this program once more.
func (r *run) startPage(i int, ingestURL string) error {
	sides, err := json.Marshal(r.sides)
	if err != nil {
		return err
	}
	name := clusterNames()[i]
	part, err := r.sup.Start(supervisor.ProcessConfig{
		Name: name + "-page",
		Path: r.self,
		Args: []string{"push"},
		Env: slices.Concat(os.Environ(), []string{
			"TANDEM_CLUSTER=" + name,
			"NATS_URL=" + r.nats,
			"TANDEM_INGEST_URL=" + ingestURL,
			"TANDEM_CHAT_SIDES=" + string(sides),
			"LISTEN_ADDRESS=127.0.0.1:" + strconv.Itoa(r.o.page(i)),
		}),
	})
	if err != nil {
		return err
	}
	r.pages = append(r.pages, part)
	return nil
}

func waitForPage(ctx context.Context, pageURL string) error {
	err := eventually(ctx, func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, pageURL+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %d", resp.StatusCode)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for page %s: %w", pageURL, err)
	}
	return nil
}

// eventually tries until it works or readyTimeout has passed.
func eventually(ctx context.Context, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// introduce says where everything is.
func (r *run) introduce() {
	r.say("\n  open       %s/ for both sides on one page", r.sides[0].URL)
	for _, side := range r.sides {
		r.say("  %-9s  %s/?side=%s", side.Name, side.URL, side.Name)
	}
	database := r.psql
	if r.o.databaseURL != "" {
		database = "set"
		if u, err := url.Parse(r.dbURL); err == nil && u.Host != "" {
			database = u.Redacted()
		}
	}
	r.say("  database   %s: chat_messages, chat_members, …", database)
	r.say("  logs       %s\n", filepath.Join(r.o.dir, "log"))
}
