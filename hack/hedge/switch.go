package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// heardOf is how recently a cluster that counts as being at work was heard of.
// Sources are heard of once a minute, and think the same.
const heardOf = 3 * time.Minute

// switching is one run of the command.
type switching struct {
	options
	hedges   jetstream.Hedges
	progress *sinkwriter.Progress
	out      io.Writer
}

func (s *switching) run(ctx context.Context) error {
	clusters, err := s.progress.Clusters(ctx, s.function)
	if err != nil {
		return err
	}
	if len(clusters) == 0 {
		return fmt.Errorf("no source has ever worked for function %q: look at the name and at DATABASE_URL", s.function)
	}
	if s.value == "" && !s.unset {
		return s.show(ctx, clusters)
	}
	if s.cluster != "" && !slices.ContainsFunc(clusters, func(c sinkwriter.ClusterStatus) bool { return c.Cluster == s.cluster }) {
		return fmt.Errorf("no source has ever worked for function %q in cluster %q: the clusters are %s", s.function, s.cluster, names(clusters))
	}
	if err := s.allowed(clusters); err != nil {
		return err
	}
	s.reportBacklog(clusters)
	if err := s.hedges.Set(ctx, s.function, s.cluster, s.value); err != nil {
		return err
	}
	return s.await(ctx)
}

// allowed refuses to have all clusters stand by.
func (s *switching) allowed(clusters []sinkwriter.ClusterStatus) error {
	if s.value != "standby" {
		return nil
	}
	if s.cluster == "" {
		return fmt.Errorf("function %s would stand by in every cluster, and nothing be done: switch one with --cluster", s.function)
	}
	for _, c := range clusters {
		if c.Cluster != s.cluster && c.Hedge != "standby" && c.Age < heardOf {
			return nil
		}
	}
	return fmt.Errorf("function %s would stand by in every cluster that was heard of in the last %s, and nothing be done: switch another one from standby first", s.function, heardOf)
}

// reportBacklog says what clusters that are switched from standby have left lying.
func (s *switching) reportBacklog(clusters []sinkwriter.ClusterStatus) {
	if s.value == "standby" {
		return
	}
	for _, c := range clusters {
		if c.Hedge == "standby" && (s.cluster == "" || s.cluster == c.Cluster) {
			s.say("%s stops standing by; up to %d messages have been left lying", c.Cluster, c.Behind)
		}
	}
}

// await waits until the sources that are there have done what they were told.
func (s *switching) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := ""
	for {
		if clusters, err := s.progress.Clusters(ctx, s.function); err == nil {
			if late = names(s.late(clusters)); late == "" {
				return s.show(context.WithoutCancel(ctx), clusters)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it is set, but %s has not done it within %s: look at its source's log", or(late, "the database does not say whether it was done, or a cluster"), s.wait)
		}
	}
}

// late are the clusters at work that have not done what they were told. What they
// do when nothing is set only they know.
func (s *switching) late(clusters []sinkwriter.ClusterStatus) (late []sinkwriter.ClusterStatus) {
	if s.unset {
		return nil
	}
	want, _ := eventing.ParseHedge(s.value)
	for _, c := range clusters {
		if c.Hedge != want.String() && c.Age < heardOf && (s.cluster == "" || s.cluster == c.Cluster) {
			late = append(late, c)
		}
	}
	return late
}

// show prints a line a cluster.
func (s *switching) show(ctx context.Context, clusters []sinkwriter.ClusterStatus) error {
	set, err := s.hedges.All(ctx, s.function)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "CLUSTER\tHEDGE\tSWITCHED TO\tBEHIND\tHEARD OF")
	for _, c := range clusters {
		switched := or(set[c.Cluster], or(set[""], "-"))
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s ago\n", c.Cluster, c.Hedge, switched, c.Behind, c.Age.Round(time.Second))
	}
	return table.Flush()
}

func (s *switching) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, format+"\n", args...)
}

func names(clusters []sinkwriter.ClusterStatus) string {
	list := make([]string, len(clusters))
	for i, c := range clusters {
		list[i] = c.Cluster
	}
	return strings.Join(list, ", ")
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
