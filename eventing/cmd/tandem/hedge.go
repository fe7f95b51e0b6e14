package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const hedgeHelp = `Shows how much redundancy a function has in each cluster, and switches it while
everything runs.

VALUE is one of

  0, race   Every cluster computes every event at once. Lowest latency.
  300ms     This long after an event arrived, the source looks up in the ledger whether
            another cluster has committed it, and delivers the rest. The function
            scales to zero while others are healthy. Up to 1m.
  share     Each event has one cluster that goes first with it; the others deliver it
            if it is not committed after TANDEM_SHARE_DELAY (100ms by default), or
            longer if commits take longer. Costs little more than one cluster's
            compute. Set it for all clusters.
  standby   Nothing is delivered; events that others have committed are
            acknowledged. After a switch to another value the rest is delivered.

Without VALUE the command prints the clusters. With --unset it removes the value:
then TANDEM_HEDGE of each source counts.

Standby in every cluster is rejected, here and by the sources: a cluster stands by
only while another one is active. To swap two clusters, switch the one that stands by
first. A switch from standby prints how many events are left.

The value is a row of table tandem.hedge, which the sources read once a second; the
row of a cluster takes precedence over the one for all, whose cluster is empty. A source
without an answer of the database keeps the last value. Setting the value needs
the role that runs tandem migrate.`

// hedging is one run of the command.
type hedging struct {
	tool *tool

	function, value, cluster string
	unset                    bool
	wait                     time.Duration

	checkpoints *ledger.Checkpoints
}

func (t *tool) hedgeCommand() *cobra.Command {
	h := &hedging{tool: t}
	cmd := &cobra.Command{
		Use:   "hedge FUNCTION [VALUE]",
		Short: "Show and switch how much redundancy a function has",
		Long:  hedgeHelp,
		Example: `  tandem hedge orders
  tandem hedge orders 300ms
  tandem hedge --cluster west orders standby
  tandem hedge --unset orders`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := h.read(args); err != nil {
				return usage(cmd, err)
			}
			return h.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&h.cluster, "cluster", "", "`name` of the one cluster to switch; all clusters by default")
	flags.BoolVar(&h.unset, "unset", false, "remove the value")
	flags.DurationVar(&h.wait, "wait", 10*time.Second, "`time` to wait until the sources have switched; they read it once a second")
	return cmd
}

// read parses the arguments.
func (h *hedging) read(args []string) error {
	switch {
	case len(args) == 0:
		return errors.New("want the name of a function")
	case len(args) > 2:
		return fmt.Errorf("argument %q: want FUNCTION and VALUE only", args[2])
	}
	h.function = args[0]
	if len(args) == 2 {
		h.value = args[1]
		if _, err := eventing.ParseHedge(h.value); err != nil {
			return err
		}
	}
	switch {
	case h.unset && h.value != "":
		return errors.New("--unset and a value: want one of them")
	case h.cluster != "" && h.value == "" && !h.unset:
		return errors.New("--cluster without a value: want VALUE or --unset")
	}
	return nil
}

func (h *hedging) run(ctx context.Context) error {
	pool, err := h.tool.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	h.checkpoints = ledger.NewCheckpoints(pool, "")
	clusters, err := h.checkpoints.Clusters(ctx, h.function)
	if err != nil {
		return explain(err)
	}
	if len(clusters) == 0 {
		return fmt.Errorf("no source has ever run for function %q: check the name and the database URL", h.function)
	}
	if h.value == "" && !h.unset {
		return h.show(ctx, clusters)
	}
	if h.cluster != "" && !slices.ContainsFunc(clusters, h.affects) {
		return fmt.Errorf("no source has ever run for function %q in cluster %q: the clusters are %s", h.function, h.cluster, clusterNames(clusters))
	}
	if err := h.set(ctx); err != nil {
		return explain(err)
	}
	h.report(clusters)
	return h.await(ctx)
}

// affects reports whether the switch applies to a cluster.
func (h *hedging) affects(c ledger.ClusterStatus) bool {
	return h.cluster == "" || h.cluster == c.Cluster
}

func (h *hedging) set(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if h.unset {
		return h.checkpoints.UnsetHedge(ctx, h.function, h.cluster)
	}
	return h.checkpoints.SetHedge(ctx, h.function, h.cluster, h.value)
}

