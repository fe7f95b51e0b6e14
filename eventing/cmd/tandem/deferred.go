package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/sinkwriter/deferred"
)

const deferredHelp = `Lists, runs and drops deferred events: events that only a change of the deployment can fix,
such as a missing partition, column, enum label or grant, while other events of the function
are committed. They are acknowledged to their stream, stored in the database, and never expire.

Sources run them by themselves: of those that lack the same thing, one after each change of
the database's catalog and at growing intervals, and the rest after that one is committed.
So the usual remedy is the migration or the grant, and nothing else.

An event is held if its effects depend on the order of events and no order is kept
(TANDEM_ORDERING): it would overwrite the writes of later events. Only "tandem deferred run"
runs it.

The role of the database URL must be the one that runs tandem migrate.`

// deferrals is one run of one of the commands.
type deferrals struct {
	selection
	events *deferred.Events
	filter deferred.Filter
}

func (t *tool) deferredCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deferred",
		Short: "List, show, run and drop deferred events",
		Long:  deferredHelp,
		Example: `  tandem deferred list --function orders
  tandem deferred show --id 4711
  tandem deferred run --function orders --missing "23514 orders"
  tandem deferred drop --function orders --id 4711 --source /shop`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(t.deferredListCommand(), t.deferredShowCommand(), t.deferredRunCommand(), t.deferredDropCommand())
	return cmd
}

func newDeferrals(t *tool) *deferrals {
	return &deferrals{selection: selection{tool: t, noun: "events", title: "deferred events"}}
}

func (t *tool) deferredListCommand() *cobra.Command {
	d := newDeferrals(t)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List deferred events, one line per event",
		Example: `  tandem deferred list --function orders
  tandem deferred list --since 24h -o json
  tandem deferred list --check >/dev/null || echo "deferred events"`,
	}
	d.filters(cmd, 100)
	cmd.Flags().BoolVar(&d.check, "check", false, "exit with status 1 if there are any")
	return d.wire(cmd, d.list)
}

func (t *tool) deferredShowCommand() *cobra.Command {
	d := newDeferrals(t)
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show whole events, and why each cluster has deferred them",
		Example: `  tandem deferred show --id 4711`,
	}
	d.filters(cmd, 10)
	return d.wire(cmd, d.show)
}

func (t *tool) deferredRunCommand() *cobra.Command {
	d := newDeferrals(t)
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run deferred events now, including those that are held",
		Long: `The sources of all clusters run the events within seconds, including those that are held.
An event that is committed is deleted, in every cluster; it is never applied twice. One that
fails again stays deferred. It wants a flag that selects events, or --all.`,
		Example: `  tandem deferred run --function orders --missing "23514 orders"
  tandem deferred run --all`,
	}
	d.filters(cmd, math.MaxInt)
	return d.wire(cmd, d.run)
}

func (t *tool) deferredDropCommand() *cobra.Command {
	d := newDeferrals(t)
	cmd := &cobra.Command{
		Use:   "drop",
		Short: "Delete deferred events permanently, in every cluster",
		Long: `Deletes deferred events permanently, in every cluster. They are stored nowhere else: keep
the output of "tandem deferred show -o json" if in doubt. It needs a flag that selects
events, or --all.`,
		Example: `  tandem deferred drop --function orders --id 4711 --source /shop`,
	}
	d.filters(cmd, math.MaxInt)
	return d.wire(cmd, d.drop)
}

// filters adds the flags that select events.
func (d *deferrals) filters(cmd *cobra.Command, limit int) {
	flags := cmd.Flags()
	flags.StringVar(&d.filter.Function, "function", "", "`name` of the function")
	flags.StringVar(&d.filter.Source, "source", "", "`source` of the event")
	flags.StringVar(&d.filter.ID, "id", "", "`id` of the event")
	flags.StringVar(&d.filter.Type, "type", "", "`type` of the event")
	flags.StringVar(&d.filter.Cluster, "cluster", "", "`name` of a cluster that has deferred it")
	flags.StringVar(&d.filter.Fingerprint, "missing", "", "`text` in the name of the missing thing, for example 42703 or orders.gate, ignoring case")
	flags.Var(&timeValue{&d.filter.Since}, "since", "first failed at this `time` or later: an age such as 90m, or 2006-01-02T15:04:05Z")
	flags.Var(&timeValue{&d.filter.Until}, "until", "first failed before this `time`")
	d.flags(flags, limit)
}

// wire makes cmd validate its flags, connect and run.
func (d *deferrals) wire(cmd *cobra.Command, run func(context.Context) error) *cobra.Command {
	return d.selection.wire(cmd, func(command string) error {
		return d.validate(command, d.filter != deferred.Filter{})
	}, func(ctx context.Context, pool *databasePool) error {
		d.events = deferred.NewEvents(pool)
		return run(ctx)
	})
}

