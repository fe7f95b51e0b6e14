package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// patience is how long something may take until it is given up.
const patience = time.Minute

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

// world is what a trial consists of.
type world struct {
	o        *Options
	dir      string
	database Database
	sup      *supervisor.Supervisor
	nats     *devcluster.NATS
	nc       *nats.Conn
	js       natsjs.JetStream

	parts []part // in the order of their start
}

// part is a process, of a kind, in a cluster.
type part struct {
	*supervisor.Process
	kind    string // source, function or by hand
	cluster string
}

func (o *Options) newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{o: o}
	if w.dir, err = os.MkdirTemp(o.Dir, "e2e-"); err != nil {
		return nil, fmt.Errorf("make a folder for a trial: %w", err)
	}
	defer func() {
		if err != nil {
			w.close(ctx)
		}
	}()
	if w.sup, err = supervisor.New(supervisor.Config{LogDir: filepath.Join(w.dir, "log")}); err != nil {
		return nil, err
	}
	if w.nats, err = devcluster.StartNATS(ctx, w.sup, devcluster.NATSConfig{Program: o.Programs.NATS, Dir: w.dir, SyncInterval: o.SyncInterval}); err != nil {
		return nil, err
	}
	if err := w.makeStreams(ctx); err != nil {
		return nil, err
	}
	if w.nc, err = nats.Connect(w.nats.URL()); err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	if w.js, err = natsjs.New(w.nc, natsjs.WithPublishAsyncMaxPending(1024)); err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	if o.NewDatabase == nil {
		return w, nil
	}
	if w.database, err = o.NewDatabase(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *world) makeStreams(ctx context.Context) (err error) {
	conn, err := jetstream.Connect(ctx, w.nats.URL(), jetstream.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if err := conn.Wait(ctx, patience); err != nil {
		return err
	}
	for _, name := range []string{inputs, outputs} {
		if err := conn.EnsureStream(ctx, jetstream.StreamConfig{Name: name}); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything and removes what it has stored.
func (w *world) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if w.nc != nil {
		w.nc.Close()
	}
	if w.sup != nil {
		w.sup.Stop(ctx)
	}
	_ = os.RemoveAll(w.dir) // a temporary folder: not worth a word
}

func (w *world) start(kind, cluster, program string, stage supervisor.Stage, args, env []string) error {
	p, err := w.sup.Start(supervisor.ProcessConfig{
		Name: cluster + "-" + kind, Path: program, Args: args, Stage: stage, Grace: 5 * time.Second,
		Env: append([]string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + w.database.URL, "NATS_URL=" + w.nats.URL()}, env...),
	})
	if err != nil {
		return err
	}
	w.parts = append(w.parts, part{Process: p, kind: kind, cluster: cluster})
	return nil
}

// startByHand starts two consumers.
func (w *world) startByHand(workers int) error {
	for _, cluster := range []string{"east", "west"} {
		if err := w.start("by-hand", cluster, w.o.Programs.ByHand, supervisor.StageSources,
			[]string{"-name", cluster, "-workers", strconv.Itoa(workers)}, nil); err != nil {
			return err
		}
	}
	return nil
}

// startClusters starts the clusters of a row, and returns when the functions are ready
// and the sources have been started.
func (w *world) startClusters(ctx context.Context, r Row) error {
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
		if err := w.start("function", name, w.o.Programs.Function, supervisor.StageFunctions, nil, append(env, w.o.Env...)); err != nil {
			return err
		}
	}
	for name, sink := range sinks {
		if err := w.await(ctx, name+"-function", func(ctx context.Context) error { return get(ctx, sink+"/health/readiness") }); err != nil {
			return err
		}
	}
	for _, name := range names {
		env := sourceEnv(name, sinks[name], r.batch)
		if r.all {
			env = append(env, "TANDEM_BEHIND=-1")
		}
		if err := w.start("source", name, w.o.Programs.Source, supervisor.StageSources, nil, append(env, w.o.Env...)); err != nil {
			return err
		}
	}
	return nil
}

func sourceEnv(cluster, sink string, batch int) []string {
	return []string{
		"TANDEM_CLUSTER=" + cluster, "TANDEM_FUNCTION=" + orders.Name, "K_SINK=" + sink,
		"TANDEM_IN_FLIGHT=" + strconv.Itoa(inFlight(batch)), "TANDEM_BATCH=" + strconv.Itoa(batch),
	}
}

// inFlight is how many events a source has under way. More do not make it faster, and
// the last of them wait for longer.
func inFlight(batch int) int {
	if batch > 1 {
		return 1024
	}
	return 256
}

// await asks until there is no error.
func (w *world) await(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if deaths := w.deaths(); deaths != nil {
			return deaths
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w\n%s", what, err, w.said())
		}
	}
}

// deaths reports a process that ended by itself.
func (w *world) deaths() error {
	for _, p := range w.parts {
		if p.Restarts() > 0 {
			return fmt.Errorf("%s ended by itself:\n%s", p.Name(), w.said())
		}
	}
	return nil
}

// said is the end of what the processes have said.
func (w *world) said() string {
	var all []byte
	for _, p := range w.parts {
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

// spend gives the processor time of all processes so far, by kind.
func (w *world) spend() map[string]time.Duration {
	spent := map[string]time.Duration{"nats": processorTime(w.nats.Process().Pid())}
	if w.database.CPU != nil {
		spent["postgres"] = w.database.CPU()
	}
	for _, p := range w.parts {
		spent[p.kind] += processorTime(p.Pid())
	}
	return spent
}

// freeze stops the processes of the last cluster once a second, until ctx ends.
func (w *world) freeze(ctx context.Context, now func() time.Time) {
	last := w.parts[len(w.parts)-1].cluster
	all := func(signal syscall.Signal) {
		for _, p := range w.parts {
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
