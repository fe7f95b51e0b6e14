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
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
	"github.com/tandem-fn/tandem/test/bench/harness"
)

// patience is how long something may take until it is given up.
const patience = time.Minute

// publishAhead is the number of messages that are sent before the stream has answered.
const publishAhead = 1024

// Database is what a trial writes to.
type Database struct {
	URL string // with schema tandem and the tables of the benchmark

	// CPU is the processor time that the server has used so far; 0 if it is not known.
	CPU func() time.Duration

	// Check says whether exactly these events have been applied, by hand or not, and
	// nothing is left in the outbox.
	Check func(ctx context.Context, events int, total int64, byHand bool) error

	// Settle has the server write what it owes to the disk.
	Settle func(ctx context.Context) error
}

// deployment is what a trial consists of.
type deployment struct {
	*harness.Servers

	o        *Options
	dir      string
	database Database

	processes []process // in the order of their start
}

// process is one of a kind, in a cluster.
type process struct {
	*supervisor.Process
	kind    string // source, function or by hand
	cluster string
}

func (o *Options) deploy(ctx context.Context) (_ *deployment, err error) {
	d := &deployment{o: o}
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

// close ends everything and removes what it has stored.
func (d *deployment) close(ctx context.Context) {
	if d.Servers != nil {
		d.Stop(ctx)
	}
	_ = devcluster.RemoveDir(d.dir) // temporary: an error changes no result
}

func (d *deployment) start(kind, cluster, program string, stage supervisor.Stage, args, env []string) error {
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

// startByHand starts two consumers.
func (d *deployment) startByHand(workers int) error {
	for _, cluster := range []string{"east", "west"} {
		if err := d.start("by-hand", cluster, d.o.Programs.ByHand, supervisor.StageSources,
			[]string{"-name", cluster, "-workers", strconv.Itoa(workers)}, nil); err != nil {
			return err
		}
	}
	return nil
}

// startClusters starts the clusters of a row, and returns when the functions are ready
// and the sources have been started.
func (d *deployment) startClusters(ctx context.Context, r Row) error {
	names := []string{"east", "west"}
	if r.alone {
		names = names[1:]
	}
	sinks := map[string]string{}
	for _, name := range names {
		port, err := devcluster.FreePort()
		if err != nil {
			return err
		}
		address := "127.0.0.1:" + strconv.Itoa(port)
		sinks[name] = "http://" + address
		env := []string{"TANDEM_CLUSTER=" + name, "LISTEN_ADDRESS=" + address}
		if r.stalls && name == "west" {
			env = append(env, "TANDEM_BENCH_STALL="+stallLength.String())
		}
		if err := d.start("function", name, d.o.Programs.Function, supervisor.StageFunctions, nil, append(env, d.o.Env...)); err != nil {
			return err
		}
	}
	for name, sink := range sinks {
		if err := d.await(ctx, name+"-function", func(ctx context.Context) error { return get(ctx, sink+"/health/readiness") }); err != nil {
			return err
		}
	}
	for _, name := range names {
		env := slices.Concat(sourceEnv(name, sinks[name]), r.env, d.o.Env)
		if err := d.start("source", name, d.o.Programs.Source, supervisor.StageSources, nil, env); err != nil {
			return err
		}
	}
	return nil
}

func sourceEnv(cluster, sink string) []string {
	return []string{"TANDEM_CLUSTER=" + cluster, "TANDEM_FUNCTION=" + orders.Name, "K_SINK=" + sink}
}

// await asks until there is no error.
func (d *deployment) await(ctx context.Context, what string, ask func(context.Context) error) error {
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

// deaths reports a process that ended by itself.
func (d *deployment) deaths() error {
	for _, p := range d.processes {
		if p.Restarts() > 0 {
			return fmt.Errorf("%s ended by itself:\n%s", p.Name(), d.said())
		}
	}
	return nil
}

// said is the end of what the processes have said.
func (d *deployment) said() string {
	var all []byte
	for _, p := range d.processes {
		text, _ := os.ReadFile(p.LogFile())
		all = append(all, "--- "+p.Name()+"\n"...)
		all = append(all, text[max(0, len(text)-2048):]...)
	}
	return string(all)
}

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
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

// freeze stops the processes of the last cluster once a second, until ctx ends.
func (d *deployment) freeze(ctx context.Context, now func() time.Time) {
	last := d.processes[len(d.processes)-1].cluster
	all := func(signal syscall.Signal) {
		for _, p := range d.processes {
			if p.cluster == last {
				_ = p.Kill(signal) // who has ended is found out elsewhere
			}
		}
	}
	for {
		if !sleep(ctx, now().Truncate(time.Second).Add(time.Second).Sub(now())) {
			return
		}
		all(syscall.SIGSTOP)
		time.Sleep(stallLength)
		all(syscall.SIGCONT)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Describe says how it is measured.
func (o *Options) Describe() string {
	rates := slices.ContainsFunc(o.Rows, func(r Row) bool { return r.rate })
	text := fmt.Sprintf("end to end: everything on this machine (%d cores), NATS sync_interval %s, streams in files, 1 output an event; ", runtime.NumCPU(), o.SyncInterval)
	if rates {
		text += fmt.Sprintf("%d events a trial (by hand %d), %d round(s), latencies over %s", o.Events, o.byHandEvents(), o.Rounds, o.Duration)
	} else {
		text += fmt.Sprintf("%d events a second for %s, %d round(s)", o.Rate, o.Duration, o.Rounds)
	}
	return text
}
