package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/audit"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/test/deployment"
	"github.com/tandem-fn/tandem/test/deployment/workload"
)

const (
	warmTimeout  = time.Minute
	drainTimeout = 3 * time.Minute
	catchUpLimit = time.Minute
	poll         = 20 * time.Millisecond
)

// drilling is a running drill.
type drilling struct {
	options    options
	scenario   scenario
	deployment *deployment.Deployment
	say        func(string, ...any)

	begun, struck, healed, caught, ended time.Time

	takeovers []takeover // of a source by another replica

	mu     sync.Mutex
	result drill.Result
	now    string // the phase, for the progress
}

// run runs one drill on this machine. It returns an error if that was not
// possible.
func run(ctx context.Context, o options, programs devcluster.Programs, say func(string, ...any)) (drill.Result, error) {
	s, _ := find(o.scenario)
	d := &drilling{options: o, scenario: s, say: say, now: "before"}
	d.result = drill.Result{Scenario: s.name, What: s.what, Rate: o.rate, Plant: o.plant, Options: o.shown()}
	say("starting PostgreSQL, NATS and two clusters")
	var err error
	d.deployment, err = deployment.Start(ctx, deployment.Config{
		Dir: o.dir, Programs: programs, Plant: o.plant, Env: s.env, Sources: s.sources, Standby: s.standby,
		Settings: map[string]string{"track_commit_timestamp": "on"}, Grace: 10 * time.Second,
	})
	if err != nil {
		return d.result, fmt.Errorf("start: %w", err)
	}
	defer d.deployment.Stop()
	if s.prepare != nil {
		say("preparing")
		if err := s.prepare(ctx, d); err != nil {
			return d.result, fmt.Errorf("prepare: %w", err)
		}
	}
	load := workload.New(o.seed)
	publisher, err := d.deployment.Publisher()
	if err != nil {
		return d.result, err
	}
	fed := make(chan error, 1)
	f := feed.New(publisher, feed.Config{Rate: o.rate})
	go func() { fed <- f.Run(ctx, 0, load.Events()) }()
	err = d.phases(ctx)
	load.End()
	if err != nil {
		return d.result, err
	}
	if s.restore != nil {
		if err := s.restore(ctx, d); err != nil {
			return d.result, fmt.Errorf("restore everything: %w", err)
		}
	}
	say("the events have ended; waiting until everything is processed")
	if err := <-fed; err != nil {
		return d.result, err
	}
	draining, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := d.deployment.Drain(draining, say); err != nil {
		d.result.Fail("everything is processed at the end", "%s after the last fault: %s", drainTimeout, err)
	}
	say("comparing stream, ledger, tables and outputs")
	return d.result, d.judge(ctx, load.Truth())
}

// phases waits, strikes, and heals.
func (d *drilling) phases(ctx context.Context) error {
	if err := d.warmUp(ctx); err != nil {
		return err
	}
	d.begun = time.Now()
	d.result.Begun = d.begun
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go d.watch(watching)

	deployment.Wait(ctx, d.options.phase)
	d.struck = time.Now()
	d.enter("during")
	d.note("%s", d.scenario.what)
	if err := d.scenario.strike(ctx, d); err != nil {
		return fmt.Errorf("strike: %w", err)
	}
	if d.scenario.heal != nil {
		deployment.Wait(ctx, d.options.phase)
		d.healed = time.Now()
		d.note("the failure is repaired")
		if err := d.scenario.heal(ctx, d); err != nil {
			return fmt.Errorf("heal: %w", err)
		}
	}
	if d.scenario.heal == nil {
		// A failure without a repair is over when the stream accepts events again.
		if err := d.awaitEvents(ctx); err != nil {
			return err
		}
		d.healed = time.Now()
	}
	if err := d.catchUp(ctx); err != nil {
		return err
	}
	d.caught = time.Now()
	d.note("all running clusters have caught up, after %s", d.caught.Sub(d.healed).Round(time.Millisecond))
	d.enter("after")
	deployment.Wait(ctx, d.options.phase)
	d.ended = time.Now()
	return context.Cause(ctx)
}

