package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
	"github.com/tandem-fn/tandem/test/bench/harness"
)

const (
	// patience bounds the wait for any single condition.
	patience = time.Minute

	requestTimeout = 5 * time.Second
)

// publishAhead is the number of messages that are sent before the stream has answered.
const publishAhead = 1024

// Database is the database that a trial writes to.
type Database struct {
	URL string // with schema tandem and the tables of the benchmark

	// CPU returns the processor time that the server has used so far; 0 if unknown.
	CPU func() time.Duration

	// Check returns an error unless exactly these events have been applied, by hand
	// or not, and the outbox is empty.
	Check func(ctx context.Context, events int, total int64, byHand bool) error

	// Applied does the same for the events only, whatever is left in the outbox.
	Applied func(ctx context.Context, events int, total int64, byHand bool) error

	// Commits returns when each event was committed.
	Commits func(ctx context.Context) (map[ledger.Key]time.Time, error)

	// SetHedge sets the redundancy of a cluster.
	SetHedge func(ctx context.Context, cluster, hedge string) error

	// Pause returns the longest time between two commits of events after since.
	Pause func(ctx context.Context, since time.Time) (time.Duration, error)

	// Work returns how many transactions have ended in the database so far, and how many
	// bytes of WAL the server has written.
	Work func(ctx context.Context) (transactions, walBytes float64, err error)

	// Freeze stops all processes of the server for length.
	Freeze func(length time.Duration) error

	// Settle makes the server write its dirty pages to the disk.
	Settle func(ctx context.Context) error
}

// deployment holds the processes and data of a trial.
type deployment struct {
	*harness.Servers

	o        *Options
	dir      string
	database Database

	processes []process           // in start order
	sinks     map[string]string   // URLs of the functions, by cluster
	controls  map[string]string   // URLs that return the number of computations
	metrics   map[string][]string // addresses of function and source, in rows that measure a mode
}

// process is a process of some kind, in a cluster.
type process struct {
	*supervisor.Process
	kind    string // source, function or by hand
	cluster string
	mayEnd  bool // because of a strike
}

func (o *Options) deploy(ctx context.Context) (_ *deployment, err error) {
	d := &deployment{o: o, sinks: map[string]string{}, controls: map[string]string{}, metrics: map[string][]string{}}
	if d.dir, err = devcluster.TempDir(o.Dir, "e2e-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close(ctx)
		}
	}()
	if d.Servers, err = harness.Start(ctx, devcluster.Config{
		Dir: d.dir, Programs: devcluster.Programs{NATS: o.Programs.NATS},
		NATS:    &devcluster.NATSConfig{SyncInterval: o.SyncInterval},
		Streams: []jetstream.StreamConfig{{Name: inputs}, {Name: outputs}},
	}, publishAhead); err != nil {
		return nil, err
	}
	if o.NewDatabase == nil {
		return d, nil
	}
	if d.database, err = o.NewDatabase(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// close ends all processes and removes their data.
func (d *deployment) close(ctx context.Context) {
	if d.Servers != nil {
		d.Stop(ctx)
	}
	_ = devcluster.RemoveDir(d.dir) // temporary: an error changes no result
}

// start starts a process of a cluster; env is added to the variables that all
// processes have.
func (d *deployment) start(kind, cluster, program string, stage supervisor.Stage, args []string, env ...string) error {
	p, err := d.Supervisor.Start(supervisor.ProcessConfig{
		Name: cluster + "-" + kind, Path: program, Args: args, Stage: stage, Grace: 5 * time.Second,
		Env: append([]string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + d.database.URL, "NATS_URL=" + d.NATSURL()}, env...),
	})
	if err != nil {
		return err
	}
	d.processes = append(d.processes, process{Process: p, kind: kind, cluster: cluster})
	return nil
}

// The clusters, and the consumers by hand.
const (
	east = "east"
	west = "west" // it stalls, or is the only one
)

