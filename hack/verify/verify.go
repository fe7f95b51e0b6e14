package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/eventing/audit"
)

const (
	connectTimeout = 10 * time.Second
	deliverTimeout = time.Minute
)

// result is what is printed.
type result struct {
	audit.Report
	Delivered int64 `json:"delivered_again"`
	Published int64 `json:"published_again"`
}

func run(ctx context.Context, o options, out io.Writer) error {
	picked, err := pick(tandem.Functions(), o.functions)
	if err != nil {
		return err
	}
	settings, err := pgxpool.ParseConfig(o.databaseURL)
	if err != nil {
		return errors.New("DATABASE_URL: want postgres://USER:PASSWORD@HOST:5432/NAME") // the parser repeats the password
	}
	settings.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(ctx, settings)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer pool.Close()
	conn, err := jetstream.Connect(ctx, o.natsURL, jetstream.Config{Name: "tandem-verify"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := awaitConn(ctx, conn); err != nil {
		return err
	}
	config := audit.Config{
		Functions: picked, Pool: pool, Conn: conn, Streams: o.streams, Outputs: o.outputs,
		From: o.from, Until: o.until, Limit: o.limit,
	}
	if !o.since.IsZero() {
		if len(o.streams) != 1 {
			return errors.New("--since needs one stream: name it with --streams")
		}
		if config.From, err = conn.SequenceAt(ctx, o.streams[0], o.since); err != nil {
			return err
		}
	}
	var r result
	if o.repair {
		again, err := newPublisher(o)
		if err != nil {
			return err
		}
		defer again.close()
		r.repairWith(&config, again, o)
	}
	r.Report, err = audit.Run(ctx, config)
	if err != nil {
		return err
	}
	if err := r.print(out, o.json); err != nil {
		return err
	}
	if !r.OK() {
		return errWrong
	}
	return nil
}

// pick gives the functions with these names, all of them for no names.
func pick(all []functions.Function, names []string) ([]functions.Function, error) {
	if len(names) == 0 {
		return all, nil
	}
	var picked []functions.Function
	for _, name := range names {
		i := slices.IndexFunc(all, func(f functions.Function) bool { return f.Name == strings.TrimSpace(name) })
		if i < 0 {
			return nil, fmt.Errorf("--functions: there is no function %q in this program", name)
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}

func awaitConn(ctx context.Context, conn *jetstream.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		err := conn.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: look at NATS_URL", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// repairWith has missing events delivered to the function, which finds out by the
// ledger whether they were missing, and missing outputs published.
func (r *result) repairWith(config *audit.Config, again *publisher, o options) {
	client := &http.Client{Timeout: deliverTimeout}
	config.Lost = func(ctx context.Context, _ string, e event.Event) error {
		if err := deliver(ctx, client, o.functionURL, e); err != nil {
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

// print writes the report for people or for programs.
func (r *result) print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(r); err != nil {
			return fmt.Errorf("print the report: %w", err)
		}
		return nil
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
	line("  of no function's type", r.Ignored, "left out")
	line("  repeated", r.Repeated, "the same source and id once more: allowed")
	line("events", r.Events, "")
	line("  handled", r.Handled, "")
	line("  by another version", r.OtherVersion, "compared only if the effects are the same")
	line("  dead letters", r.Dead, "refused, with a reason")
	line("  under way", r.Pending, "not acknowledged yet")
	line("  below the horizon", r.Forgotten, "the ledger may have forgotten them")
	line("rows compared", r.Rows, "")
	line("outputs", r.Outputs, "")
	line("  in the outbox", r.Waiting, "will be published")
	line("  repeated", r.Duplicates, "the same source and id once more: allowed")
	for _, reason := range slices.Sorted(maps.Keys(r.Unchecked)) {
		print("not checked\t%d\t%s\n", r.Unchecked[reason], reason)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Counts)) {
		print("%s\t%d\tWRONG\n", strings.ToUpper(kind), r.Counts[kind])
	}
	line("delivered again", r.Delivered, "run verify once more to see what came of it")
	line("published again", r.Published, "run verify once more to see what came of it")
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	for _, f := range r.Findings {
		fmt.Fprintln(&b, f)
	}
	if r.OK() {
		fmt.Fprintln(&b, "The database says what the stream says.")
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}
