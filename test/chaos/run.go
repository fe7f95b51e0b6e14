package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/audit"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/hack/local"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const (
	mendTimeout  = 2 * time.Minute
	drainTimeout = 4 * time.Minute

	// nudge is when sources are restarted that still wait for the stream to hand
	// out again what it believes to be under way: an acknowledgement was lost, and
	// after 90 s it would come by itself.
	nudge = 15 * time.Second
)

// run strikes once and gives the report. The error says that it could not.
func run(ctx context.Context, o options, programs local.Programs, say func(string, ...any)) (report, error) {
	r := report{Seed: o.seed, Duration: o.duration, Rate: o.rate, Plant: o.plant, Begun: time.Now()}
	w, err := start(ctx, o, programs)
	if err != nil {
		return r, fmt.Errorf("start: %w", err)
	}
	defer w.stop()
	r.Strikes = schedule(o.seed, o.duration)
	begun := time.Now()
	load := newWorkload(o.seed, begun.Add(o.duration))
	publisher, err := jetstream.NewPublisher(w.conn, jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		return r, err
	}
	fed := make(chan error, 1)
	f := feed.New(publisher, feed.Config{Rate: o.rate})
	go func() { fed <- f.Run(ctx, 0, load.events()) }()
	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); w.watch(watching, begun, &r) }()

	w.strikeAll(ctx, r.Strikes, load, say)
	say("mending, and waiting until all is through")
	err = w.mendAndDrain(ctx, fed, &r, say)
	stopWatching()
	<-watched
	if err != nil {
		return r, err
	}
	r.Drained = time.Since(begun) - o.duration
	return r, w.judge(ctx, load, &r)
}

// mendAndDrain waits until nothing is under way.
func (w *world) mendAndDrain(ctx context.Context, fed <-chan error, r *report, say func(string, ...any)) error {
	mending, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	if err := w.mend(mending); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	select {
	case err := <-fed:
		if err != nil {
			return err
		}
	case <-mending.Done():
		return errors.New("the stream does not take events any more")
	}
	draining, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	nudged := time.Time{}
	box := sinkwriter.NewOutbox(w.pool)
	for {
		left, err := w.left(draining)
		if err == nil && left == "" {
			// Who won them and died will not publish them, and that the relay takes
			// over after 30 s is no news.
			_, _ = w.pool.Exec(draining, `update tandem.outbox set due = now() where due < now() + interval '25 seconds'`)
			if n, err := box.Backlog(draining); err == nil && n == 0 {
				return nil
			}
			left = "outputs are in the outbox"
		}
		if err != nil {
			left = err.Error()
		}
		if time.Since(nudged) > nudge {
			say("  %s", left)
			nudged = time.Now()
			for _, name := range clusterNames {
				_ = w.signal(name+"-source", syscall.SIGTERM)
			}
		}
		if !wait(draining, 200*time.Millisecond) {
			r.violate("after %s of peace not everything is through: %s", drainTimeout, left)
			return nil
		}
	}
}

// left says what is still under way; empty if nothing is.
func (w *world) left(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, name := range clusterNames {
		c, err := w.js.Consumer(ctx, "EVENTS", "tandem-"+name+"-flights")
		if err != nil {
			return "", err
		}
		info := c.CachedInfo()
		if info.NumPending > 0 || info.NumAckPending > 0 {
			return fmt.Sprintf("%s: %d events to be delivered, %d unacknowledged", name, info.NumPending, info.NumAckPending), nil
		}
	}
	return "", nil
}

// watch looks now and then how many events are committed, and at the invariant.
func (w *world) watch(ctx context.Context, begun time.Time, r *report) {
	for wait(ctx, 200*time.Millisecond) {
		var n, sum int64
		looking, cancel := context.WithTimeout(ctx, time.Second)
		err := w.pool.QueryRow(looking, `select (select count(*) from tandem.ledger), (select coalesce(sum(balance), 0)::bigint from accounts)`).Scan(&n, &sum)
		cancel()
		if err != nil {
			continue // it is away
		}
		r.Samples = append(r.Samples, sample{At: time.Since(begun), Committed: n})
		if sum != 0 {
			r.violate("after %s the accounts' sum was %d, not 0", time.Since(begun).Round(time.Millisecond), sum)
		}
	}
}

// judge compares what is there with what the streams say, and with the truth.
func (w *world) judge(ctx context.Context, load *workload, r *report) error {
	var err error
	r.Audit, err = audit.Run(ctx, audit.Config{Functions: chaosFunctions(), Pool: w.pool, Conn: w.conn, Limit: 10})
	if err != nil {
		return err
	}
	for _, f := range r.Audit.Findings {
		r.violate("%s", f)
	}
	if !r.Audit.Complete {
		r.violate("the stream has forgotten its beginning")
	}
	if r.Audit.Pending != 0 {
		r.violate("%d events are neither committed nor acknowledged", r.Audit.Pending)
	}
	if len(r.Audit.Unchecked) > 0 {
		r.violate("not everything could be compared: %v", r.Audit.Unchecked)
	}
	return w.compareTruth(ctx, load.truth, r)
}

// compareTruth compares the sums with those that this program has made itself.
func (w *world) compareTruth(ctx context.Context, t truth, r *report) error {
	check := func(what string, is, want int64) {
		if is != want {
			r.violate("%s: %d, should be %d", what, is, want)
		}
	}
	var flights, minutes, delayed, transfers, letters int64
	if err := w.pool.QueryRow(ctx, `select (select coalesce(sum(flights), 0)::bigint from airports), (select coalesce(sum(delay_minutes), 0)::bigint from airports),
(select count(*) from transfers), (select count(distinct (function, source, id)) from tandem.dead_letter)`).Scan(&flights, &minutes, &transfers, &letters); err != nil {
		return err
	}
	var want feed.Totals
	for _, totals := range t.flights {
		want = want.Plus(totals)
	}
	delayed = want.Delayed
	check("flights", flights, want.Flights)
	check("minutes of delay", minutes, want.DelayMinutes)
	check("transfers", transfers, t.transfers)
	check("dead letters", letters, t.poison)
	check("different outputs", r.Audit.Outputs, delayed+t.noticed)
	rows, err := w.pool.Query(ctx, `select account, balance from accounts`)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var account string
		var balance int64
		if err := rows.Scan(&account, &balance); err != nil {
			return err
		}
		found++
		check("balance of "+account, balance, t.balances[account])
	}
	check("accounts", int64(found), int64(len(t.balances)))
	if err := rows.Err(); err != nil {
		return err
	}
	r.Events = want.Flights + t.transfers
	return w.pool.QueryRow(ctx, `select xact_rollback, deadlocks from pg_stat_database where datname = current_database()`).Scan(&r.Rollbacks, &r.Deadlocks)
}
