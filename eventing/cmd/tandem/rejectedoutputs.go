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

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/rejected"
)

const rejectedOutputsHelp = `Lists, replays and drops rejected outputs: events that a function emitted and committed, and
that the stream or the sink of outputs rejected permanently, with 400, 413, 415, 422 or 431
or because they are too large. Every other answer is retried. Rejected outputs delay no
others.

Read the reason; correct the sink, its limits or the function; then replay or drop.

The role of the database URL must be the one that runs tandem migrate (see tandem migrate
--help): the role of functions and sources cannot delete rejected outputs.`

// rejectedOutputs is one run of one of the commands.
type rejectedOutputs struct {
	selection
	outputs *rejected.Outputs

	function string
	filter   rejected.Filter
}

func newRejectedOutputs(t *tool) *rejectedOutputs {
	return &rejectedOutputs{selection: selection{tool: t, noun: "outputs", title: "rejected outputs"}}
}

func (t *tool) rejectedOutputsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rejected-outputs",
		Aliases: []string{"rejected-output"},
		Short:   "List, show, replay and drop outputs that were rejected",
		Long:    rejectedOutputsHelp,
		Example: `  tandem rejected-outputs list --function orders
  tandem rejected-outputs show --caused-by 4711
  tandem rejected-outputs replay --function orders --code 413
  tandem rejected-outputs drop --id 0197a3b4-0000-7000-8000-000000000000`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := newRejectedOutputs(t)
	listCommand := list.command("list", "List rejected outputs, one line each", `  tandem rejected-outputs list --function orders
  tandem rejected-outputs list --check >/dev/null || echo "rejected outputs"`, "", 100, list.list)
	listCommand.Flags().BoolVar(&list.check, "check", false, "exit with status 1 if there are any")
	show := newRejectedOutputs(t)
	replay := newRejectedOutputs(t)
	drop := newRejectedOutputs(t)
	cmd.AddCommand(listCommand,
		show.command("show", "Show whole outputs, and the reasons", `  tandem rejected-outputs show --caused-by 4711`, "", 10, show.show),
		replay.command("replay", "Put outputs back into the outbox", `  tandem rejected-outputs replay --function orders --code 413
  tandem rejected-outputs replay --all`, `Puts outputs back into the outbox. The relay of any source publishes them within
seconds, with the same source and id; an output that is rejected again returns to the
list. It needs a flag that selects outputs, or --all.`, math.MaxInt, func(ctx context.Context) error {
			return replay.change(ctx, resultReplayed, replay.outputs.Replay)
		}),
		drop.command("drop", "Delete rejected outputs permanently", `  tandem rejected-outputs drop --id 0197a3b4-0000-7000-8000-000000000000`, `Deletes outputs permanently. They are stored nowhere else: keep the output of
"tandem rejected-outputs show -o json" if in doubt. It needs a flag that selects
outputs, or --all.`, math.MaxInt, func(ctx context.Context) error {
			return drop.change(ctx, resultDropped, drop.outputs.Drop)
		}))
	return cmd
}

// resultReplayed is the result for an output that was put back into the outbox.
const resultReplayed = "replayed"

// command returns a command that selects outputs and runs.
func (r *rejectedOutputs) command(use, short, example, long string, limit int, run func(context.Context) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example}
	flags := cmd.Flags()
	flags.StringVar(&r.function, "function", "", "`name` of the function")
	flags.StringVar(&r.filter.ID, "id", "", "`id` of the output")
	flags.StringVar(&r.filter.CausedBy, "caused-by", "", "`id` of the event that caused it")
	flags.StringVar(&r.filter.Type, "type", "", "`type` of the output")
	flags.IntVar(&r.filter.Code, "code", 0, "`status` of the answer, for example 413")
	flags.StringVar(&r.filter.Reason, "reason", "", "`text` in the reason, ignoring case")
	flags.Var(&timeValue{&r.filter.Since}, "since", "last rejected at this `time` or later: an age such as 90m, or 2006-01-02T15:04:05Z")
	flags.Var(&timeValue{&r.filter.Until}, "until", "last rejected before this `time`")
	r.flags(flags, limit)
	return r.wire(cmd, r.validate, func(ctx context.Context, pool *databasePool) error {
		r.outputs = rejected.New(pool)
		return run(ctx)
	})
}

