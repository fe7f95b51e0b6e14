package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing/audit"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
)

const verifyHelp = `Compares the database with the stream: it reads the stream, runs the functions again
in memory, and compares the results with the ledger, the rows, the outputs and the
dead letters. It lists the differences. It changes nothing unless --repair is set, and may
run while functions and sources run.

The findings, and what to do:

  missing event      acknowledged, but neither in the ledger nor a dead letter: lost.
                     --repair delivers it again, and it is applied.
  missing output     committed, but neither in the stream of outputs nor in the outbox,
                     and not among the rejected outputs.
                     --repair publishes it again, with the same source and id.
  missing row,       something else has written to the table. A delivery would not
  different row      help, because the ledger has the event: the line has the
                     expected row, and you decide.
  extra row          no event explains it: written by hand, or its message was deleted.
  extra event        it is in the ledger but not in the stream: the message was deleted.
  extra output       no event explains it.
  different event    the function computes other effects than those committed: it is
                     not deterministic, or changed without a new version.

Functions run in their own program: --function builds it, --image runs it; the default
is the function of the current folder. Use the version that is deployed: events that
another version committed are counted, and compared only if the effects are the same.

On a long stream --since or --from skips the beginning. Counters are then not
compared, because their earlier values are not known.

The exit status is 1 if there are findings, also if they were repaired: run it again.`

// verification is one run of the command.
type verification struct {
	tool     *tool
	function functionFlags

	streams, outputs, names string
	from, until             uint64
	since                   time.Time
	limit                   int
	repair                  bool
	to                      string
}

// verified is the output of the command.
type verified struct {
	audit.Report
	Delivered int64 `json:"delivered_again"`
	Published int64 `json:"published_again"`
}

func (t *tool) verifyCommand() *cobra.Command {
	v := &verification{tool: t, function: functionFlags{build: t.build}}
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Compare the database with the stream, and repair",
		Long:  verifyHelp,
		Example: `  tandem verify --since 2h
  tandem verify --from 1500000 --until 1600000 -o json
  tandem verify --since 2h --repair --to http://orders.shop.svc.cluster.local`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := v.validate(); err != nil {
				return usage(cmd, err)
			}
			return v.run(cmd.Context())
		},
	}
	v.function.add(cmd)
	flags := cmd.Flags()
	t.streamFlags(cmd, &v.streams, &v.outputs)
	flags.StringVar(&v.names, "functions", "", "`names` of the functions to compare, separated by commas; all of the program by default")
	flags.Uint64Var(&v.from, "from", 0, "first `sequence` of the streams to read; the oldest by default")
	flags.Uint64Var(&v.until, "until", 0, "last `sequence` of the streams to read; the newest by default")
	flags.Var(&timeValue{&v.since}, "since", "instead of --from, a `time`: an age such as 90m, or 2006-01-02T15:04:05Z")
	flags.IntVar(&v.limit, "limit", 20, "maximum `number` of listed findings of each kind")
	flags.BoolVar(&v.repair, "repair", false, "deliver missing events and publish missing outputs again; needs --to")
	flags.StringVar(&v.to, "to", t.functionURL(), "the function's `URL`, to which missing events are delivered (K_SINK)")
	return cmd
}

// streamFlags adds the flags that name streams.
func (t *tool) streamFlags(cmd *cobra.Command, streams, outputs *string) {
	cmd.Flags().StringVar(streams, "streams", cmp.Or(t.env("TANDEM_STREAMS"), "EVENTS"), "`names` of the streams of events, separated by commas (TANDEM_STREAMS)")
	cmd.Flags().StringVar(outputs, "outputs", cmp.Or(t.env("TANDEM_OUTPUT_STREAM"), "OUTPUTS"), "`name` of the stream of outputs (TANDEM_OUTPUT_STREAM)")
}

// parseStreams parses names separated by commas.
func parseStreams(names string) []jetstream.StreamConfig {
	var streams []jetstream.StreamConfig
	for name := range strings.SplitSeq(names, ",") {
		streams = append(streams, jetstream.ParseStream(name))
	}
	return streams
}

func (v *verification) validate() error {
	errs := []error{v.function.validate()}
	if v.from != 0 && !v.since.IsZero() {
		errs = append(errs, errors.New("--since and --from: want one of them"))
	}
	if !v.since.IsZero() && strings.Contains(v.streams, ",") {
		errs = append(errs, errors.New("--since needs one stream: name it with --streams"))
	}
	if u, err := url.Parse(v.to); v.repair && (err != nil || u.Host == "") {
		errs = append(errs, fmt.Errorf("--repair: --to %q: want the URL of the function, for example http://HOST:8080", v.to))
	}
	if v.limit < 0 {
		errs = append(errs, fmt.Errorf("--limit %d: want 0 or more", v.limit))
	}
	return errors.Join(errs...)
}

