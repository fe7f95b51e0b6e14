package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
)

const deadLettersHelp = `Lists, replays and drops dead letters: events that a function could not process.

The verdict on an event:

  poison        Every active cluster rejected it, and none committed it. Read the
                reason; correct the function or the producer; then replay or drop.
  sick cluster  Some cluster rejected it, but another one committed it: check the
                cluster that rejected it, which may run an old version or lack a
                permission. The event is fine; a replay removes the letter.
  undecided     Another cluster has not processed it yet. Wait, or replay it.

The role of the database URL must be the one that runs tandem migrate (see tandem migrate
--help): the role of functions and sources cannot delete dead letters.`

// letters is one run of one of the commands.
type letters struct {
	selection
	verdicts *deadletter.Verdicts

	filter deadletter.Filter
	replay replayOptions
}

func newLetters(t *tool) *letters {
	return &letters{selection: selection{tool: t, noun: "events", title: "dead letters"}}
}

func (t *tool) deadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dead-letters",
		Aliases: []string{"dead-letter"},
		Short:   "List, show, replay and drop dead letters",
		Long:    deadLettersHelp,
		Example: `  tandem dead-letters list --verdict poison --function orders
  tandem dead-letters show --id 4711
  tandem dead-letters replay --function orders --reason "no such product" --since 2h --to http://orders.shop.svc.cluster.local
  tandem dead-letters drop --function orders --id 4711 --source /shop`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(t.listCommand(), t.showCommand(), t.replayCommand(), t.dropCommand())
	return cmd
}

func (t *tool) listCommand() *cobra.Command {
	d := newLetters(t)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, one line per event",
		Example: `  tandem dead-letters list --verdict poison --function orders
  tandem dead-letters list --since 24h -o json
  tandem dead-letters list --check >/dev/null || echo "dead letters"`,
	}
	d.filters(cmd, 100)
	cmd.Flags().BoolVar(&d.check, "check", false, "exit with status 1 if there are any")
	return d.wire(cmd, d.list)
}

func (t *tool) showCommand() *cobra.Command {
	d := newLetters(t)
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show whole events, and the answer that each cluster received",
		Example: `  tandem dead-letters show --id 4711`,
	}
	d.filters(cmd, 10)
	return d.wire(cmd, d.show)
}

func (t *tool) dropCommand() *cobra.Command {
	d := newLetters(t)
	cmd := &cobra.Command{
		Use:   "drop",
		Short: "Delete dead letters permanently",
		Long: `Deletes dead letters permanently. They are stored nowhere else: keep the output of
"tandem dead-letters show -o json" if in doubt. It needs a flag that selects events,
or --all.`,
		Example: `  tandem dead-letters drop --function orders --id 4711 --source /shop`,
	}
	d.filters(cmd, math.MaxInt)
	return d.wire(cmd, d.drop)
}

func (t *tool) replayCommand() *cobra.Command {
	d := newLetters(t)
	o := &d.replay
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Send dead letters to the function again, and delete those that it accepts",
		Long: `Sends events to the function again, and deletes the dead letters of those that it
answers with 2xx. An event that was committed before is not applied again: the ledger
has it, the answer is "lost", and the dead letter is deleted. It needs a flag that
selects events, or --all.

The exit status is 1 if events were refused again.`,
		Example: `  tandem dead-letters replay --function orders --reason "no such product" --since 2h --to http://orders.shop.svc.cluster.local
  tandem dead-letters replay --all --to 'http://{function}.shop.svc.cluster.local'`,
	}
	d.filters(cmd, math.MaxInt)
	flags := cmd.Flags()
	flags.StringVar(&o.to, "to", t.functionURL(), "the function's own `URL`; {function} in it is replaced by the function's name. Not that of an ingest or a broker: other consumers would receive the event too (K_SINK)")
	flags.IntVar(&o.parallel, "parallel", 8, "`number` of events sent at once")
	flags.DurationVar(&o.patience, "patience", time.Minute, "`time` for which one event is retried while the function answers 503 or not at all; then the replay ends, and the remaining dead letters stay")
	flags.StringVar(&o.tokenFile, "token-file", sink.TokenFile, "`file` with a token that is sent along, read again every few seconds")
	flags.StringVar(&o.caCerts, "ca-certs", t.env("K_CA_CERTS"), "certificates to trust, in `PEM` (K_CA_CERTS)")
	return d.wire(cmd, d.replayAll)
}

