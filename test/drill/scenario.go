package main

import (
	"context"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/test/deployment"
)

// scenario is a failure that can be drilled.
type scenario struct {
	name string
	what string // description in one line

	// env holds variables of the clusters' processes; standby is whether the database
	// has one.
	env     map[string][]string
	standby bool

	// sources is the number of replicas of a cluster's source, if there are several.
	sources map[string]int

	// prepare sets up the deployment before the drill; nil for nothing.
	prepare func(ctx context.Context, d *drilling) error

	// strike causes the failure. It includes automatic and manual reactions to
	// it: the drill continues when the service does.
	strike func(ctx context.Context, d *drilling) error

	// heal restores what strike removed; nil if there is nothing to restore. restore
	// does so at the end of the drill, for the comparison.
	heal, restore func(ctx context.Context, d *drilling) error

	// ordered means that the database may not lose commits, because every server shuts
	// down properly.
	ordered bool

	// away is a cluster that is not expected to catch up.
	away string
}

const lost = "east" // the cluster that is lost

// scenarios are listed in this order. drill.AllowedGap returns the longest gap that each
// allows.
var scenarios = []scenario{
	{
		name: "lose-cluster",
		what: "a whole cluster loses power, both in race mode, and returns",
		strike: func(_ context.Context, d *drilling) error {
			d.deployment.Lose(lost)
			return nil
		},
		heal: func(ctx context.Context, d *drilling) error { return d.deployment.Return(ctx, lost) },
	},
	{
		name:   "lose-half-database",
		what:   "a cluster's link to the database drops all packets, its link to the stream works",
		strike: setLinks(link.Condition{Silent: true}, "postgres"),
		heal:   setLinks(link.Condition{}, "postgres"),
	},
	{
		name:   "lose-half-stream",
		what:   "a cluster's link to the stream drops all packets, its link to the database works",
		strike: setLinks(link.Condition{Silent: true}, "nats"),
		heal:   setLinks(link.Condition{}, "nats"),
	},
	{
		name:   "link-cut",
		what:   "a cluster is cut off from database and stream, every connection is reset, and healed",
		strike: setLinks(link.Condition{Cut: true}, "postgres", "nats"),
		heal:   setLinks(link.Condition{}, "postgres", "nats"),
	},
	{
		name: "hedge-takeover",
		what: "a hedging cluster takes over when the active one loses power",
		env:  map[string][]string{"west": {"TANDEM_HEDGE=" + drill.HedgeDelay.String()}},
		strike: func(_ context.Context, d *drilling) error {
			d.deployment.Lose(lost)
			return nil
		},
		heal: func(ctx context.Context, d *drilling) error { return d.deployment.Return(ctx, lost) },
	},
	{
		name: "standby-on",
		what: "the active cluster loses power, and an operator activates the standby",
		env:  map[string][]string{"west": {"TANDEM_HEDGE=standby"}},
		strike: func(ctx context.Context, d *drilling) error {
			d.deployment.Lose(lost)
			d.note("an operator notices, and activates west after %s", d.options.reaction)
			deployment.Wait(ctx, d.options.reaction)
			err := ledger.NewCheckpoints(d.deployment.Pool, "").SetHedge(ctx, "flights", "west", "race")
			d.note("west is switched from standby to race")
			return err
		},
		heal: func(ctx context.Context, d *drilling) error { return d.deployment.Return(ctx, lost) },
	},
	{
		name: "stream-leader",
		what: "the NATS server that leads the stream is killed, and returns as a follower",
		strike: func(ctx context.Context, d *drilling) error {
			return d.deployment.KillLeader(ctx, deployment.Inputs)
		},
	},
	{
		name:    "source-replicas",
		what:    "the active replica of the active cluster's source is killed, frozen and rolled out, repeatedly",
		env:     map[string][]string{"west": {"TANDEM_HEDGE=standby"}},
		sources: map[string]int{lost: sourceReplicas},
		strike:  replaceSources,
	},
	{
		name:    "database-failover",
		what:    "the primary is killed with commits that its asynchronous standby has not received",
		standby: true,
		strike:  failover,
	},
	{
		name:    "lose-primary",
		what:    "the data centre of the primary loses power: cluster, primary, a NATS server",
		standby: true,
		away:    lost,
		strike:  losePrimary,
		restore: func(ctx context.Context, d *drilling) error { return d.deployment.Return(ctx, lost) },
	},
	{
		name:    "failback",
		ordered: true,
		what:    "planned switchover back to the former primary after a failover: no commit may be lost",
		standby: true,
		prepare: func(ctx context.Context, d *drilling) error {
			d.deployment.Replicated.LosePrimary()
			if err := d.deployment.Replicated.Promote(ctx); err != nil {
				return err
			}
			if err := d.deployment.Replicated.Rejoin(ctx); err != nil {
				return err
			}
			return d.deployment.Replicated.CatchUp(ctx)
		},
		strike: switchOver,
	},
}

// setLinks sets the condition of links of the cluster that is lost.
func setLinks(c link.Condition, to ...string) func(context.Context, *drilling) error {
	return func(_ context.Context, d *drilling) error {
		for _, name := range to {
			d.deployment.Link(lost + "-" + name).Set(c)
		}
		return nil
	}
}

// find returns the scenario with a name.
func find(name string) (scenario, bool) {
	for _, s := range scenarios {
		if s.name == name {
			return s, true
		}
	}
	return scenario{}, false
}