// each calls do with every selected event, up to the limit. Do may delete events; an event
// that is no longer found is skipped.
func (d *deferrals) each(ctx context.Context, do func(deferred.Deferred) error) error {
	return eachPage(&d.selection, func(after *deferred.Deferred, limit int) ([]deferred.Deferred, error) {
		return d.events.List(ctx, d.filter, after, limit)
	}, func(events []deferred.Deferred) error {
		for i := range events {
			if err := do(events[i]); err != nil && !errors.Is(err, deferred.ErrNotFound) {
				return err
			}
		}
		return nil
	})
}

func (d *deferrals) list(ctx context.Context) error {
	table := tabwriter.NewWriter(d.tool.out, 0, 0, 2, ' ', 0)
	n := 0
	err := d.each(ctx, func(e deferred.Deferred) error {
		n++
		if d.tool.output.json {
			return d.tool.printJSON(e)
		}
		if n == 1 {
			row(table, "MISSING", "FUNCTION", "VERSION", "CLUSTERS", "ATTEMPTS", "SINCE", "NEXT RUN", "SOURCE", "ID")
		}
		row(table, e.Fingerprint, e.Function, e.Version, strings.Join(e.Clusters, ","), number(e.Attempts),
			e.FirstFailedAt.UTC().Format(time.RFC3339), nextRun(e.NextRunAt, e.Held), e.Source, e.ID)
		return nil
	})
	if err != nil {
		return err
	}
	return d.endList(table, n)
}

// nextRun returns the time at which a deferred event runs next.
func nextRun(at *time.Time, held bool) string {
	switch {
	case at != nil:
		return at.UTC().Format(time.RFC3339)
	case held:
		return "held"
	default:
		return "-"
	}
}

// shownDeferred is a deferred event of all clusters, with the event itself.
type shownDeferred struct {
	deferred.Deferred
	Rows  []deferred.ClusterEvent `json:"rows"`
	Event json.RawMessage         `json:"event"`
}

func (d *deferrals) show(ctx context.Context) error {
	n := 0
	err := d.each(ctx, func(e deferred.Deferred) error {
		rows, err := d.events.Read(ctx, e.Function, e.Source, e.ID)
		if err != nil {
			return err
		}
		n++
		if d.tool.output.json {
			return d.tool.printJSON(shownDeferred{Deferred: e, Rows: rows, Event: rows[0].Event})
		}
		return d.printEvent(e, rows)
	})
	if err != nil {
		return err
	}
	return d.printEnd(n)
}

// printEvent prints why each cluster has deferred an event, and the event.
func (d *deferrals) printEvent(e deferred.Deferred, rows []deferred.ClusterEvent) error {
	d.tool.printf("%s  %s  %s\n", e.Function, e.Source, e.ID)
	table := tabwriter.NewWriter(d.tool.out, 0, 0, 2, ' ', 0)
	row(table, "  CLUSTER", "MISSING", "VERSION", "STREAM", "SEQUENCE", "ATTEMPTS", "FIRST", "LAST", "NEXT RUN")
	for _, r := range rows {
		row(table, "  "+r.Cluster, r.Fingerprint, r.Version, r.Stream, r.Sequence, number(r.Attempts),
			r.FirstFailedAt.UTC().Format(time.RFC3339), r.LastFailedAt.UTC().Format(time.RFC3339), nextRun(r.NextRunAt, r.Held))
	}
	// The last line returns the error of a failed write.
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		d.tool.printf("  %s: %s\n", r.Cluster, r.Reason)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, rows[0].Event, "  ", "  "); err != nil {
		return fmt.Errorf("event %s of %s: %w", e.ID, e.Source, err)
	}
	return d.tool.print("  %s\n\n", pretty.Bytes())
}

// deferredResult is the result for one event.
type deferredResult struct {
	Result   string `json:"result"` // scheduled or dropped
	Function string `json:"function"`
	Source   string `json:"source"`
	ID       string `json:"id"`
}

func (d *deferrals) run(ctx context.Context) error {
	return d.change(ctx, "scheduled", d.events.Run)
}

func (d *deferrals) drop(ctx context.Context) error { return d.change(ctx, "dropped", d.events.Drop) }

// change calls do with every selected event, and prints the result.
func (d *deferrals) change(ctx context.Context, result string, do func(ctx context.Context, function, source, id string) error) error {
	n := 0
	err := d.each(ctx, func(e deferred.Deferred) error {
		if err := do(ctx, e.Function, e.Source, e.ID); err != nil {
			return err
		}
		n++
		if d.tool.output.json {
			return d.tool.printJSON(deferredResult{Result: result, Function: e.Function, Source: e.Source, ID: e.ID})
		}
		return d.tool.print("%-9s %s  %s  %s\n", result, e.Function, e.Source, e.ID)
	})
	if !d.tool.output.json {
		d.tool.printf("%d %s\n", n, result)
	}
	return err
}
