package deployment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// Processes returns the names of all processes of the clusters.
func Processes() []string { return across("function", "source", "ingest") }

// FunctionProcesses returns the names of the functions' processes.
func FunctionProcesses() []string { return across("function") }

// Links returns the names of all links.
func Links() []string {
	links := across("postgres", "nats", "function")
	for i := range replicas {
		for j := range i {
			links = append(links, routeName(fmt.Sprintf("nats-%d", i+1), fmt.Sprintf("nats-%d", j+1)))
		}
	}
	return links
}

// routeName returns the name of the link between two servers of the streams, in
// either direction.
func routeName(a, b string) string { return min(a, b) + "+" + max(a, b) }

func across(parts ...string) []string {
	var names []string
	for _, c := range Clusters() {
		for _, p := range parts {
			names = append(names, c+"-"+p)
		}
	}
	return names
}

// Signal sends a signal to a process, found by its name.
func (d *Deployment) Signal(name string, sig syscall.Signal) error {
	p := d.Process(name)
	if p == nil {
		return fmt.Errorf("%s does not exist", name)
	}
	if err := p.Kill(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// SetLinks sets the condition of the links from a cluster to the servers.
func (d *Deployment) SetLinks(cluster string, condition link.Condition) {
	for _, to := range []string{"postgres", "standby", "nats"} {
		d.Link(cluster + "-" + to).Set(condition)
	}
}

// Lose simulates a power failure of a cluster's data centre: all its processes are
// killed without notice.
func (d *Deployment) Lose(cluster string) {
	d.SetLinks(cluster, link.Condition{Silent: true})
	d.Cluster(cluster).Vanish()
}

// Return restarts a cluster that was lost, and waits until it answers.
func (d *Deployment) Return(ctx context.Context, cluster string) error {
	d.SetLinks(cluster, link.Condition{})
	if err := d.StartCluster(cluster); err != nil {
		return err
	}
	return d.Cluster(cluster).WaitUntilReady(ctx)
}

// Acknowledged reports whether a cluster has acknowledged all messages of the inputs
// up to a sequence.
func (d *Deployment) Acknowledged(ctx context.Context, cluster string, sequence uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := d.JS.Consumer(ctx, Inputs, "tandem-"+cluster+"-flights")
	if err != nil {
		return false, err
	}
	return c.CachedInfo().AckFloor.Stream >= sequence, nil
}

// Change ends a cluster and starts it again after a while. For one cluster it must
// not run concurrently.
func (d *Deployment) Change(ctx context.Context, cluster string, after time.Duration, end func()) error {
	changing := &d.states[cluster].changing
	changing.Lock()
	defer changing.Unlock()
	end()
	Wait(ctx, after)
	return d.StartCluster(cluster)
}

// Upgrade shuts a cluster down and after a while starts it with the other version
// of its function.
func (d *Deployment) Upgrade(ctx context.Context, cluster string, after time.Duration) error {
	return d.Change(ctx, cluster, after, func() {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		d.Cluster(cluster).Stop(ctx)
		s := d.states[cluster]
		s.version = map[string]string{"v1": "v2", "v2": "v1"}[s.version]
	})
}

// Clock ends a cluster and after a while starts it with clocks that are off by that
// much, as if they had been set wrong.
func (d *Deployment) Clock(ctx context.Context, cluster string, after, off time.Duration) error {
	if d.cfg.Wrong == (devcluster.Programs{}) {
		return errors.New("there are no programs with a wrong clock")
	}
	return d.Change(ctx, cluster, after, func() {
		d.Cluster(cluster).Vanish()
		d.states[cluster].clock = off
	})
}

// KillLeader kills the NATS server that leads a stream.
func (d *Deployment) KillLeader(ctx context.Context, stream string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := d.JS.Stream(ctx, stream)
	if err != nil {
		return err
	}
	cluster := s.CachedInfo().Cluster
	if cluster == nil || cluster.Leader == "" {
		return fmt.Errorf("stream %s has no leader now", stream)
	}
	return d.Signal(cluster.Leader, syscall.SIGKILL)
}

// ReadOnly makes the database refuse writes, or accept them again.
func (d *Deployment) ReadOnly(ctx context.Context, on bool) error {
	sql := "alter system reset default_transaction_read_only"
	if on {
		sql = "alter system set default_transaction_read_only = on"
	}
	conn, err := d.Admin.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	// alter system is refused in a read-only transaction.
	for _, sql := range []string{"set default_transaction_read_only = off", sql, "select pg_reload_conf()", "reset default_transaction_read_only"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// The statements that remove a type's table and restore it. They can be repeated.
const (
	breakType = "alter table if exists harm_events rename to harm_events_away"
	mendType  = "alter table if exists harm_events_away rename to harm_events"
)

// FailType removes the table of the type harm, so that its events cannot be committed, or
// restores it.
func (d *Deployment) FailType(ctx context.Context, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	sql := mendType
	if on {
		sql = breakType
	}
	_, err := d.Pool.Exec(ctx, sql)
	return err
}

// Mend undoes every fault that may still exist, and waits until all clusters answer.
func (d *Deployment) Mend(ctx context.Context) error {
	for _, name := range Links() {
		d.Link(name).Heal()
	}
	for _, name := range append(Processes(), "nats-1", "nats-2", "nats-3") {
		_ = d.Signal(name, syscall.SIGCONT) // a process that has ended needs none
	}
	for name, dir := range d.disks {
		if err := remount(dir, diskSize); err != nil {
			return fmt.Errorf("free the disk of %s: %w", name, err)
		}
	}
	if err := d.Postgres().WaitUntilReady(ctx); err != nil {
		return err
	}
	if d.Replicated == nil {
		for {
			err := d.ReadOnly(ctx, false)
			if err == nil {
				err = d.FailType(ctx, false)
			}
			if err == nil {
				break
			}
			if !Wait(ctx, 100*time.Millisecond) {
				return fmt.Errorf("make the database accept writes: %w", err)
			}
		}
	}
	return d.WaitUntilReady(ctx)
}

// Left returns a description of the work under way; empty if there is none.
func (d *Deployment) Left(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, name := range Clusters() {
		c, err := d.JS.Consumer(ctx, Inputs, "tandem-"+name+"-flights")
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

// drainPatience is how long the remaining work may stay unchanged until it counts
// as stuck.
const drainPatience = 3 * time.Minute

// Drain waits until nothing is under way and no output waits. It returns an error with the
// remaining work when ctx ends, or when that has not changed for drainPatience. It calls
// say periodically.
func (d *Deployment) Drain(ctx context.Context, say func(string, ...any)) error {
	const news = 15 * time.Second
	said, before, changed := time.Now(), "", time.Now()
	box := sinkwriter.NewOutbox(d.Pool)
	for {
		left, err := d.Left(ctx)
		if err == nil && left == "" {
			// Their winners are dead and will not publish them; that the relay takes
			// over after 30 s is tested elsewhere.
			_, _ = d.Pool.Exec(ctx, `update tandem.outbox set due = now() where due < now() + interval '25 seconds'`)
			if n, err := box.Backlog(ctx); err == nil && n == 0 {
				return nil
			}
			left = "outputs are in the outbox"
		}
		if err != nil {
			left = err.Error()
		}
		if time.Since(said) > news {
			say("  %s", left)
			said = time.Now()
		}
		if left != before {
			before, changed = left, time.Now()
		}
		if time.Since(changed) > drainPatience || !Wait(ctx, 200*time.Millisecond) {
			return errors.New(left)
		}
	}
}