// warmUp waits until every cluster that is supposed to work has done so for a
// moment.
func (d *drilling) warmUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	for _, cluster := range deployment.Clusters() {
		for {
			// A standby acknowledges events that others have committed, too.
			ok, err := d.deployment.Acknowledged(ctx, cluster, 100)
			if err == nil && ok {
				break
			}
			if !deployment.Wait(ctx, poll) {
				return fmt.Errorf("%s has not started to process events", cluster)
			}
		}
	}
	deployment.Wait(ctx, 2*time.Second)
	return context.Cause(ctx)
}

// catchUp waits until every running cluster has acknowledged all messages that were
// stored before the recovery.
func (d *drilling) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	last, err := d.last(ctx)
	if err != nil {
		return err
	}
	for _, cluster := range deployment.Clusters() {
		for cluster != d.scenario.away {
			ok, err := d.deployment.Acknowledged(ctx, cluster, last)
			if err == nil && ok {
				break
			}
			if !deployment.Wait(ctx, poll) {
				d.result.Fail("clusters catch up", "%s had not caught up after %s", cluster, drainTimeout)
				return nil
			}
		}
	}
	return nil
}

// last returns the sequence of the newest message of the inputs, as soon as the
// stream answers.
func (d *drilling) last(ctx context.Context) (uint64, error) {
	for {
		extent, err := d.deployment.Conn.Extent(ctx, jetstream.StreamConfig{Name: deployment.Inputs})
		if err == nil {
			return extent.Last, nil
		}
		if !deployment.Wait(ctx, poll) {
			return 0, fmt.Errorf("read the stream: %w", err)
		}
	}
}

// awaitEvents waits until the stream has stored some events that are published
// from now on.
func (d *drilling) awaitEvents(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	first, err := d.last(ctx)
	for err == nil {
		var now uint64
		if now, err = d.last(ctx); now >= first+uint64(d.options.rate/5) {
			return nil
		}
		deployment.Wait(ctx, poll)
	}
	return err
}

// committed returns the number of events in the ledger, as soon as the database
// answers.
func (d *drilling) committed(ctx context.Context) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		err = d.deployment.Pool.QueryRow(attempt, "select count(*) from tandem.ledger").Scan(&n)
		cancel()
		if err == nil || !deployment.Wait(ctx, poll) {
			return n, err
		}
	}
}

// judge evaluates the drill and sets the verdict.
func (d *drilling) judge(ctx context.Context, truth workload.Truth) error {
	r := &d.result
	streams := []jetstream.StreamConfig{{Name: deployment.Inputs}}
	rec, exact, err := drill.Read(ctx, d.deployment.Pool, d.deployment.Conn, streams, deployment.Functions(), d.begun.Add(-10*time.Second))
	if err != nil {
		return fmt.Errorf("read the results: %w", err)
	}
	if !exact {
		return errors.New("read the results: track_commit_timestamp is off")
	}
	// After a failover clusters may have acknowledged events that have to be
	// processed again.
	d.caught = later(d.caught, rec.Through(d.healed))
	r.Measure(&rec, d.begun, d.struck, d.healed, d.caught, later(d.ended, d.caught))
	r.CatchUp = d.caught.Sub(d.healed)
	limit, why, _ := drill.AllowedGap(d.scenario.name, d.options.conditions(r.Phases[0].Gap))
	if d.options.maxGap > 0 {
		limit, why = d.options.maxGap, "--max-gap"
	}
	r.CheckGap(limit, why)
	d.checkTakeovers(&rec)
	r.Check("time to catch up", r.CatchUp <= catchUpLimit, r.CatchUp, catchUpLimit, "")
	if d.scenario.ordered {
		r.Check("commits that the database has lost", r.Forgotten == 0, r.Forgotten, 0, "")
	}
	r.Audit, err = audit.Run(ctx, audit.Config{Functions: deployment.Functions(), Pool: d.deployment.Pool, Conn: d.deployment.Conn, Limit: 20})
	if err != nil {
		return err
	}
	differences, err := truth.Differences(ctx, d.deployment.Pool)
	if err != nil {
		return err
	}
	twice, err := applied(ctx, d.deployment.Pool)
	if err != nil {
		return err
	}
	r.Judge(truth.Events()-r.Audit.Events, max(0, twice-truth.Events()), differences)
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
