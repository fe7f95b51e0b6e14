package main

import (
	"context"
	"encoding/json"
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

// run is one execution of make chat.
type run struct {
	*devcluster.Deployment

	o     options
	out   io.Writer
	self  string // this program
	sides []push.Side
	pages []*supervisor.Process
}

// launch runs everything until ctx ends. When it returns, all processes have
// ended.
func launch(ctx context.Context, args []string) error {
	o, err := parseOptions(args, os.Getenv, os.Stdout)
	if err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	r, err := newRun(o, os.Stdout)
	if err != nil {
		return err
	}
	defer r.Stop(ctx)
	if err := r.start(ctx); err != nil {
		return err
	}
	r.introduce()
	<-ctx.Done()
	return nil
}

// newRun returns a run that has not started anything. Stop must be called in the end.
func newRun(o options, out io.Writer) (*run, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &run{o: o, out: out, self: self}
	cfg := devcluster.Config{
		Dir: o.dir, FirstPort: o.ports, BuildLog: os.Stderr, StopTimeout: stopTimeout,
		Postgres: &devcluster.PostgresConfig{}, DatabaseURL: o.databaseURL, Prepare: tandem.New().Migrate,
		NATS: &devcluster.NATSConfig{}, NATSURL: o.natsURL,
		Streams: []jetstream.StreamConfig{{Name: inputStream}, {Name: outputStream}},
		OnExit: func(e supervisor.Exit) {
			r.say("%s (pid %d) ended, %s; it will be restarted in a second", e.Name, e.PID, e.Reason)
		},
	}
	for i, name := range clusterNames() {
		cfg.Clusters = append(cfg.Clusters, devcluster.ClusterConfig{Name: name, Function: chat.Function().Name})
		r.sides = append(r.sides, push.Side{Name: name, URL: "http://127.0.0.1:" + strconv.Itoa(o.page(i))})
	}
	r.Deployment, err = devcluster.New(cfg)
	return r, err
}

func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.out, format+"\n", args...)
}

// start starts everything and waits until it answers.
func (r *run) start(ctx context.Context) error {
	for i, name := range clusterNames() {
		if err := devcluster.CheckPort(r.o.page(i)); err != nil {
			return fmt.Errorf("the page of %s: %w (--ports sets the first one, now %d)", name, err, r.o.ports)
		}
	}
	r.say("starting in %s: building the components, starting PostgreSQL and NATS", r.o.dir)
	if err := r.Start(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, c := range r.Clusters() {
		if err := r.startPage(i, c.IngestURL()); err != nil {
			return err
		}
		g.Go(func() error { return waitForPage(ctx, r.sides[i].URL) })
	}
	return g.Wait()
}

// startPage starts the websocket server of cluster i, which is this program with
// argument push.
func (r *run) startPage(i int, ingestURL string) error {
	sides, err := json.Marshal(r.sides)
	if err != nil {
		return err
	}
	name := clusterNames()[i]
	part, err := r.Supervisor.Start(supervisor.ProcessConfig{
		Name: name + "-page",
		Path: r.self,
		Args: []string{"push"},
		Env: slices.Concat(os.Environ(), []string{
			"TANDEM_CLUSTER=" + name,
			"NATS_URL=" + r.NATSURL(),
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

// waitForPage waits until the page answers or readyTimeout has passed.
func waitForPage(ctx context.Context, pageURL string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := askPage(ctx, pageURL)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for page %s: %w", pageURL, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func askPage(ctx context.Context, pageURL string) error {
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
}

// introduce prints the addresses of everything.
func (r *run) introduce() {
	r.say("\n  open       %s/ for both sides on one page", r.sides[0].URL)
	for _, side := range r.sides {
		r.say("  %-9s  %s/?side=%s", side.Name, side.URL, side.Name)
	}
	database := "set"
	if p := r.Postgres(); p != nil {
		database = p.Psql()
	} else if u, err := url.Parse(r.o.databaseURL); err == nil && u.Host != "" {
		database = u.Redacted()
	}
	r.say("  database   %s: chat_messages, chat_members, …", database)
	r.say("  logs       %s\n", filepath.Join(r.o.dir, "log"))
}
