package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// options are the parsed flags.
type options struct {
	quick    bool
	keep     bool
	only     *regexp.Regexp
	report   string
	again    string
	goOn     string
	note     string
	dir      string
	events   int
	rounds   int
	rate     int
	duration time.Duration
}

const usage = `Compares Tandem with other libraries on the same work: flights from JetStream in two
clusters, deduplicated on source and id; a row, a total, one event published once; by hand, with
Watermill, DBOS and River.

    make peers ARGS=--quick               a look, a few minutes
    make peers                            the table, about half an hour on two cores
    make peers ARGS='--report docs'       as docs/peers.md, peers.json, peers.svg
    make peers ARGS='--only ^river'
    make peers ARGS='--again docs/peers.json --report docs'
                                          only rewrites that report
    make peers ARGS='--continue docs/peers.json --report docs'
                                          measures the missing rows

It builds Tandem, starts a PostgreSQL and a NATS server of its own and removes them at
the end; TANDEM_PG_BIN is the folder of another initdb. The folder must be on a disk
(--dir), not in memory, or commits cost nothing. For two cores of a larger machine:

    taskset -c 0,1 make peers

Rows:
%s
For each row: concurrencies are tried with some of the events, then rounds go round robin
with the best of them; then latency is measured at a rate that all sustain; then a cluster is
killed during the work, and returns when there is no more progress.

Flags:
`

const (
	defaultEvents   = 20_000
	quickEvents     = 2_000
	defaultRounds   = 3
	defaultRate     = 200
	defaultDuration = 20 * time.Second
	quickDuration   = 6 * time.Second
)

// errUsage means that the flags are invalid and that the reason has been printed.
var errUsage = errors.New("wrong flags")

func parseOptions(args []string, output io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.Usage = func() {
		var rows strings.Builder
		for _, p := range allPeers() {
			say(&rows, "  %-18s %s", p.name, p.title)
		}
		_, _ = fmt.Fprintf(output, usage, rows.String())
		flags.PrintDefaults()
	}
	flags.BoolVar(&o.quick, "quick", false, "one short round, one concurrency each")
	only := flags.String("only", "", "only the rows whose name matches this `regexp`")
	flags.StringVar(&o.report, "report", "", "`folder` for the report, from the clone's root (default .tandem/peers)")
	flags.StringVar(&o.again, "again", "", "measure nothing, and only rewrite the report of this JSON `file`")
	flags.StringVar(&o.goOn, "continue", "", "measure only the rows that are missing in this JSON `file` of an interrupted run")
	flags.StringVar(&o.note, "note", "", "a `sentence` about the run for the report")
	flags.BoolVar(&o.keep, "keep", false, "keep the servers' data and the logs")
	flags.StringVar(&o.dir, "dir", "", "`folder` for the servers' data (default: the temporary one)")
	flags.IntVar(&o.events, "events", 0, fmt.Sprintf("distinct events of a trial; Tandem has five times as many (default %d, quick %d)", defaultEvents, quickEvents))
	flags.IntVar(&o.rounds, "rounds", 0, fmt.Sprintf("trials of each row (default %d, quick 1)", defaultRounds))
	flags.IntVar(&o.rate, "rate", defaultRate, "events a second when latency is measured")
	flags.DurationVar(&o.duration, "latency", 0, fmt.Sprintf("how long that takes (default %s, quick %s)", defaultDuration, quickDuration))
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage
	}
	problem := func(format string, args ...any) (options, error) {
		say(output, "peers: "+format+"; see --help", args...)
		return o, errUsage
	}
	if flags.NArg() > 0 {
		return problem("unexpected argument %q", flags.Arg(0))
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return problem("--only: %v", err)
	}
	o.withDefaults()
	switch {
	case o.events < 100 || o.events > 1_000_000:
		return problem("--events %d: want 100 to 1000000", o.events)
	case o.rounds < 1 || o.rounds > 100:
		return problem("--rounds %d: want 1 to 100", o.rounds)
	case o.rate < 1 || o.rate > 20_000:
		return problem("--rate %d: want 1 to 20000", o.rate)
	case o.duration <= warmUp:
		return problem("--latency %s: want more than %s", o.duration, warmUp)
	case len(o.selected()) == 0:
		return problem("--only %s matches no row", o.only)
	}
	return o, nil
}

func (o *options) withDefaults() {
	events, rounds, duration := defaultEvents, defaultRounds, defaultDuration
	if o.quick {
		events, rounds, duration = quickEvents, 1, quickDuration
	}
	if o.events == 0 {
		o.events = events
	}
	if o.rounds == 0 {
		o.rounds = rounds
	}
	if o.duration == 0 {
		o.duration = duration
	}
}

// selected returns the peers that the flags select.
func (o options) selected() []peer {
	var list []peer
	for _, p := range allPeers() {
		if o.only.MatchString(p.name) {
			list = append(list, p)
		}
	}
	return list
}

// say writes a line of progress. It ignores an error, because the output may be
// closed.
func say(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...)
}
