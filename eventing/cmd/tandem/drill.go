package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

const drillHelp = `Watches a deployment while you interrupt it, and reports the cost: the longest gap between
commits (RTO), missing events (RPO), duplicates, latencies, the time to catch up, with a
verdict. It interrupts nothing itself, and changes nothing unless --marker is set.

Press Enter when you interrupt something (text before it is kept in the report), and again
when you restore it. ^C ends the drill: it waits until the last events are committed,
compares the database with the stream, and writes report.md, report.json and chart.svg.

SCENARIO sets the longest allowed gap: lose-cluster, lose-half-database,
lose-half-stream, link-cut, hedge-takeover, standby-on, stream-leader,
database-failover, lose-primary or failback. Without it --max-gap sets it, or the gap is
only reported. docs/drills.md explains scenarios and report.

Events that the stream itself has lost are not in the stream. To find them, let the drill
publish markers: --marker names a file with a CloudEvent that a function processes. It is
published repeatedly with new ids, and processed like any other event.

Functions run in their own program for the comparison, as with tandem verify.

The exit status is 0 if everything promised was kept, and 1 if not.`

// drilling is one run of the command.
type drilling struct {
	tool     *tool
	function functionFlags

	streams, outputs, names string
	config                  drill.Config
	report                  string
}

func (t *tool) drillCommand() *cobra.Command {
	d := &drilling{tool: t, function: functionFlags{build: t.build}}
	cmd := &cobra.Command{
		Use:   "drill [SCENARIO]",
		Short: "Watch a deployment while you interrupt it, and report the cost",
		Long:  drillHelp,
		Example: `  tandem drill lose-cluster --marker event.json
  tandem drill --max-gap 500ms --duration 10m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.read(args); err != nil {
				return usage(cmd, err)
			}
			return d.run(cmd.Context())
		},
	}
	d.function.add(cmd)
	flags := cmd.Flags()
	t.streamFlags(cmd, &d.streams, &d.outputs)
	flags.StringVar(&d.names, "functions", "", "`names` of the functions to compare, separated by commas; all of the program by default")
	flags.DurationVar(&d.config.Duration, "duration", 24*time.Hour, "maximum `time` to watch")
	flags.DurationVar(&d.config.MaxGap, "max-gap", 0, "longest allowed `time` without a commit; by default the scenario's")
	flags.DurationVar(&d.config.Conditions.Lag, "lag", 3*time.Second, "database-failover: `time` for which the standby has received nothing")
	flags.DurationVar(&d.config.Conditions.Reaction, "reaction", 5*time.Second, "`time` that operators take to act, in scenarios that need them")
	flags.BoolVar(&d.config.Conditions.Witness, "witness", true, "lose-primary: a witness promotes the standby")
	flags.StringVar(&d.config.Marker, "marker", "", "`file` with a CloudEvent in JSON, to publish repeatedly and search for")
	flags.Float64Var(&d.config.MarkerRate, "marker-rate", 10, "`number` of markers a second")
	flags.StringVar(&d.report, "report", "tandem-drill", "`folder` in which a folder for the report is created")
	return cmd
}

// read parses the arguments and validates the flags.
func (d *drilling) read(args []string) error {
	errs := []error{d.function.validate()}
	if len(args) > 0 {
		d.config.Scenario = args[0]
		if _, _, ok := drill.AllowedGap(args[0], drill.Conditions{}); !ok {
			errs = append(errs, fmt.Errorf("unknown scenario %q", args[0]))
		}
	}
	if len(args) > 1 {
		errs = append(errs, fmt.Errorf("argument %q: want one scenario", args[1]))
	}
	if d.config.Marker != "" && strings.Contains(d.streams, ",") {
		errs = append(errs, errors.New("--marker needs one stream: name it with --streams"))
	}
	if d.config.MarkerRate <= 0 || d.config.MarkerRate > 1000 {
		errs = append(errs, fmt.Errorf("--marker-rate %g: want up to 1000", d.config.MarkerRate))
	}
	if d.config.Duration < time.Second {
		errs = append(errs, fmt.Errorf("--duration %s: want 1s or more", d.config.Duration))
	}
	if d.config.MaxGap < 0 {
		errs = append(errs, fmt.Errorf("--max-gap %s: want more than 0", d.config.MaxGap))
	}
	return errors.Join(errs...)
}

func (d *drilling) run(ctx context.Context) (err error) {
	// ^C ends only the watching: the comparison still needs all of these.
	judging := context.WithoutCancel(ctx)
	pool, err := d.tool.openDatabase(judging)
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := d.tool.openNATS(judging)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(judging) }()
	computer, err := d.function.compute(judging)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, computer.Close()) }()
	c := d.config
	c.Pool, c.Conn, c.Marks, c.Print = pool, conn, d.tool.in, d.print
	c.Streams, c.Outputs = parseStreams(d.streams), jetstream.ParseStream(d.outputs)
	if c.Functions, err = pickFunctions(computer.Functions(), d.names); err != nil {
		return err
	}
	r, err := drill.Watch(ctx, c)
	if failed := computer.Err(); failed != nil {
		err = failed
	}
	if err != nil {
		return explain(err)
	}
	r.Print(d.print)
	folder, err := r.Write(d.report)
	if err != nil {
		return err
	}
	verdict := "PASSED"
	if !r.Passed {
		verdict = "FAILED"
	}
	d.print("%s. Report: %s", verdict, filepath.Join(folder, "report.md"))
	if d.tool.output.json {
		if err := d.tool.printJSON(r); err != nil {
			return err
		}
	}
	if !r.Passed {
		return &foundError{}
	}
	return nil
}

// print prints a line of progress; if the output is JSON, to standard error.
func (d *drilling) print(format string, args ...any) {
	out := d.tool.out
	if d.tool.output.json {
		out = d.tool.err
	}
	_, _ = fmt.Fprintf(out, format+"\n", args...)
}