// filters adds the flags that select events.
func (d *letters) filters(cmd *cobra.Command, limit int) {
	flags := cmd.Flags()
	flags.StringVar(&d.filter.Function, "function", "", "`name` of the function")
	flags.StringVar(&d.filter.Source, "source", "", "`source` of the event")
	flags.StringVar(&d.filter.ID, "id", "", "`id` of the event")
	flags.StringVar(&d.filter.Type, "type", "", "`type` of the event")
	flags.StringVar(&d.filter.Cluster, "cluster", "", "`name` of a cluster that rejected it")
	flags.Var(&verdictValue{&d.filter.Verdict}, "verdict", "`verdict`: poison, sick or undecided")
	flags.IntVar(&d.filter.Code, "code", 0, "`status` of the last answer, for example 422")
	flags.StringVar(&d.filter.Reason, "reason", "", "`text` in the reason of the last answer, ignoring case")
	flags.Var(&timeValue{&d.filter.Since}, "since", "last rejected at this `time` or later: an age such as 90m, or 2006-01-02T15:04:05Z")
	flags.Var(&timeValue{&d.filter.Until}, "until", "last rejected before this `time`")
	d.flags(flags, limit)
	_ = cmd.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions([]string{"poison", "sick", "undecided"}, cobra.ShellCompDirectiveNoFileComp))
}

// wire makes cmd validate its flags, connect and run.
func (d *letters) wire(cmd *cobra.Command, run func(context.Context) error) *cobra.Command {
	return d.selection.wire(cmd, d.validate, func(ctx context.Context, pool *databasePool) error {
		d.verdicts = deadletter.NewVerdicts(pool)
		return run(ctx)
	})
}

func (d *letters) validate(command string) error {
	if command == "replay" && (d.replay.parallel < 1 || d.replay.parallel > 256) {
		return fmt.Errorf("--parallel %d: want 1 to 256", d.replay.parallel)
	}
	return d.selection.validate(command, d.filter != deadletter.Filter{})
}

// each calls do with every selected event, a page at a time, up to the limit. Do may
// delete events.
func (d *letters) each(ctx context.Context, do func([]deadletter.Event) error) error {
	return eachPage(&d.selection, func(after *deadletter.Event, limit int) ([]deadletter.Event, error) {
		return d.verdicts.List(ctx, d.filter, after, limit)
	}, do)
}

// verdictValue is the value of a flag.
type verdictValue struct{ verdict *string }

var _ pflag.Value = (*verdictValue)(nil)

// String implements pflag.Value.
func (v *verdictValue) String() string {
	if v.verdict == nil {
		return ""
	}
	return *v.verdict
}

// Set implements pflag.Value.
func (v *verdictValue) Set(text string) error {
	switch strings.ToLower(text) {
	case "poison":
		*v.verdict = deadletter.VerdictPoison
	case "sick", "sick cluster", "sick-cluster":
		*v.verdict = deadletter.VerdictSickCluster
	case "undecided":
		*v.verdict = deadletter.VerdictUndecided
	default:
		return errors.New("want poison, sick or undecided")
	}
	return nil
}

// Type implements pflag.Value.
func (v *verdictValue) Type() string { return "verdict" }

// timeValue is the value of a flag: a time, or an age.
type timeValue struct{ at *time.Time }

var _ pflag.Value = (*timeValue)(nil)

// String implements pflag.Value.
func (v *timeValue) String() string {
	if v.at == nil || v.at.IsZero() {
		return ""
	}
	return v.at.Format(time.RFC3339)
}

// Set implements pflag.Value.
func (v *timeValue) Set(text string) error {
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		*v.at = time.Now().Add(-age) //nolint:forbidigo // an age is relative to now
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return errors.New("want an age such as 90m, or a time such as 2006-01-02T15:04:05Z")
	}
	*v.at = at
	return nil
}

// Type implements pflag.Value.
func (v *timeValue) Type() string { return "time" }
