package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

const (
	// instances is how many instances of the function a cluster has in the rows about them.
	// The first one of each cluster is struck, in all clusters at the same time.
	instances = 3

	// slowInstance is how long computations of a slow instance sleep.
	slowInstance = 300 * time.Millisecond

	// Events that are published less than settling before a strike do not count as before it:
	// their outputs may wait for a winner that is struck. From backAfter on everything should
	// be as before.
	settling  = 500 * time.Millisecond
	backAfter = time.Second
)

// instanceStrikes are the strikes against an instance, each with its row.
var instanceStrikes = []struct {
	name, about string
	strike      strike
}{
	{"hang", "is stopped", strikeHang},
	{"kill", "is killed, and restarted after a second", strikeKill},
	{"slow", "needs at least 300 ms for each computation", strikeSlow},
}

// instanceRows are the rows about several instances of a function.
func instanceRows() (rows []Row) {
	for _, s := range instanceStrikes {
		about := fmt.Sprintf("%d instances of the function in each cluster, of which one %s: latencies of events from 1 s later on", instances, s.about)
		rows = append(rows,
			Row{Name: "instances-" + s.name, measure: measureInstances, strike: s.strike, About: about},
			Row{Name: "instances-" + s.name + "-alone", measure: measureInstances, strike: s.strike, alone: true, About: "the same in one cluster alone"},
			Row{Name: "instances-" + s.name + "-service", measure: measureInstances, strike: s.strike, alone: true, service: true, About: "the same in one cluster alone, with a balancer of connections in front of the instances"})
	}
	return rows
}

// instancesResult holds the latencies around a strike against an instance.
type instancesResult struct {
	at                         float64
	before, first, then, after Latency // the strike; within a second of it; later while it lasts; after it
}

// String formats the result for the progress.
func (r *instancesResult) String() string {
	text := func(l Latency) string { return fmt.Sprintf("%.1f/%.1f/%.1f", l.P50, l.P999, l.Max) }
	return fmt.Sprintf("at %.0f/s, p50/p99.9/longest in ms: before %s, first second %s, then %s, afterwards %s",
		r.at, text(r.before), text(r.first), text(r.then), text(r.after))
}

// measureInstances publishes events at a steady rate, and strikes one instance of each cluster
// for a third of the time.
func (o *Options) measureInstances(ctx context.Context, r Row) (_ *instancesResult, err error) {
	balancer := link.New()
	defer balancer.Close()
	d, err := o.deployHandling(ctx, r, func(d *deployment) error {
		for _, cluster := range r.clusters() {
			if err := d.startInstances(ctx, r, cluster, balancer); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer d.close(ctx)
	rate := float64(o.Rate)
	warm := max(int(rate*o.warmUp(o.Duration).Seconds()), 1)
	s := schedule{begin: o.Now(), rate: rate, first: 1, events: warm + max(int(rate*o.Duration.Seconds()), 1), warm: warm}
	struck, over := s.at(warm).Add(o.Duration/3), s.at(warm).Add(2*o.Duration/3)
	striking := make(chan error, 1)
	go func() { striking <- d.strikeInstances(ctx, r, struck, over) }()
	published, err := d.publish(ctx, r, s)
	if err := errors.Join(err, <-striking); err != nil {
		return nil, err
	}
	all := s.first + s.events
	if _, err := d.awaitOutputs(ctx, all); err != nil {
		return nil, err
	}
	if err := d.awaitHandled(ctx, all, len(r.clusters())); err != nil {
		return nil, err
	}
	stored, err := d.stored(ctx, s.first, s.events)
	if err != nil {
		return nil, err
	}
	// The relay publishes or deletes the outputs that a killed instance has committed and left.
	if err := d.awaitFor(ctx, contract.RelayTakeover+patience, "the relay", func(ctx context.Context) error {
		return d.database.Check(ctx, all, orders.Total(all), false)
	}); err != nil {
		return nil, err
	}
	if err := d.check(ctx, all, false); err != nil {
		return nil, err
	}
	result := &instancesResult{at: rate}
	back := min(backAfter, o.Duration/6)
	for _, phase := range []struct {
		of       *Latency
		from, to time.Time
	}{
		{&result.before, s.at(warm), struck.Add(-min(settling, o.Duration/12))},
		{&result.first, struck, struck.Add(back)},
		{&result.then, struck.Add(back), over},
		{&result.after, over.Add(back), s.at(s.events)},
	} {
		*phase.of, err = latencyOf(published, stored, func(i int) bool {
			return !published[i].Before(phase.from) && published[i].Before(phase.to)
		})
		if err != nil {
			return nil, err
		}
	}
	return result, nil
}

// startInstances starts a cluster with several instances of its function.
func (d *deployment) startInstances(ctx context.Context, r Row, cluster string, balancer *link.Link) error {
	var addresses, urls []string
	for i := range instances {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		control, err := freeAddress()
		if err != nil {
			return err
		}
		kind := "function-" + strconv.Itoa(i+1)
		d.controls[cluster+"-"+kind] = "http://" + control
		env := slices.Concat([]string{"TANDEM_CLUSTER=" + cluster, "LISTEN_ADDRESS=" + address, "TANDEM_BENCH_CONTROL=" + control}, r.function, d.o.Env)
		if err := d.start(kind, cluster, d.o.Programs.Function, supervisor.StageFunctions, nil, env...); err != nil {
			return err
		}
		d.processes[len(d.processes)-1].mayEnd = i == 0 && r.strike == strikeKill
		addresses, urls = append(addresses, address), append(urls, "http://"+address)
	}
	for _, url := range urls {
		d.sinks[cluster] = url
		if err := d.awaitFunction(ctx, cluster); err != nil {
			return err
		}
	}
	d.sinks[cluster] = strings.Join(urls, ",")
	if r.service {
		address, err := balancer.ListenAny(addresses...)
		if err != nil {
			return err
		}
		d.sinks[cluster] = "http://" + address
	}
	return d.startSource(r, cluster)
}

// strikeInstances strikes the first instance of each cluster, and ends the strike at over.
func (d *deployment) strikeInstances(ctx context.Context, r Row, at, over time.Time) error {
	const first = "function-1"
	signal := func(signal syscall.Signal) error {
		for _, p := range d.processes {
			if p.kind == first {
				if err := p.Kill(signal); err != nil {
					return err
				}
			}
		}
		return nil
	}
	sleeping := func(length time.Duration) error {
		for _, cluster := range r.clusters() {
			if _, err := request(ctx, http.MethodPost, d.controls[cluster+"-"+first]+"?sleep="+length.String()); err != nil {
				return err
			}
		}
		return nil
	}
	begin, end := func() error { return sleeping(slowInstance) }, func() error { return sleeping(0) }
	switch r.strike {
	case strikeHang:
		begin, end = func() error { return signal(syscall.SIGSTOP) }, func() error { return signal(syscall.SIGCONT) }
	case strikeKill:
		begin, end = func() error { return signal(syscall.SIGKILL) }, func() error { return nil }
	default:
	}
	if !sleep(ctx, at.Sub(d.o.Now())) {
		return context.Cause(ctx)
	}
	if err := begin(); err != nil {
		return err
	}
	sleep(ctx, over.Sub(d.o.Now()))
	return end()
}