// report prints the previous and the new hedge of each cluster, and how many messages
// wait for those that leave standby.
func (h *hedging) report(clusters []ledger.ClusterStatus) {
	if h.tool.output.json {
		return
	}
	for _, c := range clusters {
		if !h.affects(c) {
			continue
		}
		want, _ := eventing.ParseHedge(h.value)
		switch before := describeHedge(c.Hedge); {
		case h.unset:
			h.tool.printf("%s is switched from %s to TANDEM_HEDGE of its source\n", c.Cluster, before)
		case c.Hedge == want.String():
			h.tool.printf("%s stays at %s\n", c.Cluster, before)
		default:
			h.tool.printf("%s is switched from %s to %s\n", c.Cluster, before, describeHedge(want.String()))
		}
		if c.Hedge == "standby" && h.value != "standby" && !h.unset {
			h.tool.printf("%s leaves standby; up to %d messages wait for it\n", c.Cluster, c.Behind)
		}
	}
}

// describeHedge returns a hedge and its effect on a cluster.
func describeHedge(hedge string) string {
	does := fmt.Sprintf("an event is delivered after %s unless another cluster has committed it", hedge)
	switch hedge {
	case "0":
		does = "every event is delivered at once"
	case "share":
		does = "each event has one cluster that goes first; the others deliver the event if it is not committed after a delay"
	case "standby":
		does = "nothing is delivered"
	}
	return fmt.Sprintf("%s (%s)", hedge, does)
}

// await waits until the active sources have switched.
func (h *hedging) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.wait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := "a cluster, because the database does not answer,"
	for {
		if clusters, err := h.checkpoints.Clusters(ctx, h.function); err == nil {
			if late = clusterNames(h.late(clusters)); late == "" {
				return h.show(context.WithoutCancel(ctx), clusters)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the value is set, but %s has not switched within %s: see its source's log", late, h.wait)
		}
	}
}

// late returns the active clusters that have not switched. Without a value only the
// sources know to which hedge they switch.
func (h *hedging) late(clusters []ledger.ClusterStatus) (late []ledger.ClusterStatus) {
	if h.unset {
		return nil
	}
	want, _ := eventing.ParseHedge(h.value)
	for _, c := range clusters {
		if c.Hedge != want.String() && !c.Silent() && h.affects(c) {
			late = append(late, c)
		}
	}
	return late
}

// hedgeStatus is the output of the command for one cluster.
type hedgeStatus struct {
	Function   string  `json:"function"`
	Cluster    string  `json:"cluster"`
	Hedge      string  `json:"hedge"`
	SwitchedTo string  `json:"switched_to,omitempty"`
	Lag        int64   `json:"lag"`         // messages
	Age        float64 `json:"age_seconds"` // of the last report
}

// show prints a line for each cluster.
func (h *hedging) show(ctx context.Context, clusters []ledger.ClusterStatus) error {
	set, err := h.checkpoints.Hedges(ctx, h.function)
	if err != nil {
		return explain(err)
	}
	table := tabwriter.NewWriter(h.tool.out, 0, 0, 2, ' ', 0)
	row(table, "CLUSTER", "HEDGE", "SWITCHED TO", "LAG", "LAST REPORT")
	for _, c := range clusters {
		switched := cmp.Or(set[c.Cluster], set[""])
		if h.tool.output.json {
			status := hedgeStatus{Function: h.function, Cluster: c.Cluster, Hedge: c.Hedge, SwitchedTo: switched, Lag: c.Behind, Age: c.Age.Seconds()}
			if err := h.tool.printJSON(status); err != nil {
				return err
			}
			continue
		}
		row(table, c.Cluster, c.Hedge, cmp.Or(switched, "-"), fmt.Sprint(c.Behind), c.Age.Round(time.Second).String()+" ago")
	}
	if h.tool.output.json {
		return nil
	}
	return table.Flush()
}

func clusterNames(clusters []ledger.ClusterStatus) string {
	list := make([]string, len(clusters))
	for i, c := range clusters {
		list[i] = c.Cluster
	}
	return strings.Join(list, ", ")
}
