package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// strikeAll does what is scheduled, from now on, and undoes it again. It returns when
// all is undone.
func (w *world) strikeAll(ctx context.Context, strikes []strike, load *workload, say func(string, ...any)) {
	begun := time.Now()
	var under sync.WaitGroup
	for i := range strikes {
		s := &strikes[i]
		if !wait(ctx, time.Until(begun.Add(s.At))) {
			break
		}
		say("%6.1f s  %s", s.At.Seconds(), s)
		under.Go(func() {
			if err := w.strike(ctx, *s, i, load); err != nil {
				s.Failed = err.Error()
			}
		})
	}
	under.Wait()
}

// strike does one thing and undoes it.
func (w *world) strike(ctx context.Context, s strike, number int, load *workload) error {
	cluster, _, _ := strings.Cut(s.Target, "-")
	switch s.Kind {
	case "kill":
		return w.signal(s.Target, syscall.SIGKILL)
	case "end":
		return w.signal(s.Target, syscall.SIGTERM)
	case "stop":
		if err := w.signal(s.Target, syscall.SIGSTOP); err != nil {
			return err
		}
		wait(ctx, s.For)
		return w.signal(s.Target, syscall.SIGCONT)
	case "cluster gone":
		return w.change(ctx, cluster, s.For, func() { w.clusters[cluster].Vanish() })
	case "upgrade":
		return w.change(ctx, cluster, s.For, func() {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			w.clusters[cluster].Stop(ctx)
			w.versions[cluster] = map[string]string{"v1": "v2", "v2": "v1"}[w.versions[cluster]]
		})
	case "database crashes":
		return w.postgres.Crash(ctx)
	case "database restarts":
		return w.postgres.Restart(ctx)
	case "database is read-only":
		if err := w.readOnly(ctx, true); err != nil {
			return err
		}
		wait(ctx, s.For)
		return w.readOnly(ctx, false)
	case "database refuses connections":
		for _, name := range clusterNames {
			w.links[name+"-postgres"].set(weather{cut: true})
		}
		wait(ctx, s.For)
		for _, name := range clusterNames {
			w.links[name+"-postgres"].set(weather{})
		}
		return nil
	case "leader killed":
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		stream, err := w.js.Stream(asking, s.Target)
		if err != nil {
			return err
		}
		return w.signal(stream.CachedInfo().Cluster.Leader, syscall.SIGKILL)
	case "duplicates":
		return load.repeat(ctx, w.js)
	case "poison":
		publisher, err := jetstream.NewPublisher(w.conn, jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			return err
		}
		return load.spoil(ctx, publisher, number)
	}
	bad, ok := weathers[s.Kind]
	if !ok {
		return fmt.Errorf("there is no strike %q", s.Kind)
	}
	w.links[s.Target].set(bad)
	wait(ctx, s.For)
	w.links[s.Target].set(weather{})
	return nil
}

var weathers = map[string]weather{
	"link cut":         {cut: true},
	"link cut one way": {deaf: true},
	"link slow":        {delay: 500 * time.Millisecond},
	"link lossy":       {loss: 0.01},
	"link resets":      {resets: 0.02},
}

func (w *world) signal(name string, sig syscall.Signal) error {
	p := w.part(name)
	if p == nil {
		return fmt.Errorf("%s is not there", name)
	}
	if err := p.Kill(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// change ends a cluster and after a while starts it again. One at a time does so to
// a cluster.
func (w *world) change(ctx context.Context, cluster string, after time.Duration, end func()) error {
	w.changing[cluster].Lock()
	defer w.changing[cluster].Unlock()
	end()
	wait(ctx, after)
	return w.startCluster(context.WithoutCancel(ctx), cluster)
}

// readOnly makes the database refuse writes, or take them again.
func (w *world) readOnly(ctx context.Context, on bool) error {
	sql := "alter system reset default_transaction_read_only"
	if on {
		sql = "alter system set default_transaction_read_only = on"
	}
	conn, err := w.admin.Acquire(ctx)
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

// mend undoes whatever may not have been undone.
func (w *world) mend(ctx context.Context) error {
	for _, l := range w.links {
		l.set(weather{})
	}
	for _, name := range append(append([]string(nil), parts...), "nats-1", "nats-2", "nats-3") {
		_ = w.signal(name, syscall.SIGCONT) // whoever is gone needs none
	}
	if err := w.postgres.WaitUntilReady(ctx); err != nil {
		return err
	}
	for {
		err := w.readOnly(ctx, false)
		if err == nil {
			break
		}
		if !wait(ctx, 100*time.Millisecond) {
			return fmt.Errorf("make the database take writes again: %w", err)
		}
	}
	for _, c := range w.clusters {
		if err := c.WaitUntilReady(ctx); err != nil {
			return err
		}
	}
	return nil
}
