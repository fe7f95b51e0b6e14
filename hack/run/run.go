package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/expected"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const (
	// interruptTimeout bounds the reaction to a Ctrl-C: the last save of the feed,
	// the last read of the ledger, and stopping everything, in sequence and each
	// with a limit of its own.
	interruptTimeout = 5 * time.Second
	lastLook         = 700 * time.Millisecond
	besides          = 200 * time.Millisecond
	stopTimeout      = interruptTimeout - feed.LastSaveTimeout - lastLook - besides

	maxLinesTold = 20

	// explainAfter is the number of seconds without progress after which the
	// reason is printed.
	explainAfter = 3
)

var (
	// errDifferent means that differences were found and printed.
	errDifferent = errors.New("the result differs from the expected one")

	// errInterrupted means that the user ended the run.
	errInterrupted = errors.New("interrupted")
)

// run is one execution of make run.
type run struct {
	o      options
	out    *screen
	stderr io.Writer
	stdin  io.Reader
	now    func() time.Time
	start  time.Time

	*devcluster.Deployment

	watch  *watch
	fedErr error // the result of the feed
	ledger ledger
	memory memory
	disk   disk
	stuck  int // consecutive observations in which the stream accepted nothing
}

// execute runs everything until all events are processed or ctx ends. When it
// returns, all processes have ended.
func (r *run) execute(ctx context.Context) (err error) {
	if r.Deployment, err = devcluster.New(r.config()); err != nil {
		return err
	}
	defer r.Stop(ctx)
	if err := r.check(); err != nil {
		return err
	}
	r.disk = disk{dir: r.o.dir, say: r.out.say}

	r.out.say("starting: building the components, starting PostgreSQL and NATS, in %s", r.o.dir)
	if err := r.Start(ctx); err != nil {
		return err
	}
	r.introduce()
	return r.goOn(ctx)
}

// config returns the deployment: clusters, and servers unless existing ones are used.
func (r *run) config() devcluster.Config {
	cfg := devcluster.Config{
		Dir: r.o.dir, FirstPort: r.o.ports, BuildLog: r.stderr, OnExit: r.died, StopTimeout: stopTimeout,
		Postgres: &devcluster.PostgresConfig{}, DatabaseURL: r.o.databaseURL, Prepare: r.prepare,
		NATS: &devcluster.NATSConfig{SyncInterval: r.o.syncInterval}, NATSURL: r.o.natsURL,
		Streams: []jetstream.StreamConfig{{Name: inputStream}, {Name: expected.OutputStream}},
	}
	for _, name := range clusterNames()[:r.o.clusters] {
		cfg.Clusters = append(cfg.Clusters, devcluster.ClusterConfig{Name: name})
	}
	return cfg
}

// prepare migrates the database, and reads its clock before the clusters commit anything.
func (r *run) prepare(ctx context.Context, databaseURL string) (err error) {
	if err := tandem.New().Migrate(ctx, databaseURL); err != nil {
		return err
	}
	r.ledger, err = openLedger(ctx, r.Pool, r.now().Sub(r.start))
	return err
}

// check detects early what would fail later.
func (r *run) check() error {
	if free, err := freeDisk(r.o.dir); err == nil && free < leastDisk {
		return fmt.Errorf("only %d MB are free on the disk of %s, at least %d are needed: free some space, or use another folder with --dir", free>>20, r.o.dir, leastDisk>>20)
	}
	if r.o.input != "" && r.o.input != "-" {
		file, err := os.Open(r.o.input)
		if err != nil {
			return fmt.Errorf("--input: %w", err)
		}
		return file.Close()
	}
	return nil
}

// died reports a process that ended although it was not stopped.
func (r *run) died(e supervisor.Exit) {
	r.out.say("%s (pid %d) ended, %s; it will be restarted in a second", e.Name, e.PID, e.Reason)
}