func (r *rejectedOutputs) validate(command string) error {
	if r.function != "" {
		if !functions.ValidName(r.function) {
			return fmt.Errorf("--function %q: want the name of a function", r.function)
		}
		r.filter.Source, _ = functions.OutputIdentity(r.function, "", "", 0)
	}
	return r.selection.validate(command, r.filter != rejected.Filter{})
}

// each calls do with every selected output, up to the limit. Do may delete it.
func (r *rejectedOutputs) each(ctx context.Context, do func(rejected.Output) error) (n int, err error) {
	err = eachPage(&r.selection, func(after *rejected.Output, limit int) ([]rejected.Output, error) {
		return r.outputs.List(ctx, r.filter, after, limit)
	}, func(outputs []rejected.Output) error {
		for _, o := range outputs {
			n++
			if err := do(o); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

func (r *rejectedOutputs) list(ctx context.Context) error {
	table := tabwriter.NewWriter(r.tool.out, 0, 0, 2, ' ', 0)
	n := 0
	_, err := r.each(ctx, func(o rejected.Output) error {
		if n++; r.tool.output.json {
			return r.tool.printJSON(o)
		}
		if n == 1 {
			row(table, "FUNCTION", "CODE", "LAST", "ID", "TYPE", "CAUSED BY", "REASON")
		}
		row(table, functionOf(o), number(int64(o.Code)), o.LastAt.UTC().Format(time.RFC3339), o.ID, o.Type, causeOf(o), o.Reason)
		return nil
	})
	if err != nil {
		return err
	}
	return r.endList(table, n)
}

// functionOf returns the function that emitted an output.
func functionOf(o rejected.Output) string { return strings.TrimPrefix(o.Source, "/tandem/") }

// causeOf returns the id of the event that caused an output; empty if unknown.
func causeOf(o rejected.Output) string {
	if o.CausedBy == nil {
		return ""
	}
	return *o.CausedBy
}

// shownOutput is a rejected output with the whole event.
type shownOutput struct {
	rejected.Output
	Event json.RawMessage `json:"event"`
}

func (r *rejectedOutputs) show(ctx context.Context) error {
	n, err := r.each(ctx, func(o rejected.Output) error {
		text, err := r.outputs.Read(ctx, o.Source, o.ID)
		switch {
		case errors.Is(err, rejected.ErrNotFound):
			return nil // deleted since it was listed
		case err != nil:
			return err
		case r.tool.output.json:
			return r.tool.printJSON(shownOutput{Output: o, Event: text})
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, text, "  ", "  "); err != nil {
			return fmt.Errorf("output %s of %s: %w", o.ID, o.Source, err)
		}
		r.tool.printf("%s  %s\n  rejected at %s with %d: %s\n", functionOf(o), o.ID, o.LastAt.UTC().Format(time.RFC3339), o.Code, o.Reason)
		_, err = fmt.Fprintf(r.tool.out, "  %s\n\n", pretty.Bytes())
		return err
	})
	if err != nil {
		return err
	}
	return r.printEnd(n)
}

// outputResult is the result for one output.
type outputResult struct {
	Result string `json:"result"`
	Source string `json:"source"`
	ID     string `json:"id"`
}

// change replays or drops the selected outputs.
func (r *rejectedOutputs) change(ctx context.Context, result string, do func(context.Context, rejected.Output) error) error {
	changed := 0
	_, err := r.each(ctx, func(o rejected.Output) error {
		err := do(ctx, o)
		switch {
		case errors.Is(err, rejected.ErrNotFound):
			return nil // rejected again, or deleted, since it was listed
		case err != nil:
			return err
		}
		if changed++; r.tool.output.json {
			return r.tool.printJSON(outputResult{Result: result, Source: o.Source, ID: o.ID})
		}
		return r.tool.print("%-8s %s  %s\n", result, functionOf(o), o.ID)
	})
	if !r.tool.output.json {
		r.tool.printf("%d %s\n", changed, result)
	}
	return err
}