// startRow starts the processes that a row measures: consumers by hand with that many
// workers, or clusters.
func (d *deployment) startRow(ctx context.Context, r Row, workers int) error {
	if r.byHand {
		for _, name := range []string{east, west} {
			args := []string{"-name", name, "-workers", strconv.Itoa(workers)}
			if err := d.start("by-hand", name, d.o.Programs.ByHand, supervisor.StageSources, args); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range r.clusters() {
		if err := d.startFunction(r, name); err != nil {
			return err
		}
	}
	for _, name := range r.clusters() {
		if err := d.awaitFunction(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range r.clusters() {
		if err := d.startSource(r, name); err != nil {
			return err
		}
	}
	return d.awaitMode(ctx, r)
}

func (r Row) clusters() []string {
	if r.alone {
		return []string{west}
	}
	return []string{east, west}
}

func (d *deployment) startFunction(r Row, name string, env ...string) error {
	sink, err := freeAddress()
	if err != nil {
		return err
	}
	control, err := freeAddress()
	if err != nil {
		return err
	}
	d.sinks[name], d.controls[name] = "http://"+sink, "http://"+control
	metrics, err := d.metricsEnv(r, name)
	if err != nil {
		return err
	}
	env = slices.Concat(metrics, []string{"TANDEM_CLUSTER=" + name, "LISTEN_ADDRESS=" + sink, "TANDEM_BENCH_CONTROL=" + control}, r.function, d.o.Env, env)
	if r.strike == strikeStall && name == west {
		env = append(env, "TANDEM_BENCH_STALL="+stallLength.String())
	}
	command, args, err := r.pin(name, d.o.Programs.Function)
	if err != nil {
		return err
	}
	return d.start("function", name, command, supervisor.StageFunctions, args, env...)
}

// awaitFunction returns when a function is ready.
func (d *deployment) awaitFunction(ctx context.Context, name string) error {
	return d.await(ctx, name+"-function", func(ctx context.Context) error {
		_, err := request(ctx, http.MethodGet, d.sinks[name]+"/health/readiness")
		return err
	})
}

func (d *deployment) startSource(r Row, name string, env ...string) error {
	metrics, err := d.metricsEnv(r, name)
	if err != nil {
		return err
	}
	env = slices.Concat(metrics, sourceEnv(name, d.sinks[name]), r.mode.sourceEnv(name), r.source, d.o.Env, env)
	command, args, err := r.pin(name, d.o.Programs.Source)
	if err != nil {
		return err
	}
	return d.start("source", name, command, supervisor.StageSources, args, env...)
}

// metricsEnv returns the variable that makes a process of a cluster serve its metrics, in
// a row that measures a mode.
func (d *deployment) metricsEnv(r Row, cluster string) ([]string, error) {
	if r.mode == nil {
		return nil, nil
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	d.metrics[cluster] = append(d.metrics[cluster], address)
	return []string{"METRICS_ADDRESS=" + address}, nil
}

func freeAddress() (string, error) {
	port, err := devcluster.FreePort()
	return "127.0.0.1:" + strconv.Itoa(port), err
}

func sourceEnv(cluster, sink string) []string {
	return []string{"TANDEM_CLUSTER=" + cluster, "TANDEM_FUNCTION=" + orders.Name, "K_SINK=" + sink}
}

// await repeats ask until it returns no error.
func (d *deployment) await(ctx context.Context, what string, ask func(context.Context) error) error {
	return d.awaitFor(ctx, patience, what, ask)
}

// awaitFor repeats ask until it returns no error, at most for patience.
func (d *deployment) awaitFor(ctx context.Context, patience time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if deaths := d.deaths(); deaths != nil {
			return deaths
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w\n%s", what, err, d.said())
		}
	}
}

// deaths returns an error if a process ended by itself.
func (d *deployment) deaths() error {
	for _, p := range d.processes {
		if p.Restarts() > 0 && !p.mayEnd {
			return fmt.Errorf("%s ended by itself:\n%s", p.Name(), d.said())
		}
	}
	return nil
}

// stop ends the processes of a cluster.
func (d *deployment) stop(ctx context.Context, cluster string) {
	for _, p := range slices.Backward(d.processes) {
		if p.cluster == cluster {
			p.Stop(ctx)
		}
	}
}

// destroy ends the processes at once.
func (d *deployment) destroy() {
	for _, p := range slices.Backward(d.processes) {
		p.Destroy()
	}
}

// said returns the end of the processes' logs.
func (d *deployment) said() string {
	var all []byte
	for _, p := range d.processes {
		text, _ := os.ReadFile(p.LogFile())
		all = append(all, "--- "+p.Name()+"\n"...)
		all = append(all, text[max(0, len(text)-2048):]...)
	}
	return string(all)
}

func request(ctx context.Context, method, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return strings.TrimSpace(string(text)), err
}

// computed returns how many events each cluster has computed.
func (d *deployment) computed(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	for cluster, url := range d.controls {
		if err := d.await(ctx, "the number of events that "+cluster+" has computed", func(ctx context.Context) error {
			text, err := request(ctx, http.MethodGet, url)
			if err == nil {
				counts[cluster], err = strconv.Atoi(text)
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// spend returns the processor time of all processes so far, by kind.
func (d *deployment) spend() map[string]time.Duration {
	spent := map[string]time.Duration{}
	add := func(kind string, pid int) {
		used, _ := harness.ProcessorTime(pid)
		spent[kind] += used
	}
	add("nats", d.NATS[0].Process().Pid())
	if d.database.CPU != nil {
		spent["postgres"] = d.database.CPU()
	}
	for _, p := range d.processes {
		add(p.kind, p.Pid())
	}
	return spent
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Describe returns a description of how it is measured.
func (o *Options) Describe() string {
	return fmt.Sprintf("end to end: everything on this machine (%d cores), NATS sync_interval %s, streams in files, 1 output per event; "+
		"%d round(s), %d events of a filled stream (by hand %d), latencies over %s; rows about stalls at %d events/s",
		runtime.NumCPU(), o.SyncInterval, o.Rounds, o.Events, o.byHandEvents(), o.Duration, o.Rate)
}
