package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tandem-fn/tandem/hack/feed"
)

// row holds the measurements of a peer.
type row struct {
	Name        string       `json:"name"`
	Title       string       `json:"title"`
	Tried       []attempt    `json:"tried"`
	Concurrency int          `json:"concurrency"`
	Rounds      []throughput `json:"rounds"`
	Latency     *latency     `json:"latency,omitempty"`
	Again       []string     `json:"again,omitempty"` // why a trial was repeated
	Killed      *killed      `json:"killed,omitempty"`

	peer peer
}

// attempt is a concurrency that was tried.
type attempt struct {
	Concurrency     int     `json:"concurrency"`
	EventsPerSecond float64 `json:"events_per_second"`
}

// execute measures the rows that the flags select, and writes the report.
func execute(ctx context.Context, o options, out io.Writer) error {
	if o.again != "" {
		r, err := readReport(ctx, o.again)
		if err != nil {
			return err
		}
		return r.finish(ctx, o, out)
	}
	say(out, "building Tandem and starting the servers")
	d, err := deploy(ctx, o.dir, o.keep, os.Stderr)
	if err != nil {
		return err
	}
	defer d.close()
	if o.keep {
		say(out, "data and logs: %s", d.dir)
	}
	r, err := d.measure(ctx, o, func(format string, args ...any) { say(out, format, args...) })
	if r == nil || !r.worthwhile() {
		return err
	}
	ctx = context.WithoutCancel(ctx) // after an interruption the measurements so far are still reported
	if err != nil {
		r.CutShort = err.Error()
		say(out, "peers: cut short: %v", err)
	}
	if r.Continued.IsZero() {
		r.Took = time.Since(r.Begun)
	}
	return r.finish(ctx, o, out)
}

// finish shows the report and writes it.
func (r *report) finish(ctx context.Context, o options, out io.Writer) error {
	if o.note != "" {
		r.Note = o.note
	}
	say(out, "\n%s", r.markdown())
	dir, err := r.write(ctx, o.report)
	if err != nil {
		return err
	}
	say(out, "Report: %s", dir)
	return nil
}

// measure performs all measurements.
func (d *deployment) measure(ctx context.Context, o options, progress func(string, ...any)) (*report, error) {
	r, err := d.rounds(ctx, o, progress)
	if err != nil {
		return r, err
	}
	for _, line := range r.Rows {
		load, err := makeWorkload(int(o.duration.Seconds() * float64(o.rate)))
		if err != nil {
			return nil, err
		}
		if line.Latency != nil {
			continue
		}
		l, err := d.latency(ctx, line.peer, line.Concurrency, load, o.rate)
		if err != nil {
			return r, err
		}
		line.Latency = &l
		progress("latency    %-18s at %d events/s: p50 %.1f ms, p99 %.1f ms; output p99 %.1f ms", line.Name, o.rate, line.Latency.CommitP50, line.Latency.CommitP99, line.Latency.OutputP99)
	}
	for _, line := range r.Rows {
		load, err := makeWorkload(killedEvents(o) * line.peer.factor)
		if err != nil {
			return nil, err
		}
		if line.Killed != nil {
			continue
		}
		k, err := d.killed(ctx, line.peer, line.Concurrency, load)
		if err != nil {
			return r, err
		}
		line.Killed = &k
		progress("SIGKILL    %-18s survivor alone: %d missing, %d doubled; both again: %d lost, %d doubled", line.Name, k.Alone.Lost, k.Alone.Doubled, k.Back.Lost, k.Back.Doubled)
	}
	return r, nil
}

// rounds measures throughput, or reads it from a report that is continued.
func (d *deployment) rounds(ctx context.Context, o options, progress func(string, ...any)) (*report, error) {
	if o.goOn != "" {
		r, err := readReport(ctx, o.goOn)
		if err == nil && r.CutShort != "" {
			r.CutShort = ""
			r.Continued = time.Now().UTC()
		}
		return r, err
	}
	r := &report{Begun: time.Now().UTC(), Rate: o.rate, Events: o.events, Quick: o.quick, Versions: versions()}
	var err error
	if r.Setup, err = d.describe(ctx); err != nil {
		return nil, err
	}
	for _, p := range o.selected() {
		r.Rows = append(r.Rows, &row{Name: p.name, Title: p.title, peer: p})
	}
	for _, line := range r.Rows {
		if err := d.try(ctx, o, line, progress); err != nil {
			return nil, err
		}
	}
	for round := range o.rounds {
		for _, line := range r.Rows {
			load, err := makeWorkload(o.events * line.peer.factor)
			if err != nil {
				return nil, err
			}
			t, err := d.again(ctx, line, line.Concurrency, load, progress)
			if err != nil {
				return r, fmt.Errorf("round %d: %w", round+1, err)
			}
			line.Rounds = append(line.Rounds, t)
			progress("round %d/%d  %-18s %8.0f events/s, %5.0f bytes of WAL an event, %d connections", round+1, o.rounds, line.Name, t.EventsPerSecond, t.WALPerEvent, t.Connections)
		}
	}
	return r, nil
}

// killedEvents returns how many events there are when a cluster is killed: at least
// all flights, so that the truth is the count of another program, except in a quick
// run.
func killedEvents(o options) int {
	if o.quick {
		return o.events
	}
	return max(o.events, feed.Flights)
}

// again measures throughput, and repeats it once if something stalled or did not
// start; the report mentions it. A wrong outcome is an error at once.
func (d *deployment) again(ctx context.Context, line *row, concurrency int, load workload, progress func(string, ...any)) (throughput, error) {
	t, err := d.throughput(ctx, line.peer, concurrency, load)
	if err == nil || ctx.Err() != nil || errors.Is(err, errWrong) {
		return t, err
	}
	line.Again = append(line.Again, err.Error())
	progress("again      %-18s %v", line.Name, err)
	return d.throughput(ctx, line.peer, concurrency, load)
}

// try tries the peer's concurrencies and selects the best.
func (d *deployment) try(ctx context.Context, o options, line *row, progress func(string, ...any)) error {
	list := line.peer.concurrencies
	if o.quick {
		list = list[len(list)/2 : len(list)/2+1]
	}
	line.Concurrency = list[0]
	if len(list) == 1 {
		return nil
	}
	load, err := makeWorkload(max(1000, o.events/4) * line.peer.factor)
	if err != nil {
		return err
	}
	best := 0.0
	for _, concurrency := range list {
		t, err := d.again(ctx, line, concurrency, load, progress)
		if err != nil {
			return err
		}
		line.Tried = append(line.Tried, attempt{concurrency, t.EventsPerSecond})
		progress("tried      %-18s %4d at a time: %8.0f events/s", line.Name, concurrency, t.EventsPerSecond)
		if t.EventsPerSecond > best {
			best, line.Concurrency = t.EventsPerSecond, concurrency
		}
	}
	return nil
}