// introduce prints the addresses of everything.
func (r *run) introduce() {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "\n  %-12s%s", what, fmt.Sprintf(format, args...))
	}
	names := clusterNames()[:r.o.clusters]
	fmt.Fprintf(&b, "%d clusters (%s) on one stream and one database, after %.1f s", len(names), strings.Join(names, ", "), r.now().Sub(r.start).Seconds())
	if p := r.Postgres(); p != nil {
		line("database", "%s", p.Psql())
	} else {
		line("database", "%s (DATABASE_URL)", hidePassword(r.o.databaseURL))
	}
	for _, n := range r.NATS {
		line("NATS", "%s, sync_interval %s%s", n.URL(), n.SyncInterval(), syncNote(n.SyncInterval()))
	}
	if r.o.natsURL != "" {
		line("NATS", "%s (NATS_URL), with its own sync_interval", hidePassword(r.o.natsURL))
	}
	for _, c := range r.Clusters() {
		line(c.Name(), "CloudEvents to %s, metrics of source %s and function %s", c.IngestURL(), c.MetricsURL(), c.FunctionMetricsURL())
	}
	line("logs", "%s", filepath.Join(r.o.dir, "log"))
	line("your own", `curl -i %s -H 'ce-specversion: 1.0' -H 'ce-type: %s' -H 'ce-source: /me' -H 'ce-id: 1' `+
		`-H 'ce-time: 2001-04-01T08:00:00Z' -H 'content-type: application/json' `+
		`-d '{"date":"2001/04/01 08:00","delay":75,"distance":316,"origin":"ORD","destination":"CLE"}'`,
		r.Clusters()[0].IngestURL(), feed.FlightType)
	r.out.say("%s\n", b.String())
}

func syncNote(interval string) string {
	if interval == "always" {
		return ""
	}
	return " (production needs always)"
}

// hidePassword returns a URL without its password.
func hidePassword(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "set"
	}
	return u.Redacted()
}

// goOn feeds and shows the status until all events are processed or ctx ends.
func (r *run) goOn(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fed, err := r.startFeed(ctx)
	if err != nil {
		return err
	}
	waited := 0
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if fed != nil {
				<-fed // nothing is published any more
			}
			r.conclude(ctx, lastLook)
			return errInterrupted
		case <-r.out.broken:
			return errInterrupted
		case <-fed:
			if err := r.fedErr; err != nil && ctx.Err() == nil {
				return err
			}
			fed = nil
			if !r.o.untilDone && r.watch.feed != nil {
				r.out.say("all events are fed; the clusters continue until Ctrl-C")
			}
		case <-tick.C:
			r.out.show(r.watch.look(ctx))
			r.memory.look(r)
			r.disk.look(r.NATS)
			r.tellTrouble()
		}
		if fed != nil || !r.o.untilDone {
			continue
		}
		handled, backlog, err := r.watch.through(ctx)
		switch {
		case err != nil || !handled:
			waited = 0
		case backlog == 0:
			r.out.show(r.watch.look(ctx))
			r.conclude(ctx, time.Minute)
			return r.judge(ctx)
		case waited == explainAfter:
			r.out.say("every event is processed; %s outputs of a killed process are waiting for the relay, which publishes them 30 s after their commit", count(float64(backlog)))
			fallthrough
		default:
			waited++
		}
	}
}

// tellTrouble prints once why the feed does not progress, if it has not for a
// while.
func (r *run) tellTrouble() {
	if r.watch.feed == nil || r.watch.feed.Trouble() == nil {
		r.stuck = 0
		return
	}
	if r.stuck++; r.stuck == explainAfter {
		r.out.say("the stream does not accept events; the feed is retrying: %v", r.watch.feed.Trouble())
	}
}

// startFeed starts publishing. The channel is closed when it has ended; fedErr is
// the result.
func (r *run) startFeed(ctx context.Context) (<-chan struct{}, error) {
	js, err := natsjs.New(r.NC)
	if err != nil {
		return nil, fmt.Errorf("set up JetStream: %w", err)
	}
	r.watch = &watch{
		clusters: r.Clusters(), counters: make([]counter, r.o.clusters),
		pool: r.Pool, outbox: sinkwriter.NewOutbox(r.Pool), nc: r.NC, js: js, now: r.now, start: r.start,
	}
	fed := make(chan struct{})
	events, cfg, err := r.events(ctx)
	if err != nil {
		return nil, err
	}
	if events == nil {
		close(fed)
		return fed, nil
	}
	publisher, err := jetstream.NewPublisher(r.Conn, jetstream.StreamConfig{Name: inputStream})
	if err != nil {
		return nil, err
	}
	r.watch.feed = feed.New(publisher, cfg)
	go func() {
		defer close(fed)
		r.fedErr = r.watch.feed.Run(ctx, r.watch.fedBefore, events)
	}()
	return fed, nil
}

