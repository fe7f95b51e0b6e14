package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/audit"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/test/deployment"
	"github.com/tandem-fn/tandem/test/deployment/workload"
)

const (
	mendTimeout  = 2 * time.Minute
	drainTimeout = 15 * time.Minute
)

// programs are the components, with the right and with a wrong clock.
type programs struct{ right, wrong devcluster.Programs }

// build compiles both into dir.
func build(ctx context.Context, dir string, log io.Writer) (p programs, err error) {
	if p.right, err = deployment.Build(ctx, dir, log); err == nil {
		p.wrong, err = deployment.BuildWrong(ctx, filepath.Join(dir, "wrong"), p.right, log)
	}
	return p, err
}

// run executes one run and returns the report. It returns an error if the run was
// not possible.
func run(ctx context.Context, o options, programs programs, say func(string, ...any)) (report, error) {
	r := report{Seed: o.seed, Duration: o.duration, Rate: o.rate, Plant: o.plant, Hedge: o.hedge, Only: strings.Join(o.only, ","), Begun: time.Now()}
	env := map[string][]string{}
	for _, cluster := range deployment.Clusters() {
		env[cluster] = []string{"TANDEM_HEDGE=" + o.hedge}
	}
	d, err := deployment.Start(ctx, deployment.Config{Dir: o.dir, Programs: programs.right, Wrong: programs.wrong, Disks: true, Plant: o.plant, Env: env})
	if err != nil {
		return r, fmt.Errorf("start: %w", err)
	}
	defer d.Stop()
	r.Strikes = schedule(picked(o.only), o.seed, o.duration)
	begun := time.Now()
	load := workload.New(o.seed)
	publisher, err := d.Publisher()
	if err != nil {
		return r, err
	}
	fed := make(chan error, 1)
	f := feed.New(publisher, feed.Config{Rate: o.rate})
	go func() { fed <- f.Run(ctx, 0, load.Events()) }()
	defer time.AfterFunc(o.duration, load.End).Stop()
	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); watch(watching, d, begun, &r) }()

	strikeAll(ctx, d, r.Strikes, load, say)
	say("undoing the faults, and waiting until everything is processed")
	err = mendAndDrain(ctx, d, fed, &r, say)
	stopWatching()
	<-watched
	if err != nil {
		return r, err
	}
	r.Drained = time.Since(begun) - o.duration
	return r, judge(ctx, d, load.Truth(), &r)
}

// mendAndDrain waits until nothing is under way.
func mendAndDrain(ctx context.Context, d *deployment.Deployment, fed <-chan error, r *report, say func(string, ...any)) error {
	mending, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	if err := d.Mend(mending); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	select {
	case err := <-fed:
		if err != nil {
			return err
		}
	case <-mending.Done():
		return errors.New("the stream no longer accepts events")
	}
	draining, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := d.Drain(draining, say); err != nil {
		r.violate("not everything is processed, although all faults were undone: %s", err)
	}
	return nil
}

// watch periodically reads how many events are committed, and checks the
// invariant.
func watch(ctx context.Context, d *deployment.Deployment, begun time.Time, r *report) {
	for deployment.Wait(ctx, 200*time.Millisecond) {
		var n, sum int64
		looking, cancel := context.WithTimeout(ctx, time.Second)
		err := d.Pool.QueryRow(looking, `select (select count(*) from tandem.ledger), (select coalesce(sum(balance), 0)::bigint from accounts)`).Scan(&n, &sum)
		cancel()
		if err != nil {
			continue // the database is unavailable
		}
		r.Samples = append(r.Samples, sample{At: time.Since(begun), Committed: n})
		if sum != 0 {
			r.violate("after %s the sum of the accounts was %d, want 0", time.Since(begun).Round(time.Millisecond), sum)
		}
	}
}

// judge compares the result with the content of the streams, and with the truth.
func judge(ctx context.Context, d *deployment.Deployment, truth workload.Truth, r *report) error {
	var err error
	r.Audit, err = audit.Run(ctx, audit.Config{Functions: deployment.Functions(), Pool: d.Pool, Conn: d.Conn, Limit: 10})
	if err != nil {
		return err
	}
	for _, f := range r.Audit.Findings {
		r.violate("%s", f)
	}
	if !r.Audit.Complete {
		r.violate("the stream has deleted its first messages")
	}
	if r.Audit.Pending != 0 {
		r.violate("%d events are neither committed nor acknowledged", r.Audit.Pending)
	}
	if len(r.Audit.Unchecked) > 0 {
		r.violate("the comparison is incomplete: %v", r.Audit.Unchecked)
	}
	if r.Audit.Outputs != truth.Outputs() {
		r.violate("distinct outputs: %d, want %d", r.Audit.Outputs, truth.Outputs())
	}
	differences, err := truth.Differences(ctx, d.Pool)
	if err != nil {
		return err
	}
	for _, d := range differences {
		r.violate("%s", d)
	}
	r.Events = truth.Events()
	return d.Pool.QueryRow(ctx, `select xact_rollback, deadlocks from pg_stat_database where datname = current_database()`).Scan(&r.Rollbacks, &r.Deadlocks)
}