func (v *verification) run(ctx context.Context) (err error) {
	pool, err := v.tool.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := v.tool.openNATS(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	computer, err := v.function.compute(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, computer.Close()) }()
	config := audit.Config{
		Pool: pool, Conn: conn, Streams: parseStreams(v.streams), Outputs: jetstream.ParseStream(v.outputs),
		From: v.from, Until: v.until, Limit: v.limit,
	}
	if config.Functions, err = pickFunctions(computer.Functions(), v.names); err != nil {
		return err
	}
	if !v.since.IsZero() {
		if config.From, err = conn.SequenceAt(ctx, config.Streams[0], v.since); err != nil {
			return err
		}
	}
	var r verified
	if v.repair {
		again, err := newPublisher(cmp.Or(v.tool.natsURL, v.tool.env("NATS_URL")), config.Outputs)
		if err != nil {
			return err
		}
		defer again.close()
		r.repairWith(&config, again, v.to)
	}
	r.Report, err = audit.Run(ctx, config)
	if err := cmp.Or(computer.Err(), err); err != nil {
		return explain(err)
	}
	if err := r.print(v.tool); err != nil {
		return err
	}
	if !r.OK() {
		return &foundError{}
	}
	return nil
}

// pickFunctions returns the functions with these names, separated by commas, or all.
func pickFunctions(all []functions.Function, names string) ([]functions.Function, error) {
	if names == "" {
		return all, nil
	}
	var picked []functions.Function
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(f functions.Function) bool { return f.Name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("--functions: the program has no function %q", name)
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

// repairWith delivers missing events to the function, which looks up in the ledger
// whether they are committed, and publishes missing outputs.
func (r *verified) repairWith(config *audit.Config, again *publisher, to string) {
	client := &http.Client{Timeout: deliverTimeout}
	config.Lost = func(ctx context.Context, _ string, e event.Event) error {
		if err := deliver(ctx, client, to, e); err != nil {
			return err
		}
		r.Delivered++
		return nil
	}
	config.LostOutput = func(ctx context.Context, e event.Event) error {
		if err := again.publish(ctx, e); err != nil {
			return err
		}
		r.Published++
		return nil
	}
}

// print prints the report.
func (r *verified) print(t *tool) error {
	if t.output.json {
		return t.printJSON(r)
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	print := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) } // into memory
	line := func(what string, n int64, note string) {
		if n > 0 || note == "" {
			print("%s\t%d\t%s\n", what, n, note)
		}
	}
	line("messages read", r.Messages, "")
	line("  of no function's type", r.Ignored, "not compared")
	line("  repeated", r.Repeated, "the same source and id once more: allowed")
	line("events", r.Events, "")
	line("  handled", r.Handled, "")
	line("  by another version", r.OtherVersion, "compared only if the effects are the same")
	line("  dead letters", r.Dead, "rejected, with a reason")
	line("  blocked", r.Blocked, "stored behind a dead letter of their subject")
	line("  deferred", r.Deferred, "until the deployment changes: tandem deferred list")
	line("  under way", r.Pending, "not acknowledged yet")
	line("  below the horizon", r.Forgotten, "the ledger may have forgotten them")
	line("rows compared", r.Rows, "")
	line("outputs", r.Outputs, "")
	line("  in the outbox", r.Waiting, "will be published")
	line("  rejected", r.Rejected, "see tandem rejected-outputs list")
	line("  repeated", r.Duplicates, "the same source and id once more: allowed")
	for _, reason := range slices.Sorted(maps.Keys(r.Unchecked)) {
		print("not checked\t%d\t%s\n", r.Unchecked[reason], reason)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Counts)) {
		print("%s\t%d\tWRONG\n", strings.ToUpper(kind), r.Counts[kind])
	}
	line("delivered again", r.Delivered, "run tandem verify again")
	line("published again", r.Published, "run tandem verify again")
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	for _, f := range r.Findings {
		fmt.Fprintln(&b, f)
	}
	if r.OK() {
		fmt.Fprintln(&b, "The database agrees with the stream.")
	}
	if err := t.print("%s", b.String()); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}
