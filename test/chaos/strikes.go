package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/test/world"
)

// strikeAll does what is scheduled, from now on, and undoes it again. It returns when
// all is undone.
func strikeAll(ctx context.Context, w *world.World, strikes []strike, load *world.Workload, say func(string, ...any)) {
	begun := time.Now()
	var under sync.WaitGroup
	for i := range strikes {
		s := &strikes[i]
		if !world.Wait(ctx, time.Until(begun.Add(s.At))) {
			break
		}
		say("%6.1f s  %s", s.At.Seconds(), s)
		under.Go(func() {
			if err := s.do(ctx, w, i, load); err != nil {
				s.Failed = err.Error()
			}
		})
	}
	under.Wait()
}

// do does it and undoes it.
func (s *strike) do(ctx context.Context, w *world.World, number int, load *world.Workload) error {
	cluster, _, _ := strings.Cut(s.Target, "-")
	switch s.Kind {
	case "kill":
		return w.Signal(s.Target, syscall.SIGKILL)
	case "end":
		return w.Signal(s.Target, syscall.SIGTERM)
	case "stop":
		if err := w.Signal(s.Target, syscall.SIGSTOP); err != nil {
			return err
		}
		world.Wait(ctx, s.For)
		return w.Signal(s.Target, syscall.SIGCONT)
	case "cluster gone":
		return w.Change(ctx, cluster, s.For, func() { w.Cluster(cluster).Vanish() })
	case "upgrade":
		return w.Upgrade(ctx, cluster, s.For)
	case "clock an hour ahead":
		return w.Clock(ctx, cluster, s.For, time.Hour)
	case "clock an hour behind":
		return w.Clock(ctx, cluster, s.For, -time.Hour)
	case "clock right":
		return w.Clock(ctx, cluster, s.For, 0)
	case "disk full":
		if err := w.FillDisk(s.Target); err != nil {
			return err
		}
		world.Wait(ctx, s.For)
		return w.FreeDisk(s.Target)
	case "database crashes":
		return w.Postgres().Crash(ctx)
	case "database restarts":
		return w.Postgres().Restart(ctx)
	case "database is read-only":
		if err := w.ReadOnly(ctx, true); err != nil {
			return err
		}
		world.Wait(ctx, s.For)
		return w.ReadOnly(ctx, false)
	case "database refuses connections":
		for _, name := range world.Clusters() {
			w.Link(name + "-postgres").Cut()
		}
		world.Wait(ctx, s.For)
		for _, name := range world.Clusters() {
			w.Link(name + "-postgres").Heal()
		}
		return nil
	case "leader killed":
		return w.KillLeader(ctx, s.Target)
	case "duplicates":
		return load.Repeat(ctx, w.JS)
	case "poison":
		publisher, err := w.Publisher()
		if err != nil {
			return err
		}
		return load.Spoil(ctx, publisher, number)
	}
	bad, ok := conditions[s.Kind]
	if !ok {
		return fmt.Errorf("there is no strike %q", s.Kind)
	}
	w.Link(s.Target).Set(bad)
	world.Wait(ctx, s.For)
	w.Link(s.Target).Heal()
	return nil
}

// conditions are the strikes on links, by kind.
var conditions = map[string]link.Condition{
	"link cut":         {Cut: true},
	"link cut one way": {SilentBack: true},
	"link silent":      {Silent: true},
	"link slow":        {Delay: 500 * time.Millisecond},
	"link lossy":       {Loss: 0.01},
	"link resets":      {Resets: 0.02},
}
