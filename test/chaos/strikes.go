package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/test/deployment"
	"github.com/tandem-fn/tandem/test/deployment/workload"
	"github.com/tandem-fn/tandem/test/deployment/workload/harm"
)

// strikeAll executes the scheduled strikes, starting now, and ends each. It returns
// when all have ended.
func strikeAll(ctx context.Context, d *deployment.Deployment, strikes []strike, load *workload.Workload, say func(string, ...any)) {
	begun := time.Now()
	var under sync.WaitGroup
	for i := range strikes {
		s := &strikes[i]
		if !deployment.Wait(ctx, time.Until(begun.Add(s.At))) {
			break
		}
		say("%6.1f s  %s", s.At.Seconds(), s)
		under.Go(func() {
			if err := s.do(ctx, d, i, load); err != nil {
				s.Failed = err.Error()
			}
		})
	}
	under.Wait()
}

// do starts the strike and ends it after its duration.
func (s *strike) do(ctx context.Context, d *deployment.Deployment, number int, load *workload.Workload) error {
	cluster, _, _ := strings.Cut(s.Target, "-")
	switch s.Kind {
	case "kill", "kill-function":
		return d.Signal(s.Target, syscall.SIGKILL)
	case "end":
		return d.Signal(s.Target, syscall.SIGTERM)
	case "stop":
		if err := d.Signal(s.Target, syscall.SIGSTOP); err != nil {
			return err
		}
		deployment.Wait(ctx, s.For)
		return d.Signal(s.Target, syscall.SIGCONT)
	case "cluster gone":
		return d.Change(ctx, cluster, s.For, func() { d.Cluster(cluster).Vanish() })
	case "upgrade":
		return d.Upgrade(ctx, cluster, s.For)
	case "clock an hour ahead":
		return d.Clock(ctx, cluster, s.For, time.Hour)
	case "clock an hour behind":
		return d.Clock(ctx, cluster, s.For, -time.Hour)
	case "clock right":
		return d.Clock(ctx, cluster, s.For, 0)
	case "disk full":
		if err := d.FillDisk(s.Target); err != nil {
			return err
		}
		deployment.Wait(ctx, s.For)
		return d.FreeDisk(s.Target)
	case "database crashes":
		return d.Postgres().Crash(ctx)
	case "database restarts":
		return d.Postgres().Restart(ctx)
	case "database is read-only":
		if err := d.ReadOnly(ctx, true); err != nil {
			return err
		}
		deployment.Wait(ctx, s.For)
		return d.ReadOnly(ctx, false)
	case "database refuses connections":
		for _, name := range deployment.Clusters() {
			d.Link(name + "-postgres").Cut()
		}
		deployment.Wait(ctx, s.For)
		for _, name := range deployment.Clusters() {
			d.Link(name + "-postgres").Heal()
		}
		return nil
	case "leader killed":
		return d.KillLeader(ctx, s.Target)
	case "duplicates":
		return load.Repeat(ctx, d.JS)
	case "poison", "kill-event", "hang-event", "big-output", "fail-type":
		return s.publish(ctx, d, number, load)
	}
	bad, ok := conditions[s.Kind]
	if !ok {
		return fmt.Errorf("unknown strike %q", s.Kind)
	}
	d.Link(s.Target).Set(bad)
	deployment.Wait(ctx, s.For)
	d.Link(s.Target).Heal()
	return nil
}

// publish executes a strike that consists of events.
func (s *strike) publish(ctx context.Context, d *deployment.Deployment, number int, load *workload.Workload) error {
	publisher, err := d.Publisher()
	if err != nil {
		return err
	}
	one := func(kinds ...harm.Kind) error {
		// Other events in the same request must not be affected, even of the same type.
		return load.Harm(ctx, publisher, number, harm.None, kinds[number%len(kinds)], harm.None)
	}
	switch s.Kind {
	case "kill-event":
		return one(harm.Exit, harm.Panic, harm.Stack, harm.Memory)
	case "hang-event":
		return one(harm.Hang, harm.Hang, harm.Loop)
	case "big-output":
		return one(harm.Large)
	case "fail-type":
		if err := d.FailType(ctx, true); err != nil {
			return err
		}
		if err := load.Harm(ctx, publisher, number, slices.Repeat([]harm.Kind{harm.None}, 20)...); err != nil {
			return err
		}
		deployment.Wait(ctx, s.For)
		return d.FailType(ctx, false)
	default:
		return load.Spoil(ctx, publisher, number)
	}
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