// events returns the events to feed, nil for none.
func (r *run) events(ctx context.Context) (iter.Seq2[event.Event, error], feed.Config, error) {
	cfg := feed.Config{Rate: r.o.rate, Skipped: r.skipped()}
	switch {
	case r.o.input == "-":
		return feed.Lines(r.stdin), cfg, nil
	case r.o.input != "":
		file, err := os.Open(r.o.input)
		if err != nil {
			return nil, cfg, fmt.Errorf("--input: %w", err)
		}
		context.AfterFunc(ctx, func() { _ = file.Close() })
		return feed.Lines(file), cfg, nil
	case !r.o.flights():
		return nil, cfg, nil
	}
	positions, err := feed.NewPositions(r.NC, inputStream, "flights-2001")
	if err != nil {
		return nil, cfg, err
	}
	err = r.RetryStreams(ctx, func(ctx context.Context) error {
		r.watch.fedBefore, err = positions.Load(ctx)
		return err
	})
	if err != nil {
		return nil, cfg, err
	}
	switch {
	case r.watch.fedBefore >= feed.Flights:
		r.out.say("all %s events were fed by an earlier run; to start over, end this one and remove %s", count(feed.Flights), r.o.dir)
	case r.watch.fedBefore > 0:
		r.out.say("the feed continues after %s of %s events", count(float64(r.watch.fedBefore)), count(feed.Flights))
	}
	cfg.Save = positions.Save
	r.watch.feedTotal = feed.Flights
	return feed.FlightEvents(r.watch.fedBefore), cfg, nil
}

// skipped returns a function that prints the skipped events, up to a limit.
func (r *run) skipped() func(error) {
	left := make(chan struct{}, maxLinesTold)
	for range maxLinesTold {
		left <- struct{}{}
	}
	return func(err error) {
		select {
		case <-left:
			more := ""
			if len(left) == 0 {
				more = "; further ones are only counted"
			}
			r.out.say("skipped: %v%s", err, more)
		default:
		}
	}
}

func lines(n int64) string {
	if n == 1 {
		return "1 line"
	}
	return count(float64(n)) + " lines"
}

// judge compares the result with the truth, if there is one.
func (r *run) judge(ctx context.Context) error {
	if n := r.watch.feed; n != nil && n.Skipped() > 0 {
		defer r.out.say("skipped invalid lines of the input: %s", lines(n.Skipped()))
	}
	var o expected.Outcome
	err := r.RetryDatabase(ctx, func(ctx context.Context) error {
		var err error
		o, err = expected.ReadTables(ctx, r.Pool)
		return err
	})
	if err != nil {
		return fmt.Errorf("compare with the expected totals: %w", err)
	}
	err = r.RetryStreams(ctx, func(ctx context.Context) error {
		var err error
		o.Outputs, err = expected.ReadOutputs(ctx, r.NC)
		return err
	})
	if err != nil {
		return fmt.Errorf("compare with the expected totals: %w", err)
	}
	all := expected.Total(o.Rows)
	if !r.o.flights() {
		if all.Flights == 0 {
			r.out.say("there are no expected totals to compare with, and no flights in the tables: check your function's tables")
			return r.complete()
		}
		r.out.say("there are no expected totals to compare with; the tables contain %s flights from %s airports, with %s minutes of delay",
			count(float64(all.Flights)), count(float64(len(o.Airports))), count(float64(all.DelayMinutes)))
		return r.complete()
	}
	truth, err := feed.Truth()
	if err != nil {
		return err
	}
	differences := o.Differences(truth)
	for _, line := range differences {
		r.out.say("%s", line)
	}
	if n := len(differences); n > 0 {
		r.out.say("the tables differ from the expected totals: differences: %d", n)
		return errDifferent
	}
	own := ""
	if n := expected.Total(o.Own).Flights; n > 0 {
		own = fmt.Sprintf(", %s of your own among them", count(float64(n)))
	}
	var outputs int64
	for _, n := range o.Outputs {
		outputs += n
	}
	r.out.say("exact: %s flights%s, %s airports, %s minutes of delay, %s different outputs; no difference from the truth",
		count(float64(all.Flights)), own, count(float64(len(o.Airports))), count(float64(all.DelayMinutes)), count(float64(outputs)))
	return nil
}

// complete reports whether lines of the input were skipped, as an error.
func (r *run) complete() error {
	if n := r.watch.feed; n != nil && n.Skipped() > 0 {
		return errDifferent
	}
	return nil
}
