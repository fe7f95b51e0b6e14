package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

const (
	defaultPort = 7300
	defaultRate = 500
)

// clusterNames returns the names of the clusters, in the order in which they are
// added.
func clusterNames() []string { return []string{"east", "west", "north"} }

// options are parsed from the flags and the environment.
type options struct {
	clusters     int
	rate         float64
	input        string // a file, "-", or empty for the feed
	feed         string // flights or none
	untilDone    bool
	dir          string
	ports        int
	syncInterval string

	databaseURL string // an existing server
	natsURL     string // likewise
}

const usage = `usage: make run ARGS="[flags]"

Runs PostgreSQL, NATS and two clusters on this machine, each component a process of its own,
and feeds 20,000 real flights through both at once. Every event is computed in every
cluster; the first one to commit wins, the other detects that and continues. Kill any process
you like (kill -9): it is restarted after a second, and the totals stay exact.

  make run                                    both clusters, 500 events a second
  make run ARGS="--rate 2000 --until-done"    end when everything is processed, and compare
  make run ARGS="--rate 0 --clusters 3"       as fast as possible, three clusters
  make run ARGS="--feed none"                 wait for events that you send with curl
  make run ARGS="--input events.ndjson"       your own events in JSON, one per line

A second run continues where the first ended; make clean deletes all data.

flags:
  --clusters N         2 (east and west) or 3 (and north); default 2
  --rate N             events per second; 0 is as fast as possible; default 500
  --input FILE         CloudEvents in JSON, one per line, instead of the flights; - reads
                       from standard input. An invalid line is reported and skipped, and the
                       exit status is 1 in the end.
                       The file is published from its beginning in every run: an event
                       that was processed before changes nothing
  --feed NAME          flights or none; default flights
  --until-done         end when everything is processed; with the flights, compare the
                       tables with the truth, print each difference, and exit with 1 if
                       there is one
  --dir DIR            folder for data and logs; default .tandem
  --ports N            first port, on 127.0.0.1: PostgreSQL N, NATS N+1, and for each
                       cluster, from N+10, N+20, … on: ingest, function, the source's
                       metrics, the ingest's metrics; default 7300
  --sync-interval D    how often NATS syncs acknowledged messages to the disk: a
                       duration like 10s, or always, which production needs; default 2m,
                       the server's own. A killed process loses nothing either way

environment:
  DATABASE_URL     an existing PostgreSQL, which is used instead of a new one
  NATS_URL         an existing NATS with JetStream, likewise
  TANDEM_PG_BIN    the folder of initdb and postgres; default an installed server, else
                   a pinned build that is downloaded once
  LOG_LEVEL        debug, info, warn or error, for the components' logs in DIR/log

exit status: 0 done, 1 a difference or a failure, 2 wrong flags, 130 Ctrl-C
`

// parseOptions parses the flags. If it returns flag.ErrHelp, the usage has been
// written to out.
func parseOptions(args []string, getenv func(string) string, out io.Writer) (options, error) {
	o := options{
		databaseURL: getenv("DATABASE_URL"),
		natsURL:     getenv("NATS_URL"),
	}
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // an error is printed in one line
	flags.IntVar(&o.clusters, "clusters", 2, "")
	flags.Float64Var(&o.rate, "rate", defaultRate, "")
	flags.StringVar(&o.input, "input", "", "")
	flags.StringVar(&o.feed, "feed", "flights", "")
	flags.BoolVar(&o.untilDone, "until-done", false, "")
	flags.StringVar(&o.dir, "dir", ".tandem", "")
	flags.IntVar(&o.ports, "ports", defaultPort, "")
	flags.StringVar(&o.syncInterval, "sync-interval", devcluster.DefaultSyncInterval, "")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(out, usage)
		return options{}, err
	}
	if err != nil {
		return options{}, fmt.Errorf("%w; --help lists the flags", err)
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q: want flags only; --help lists them", flags.Arg(0))
	}
	feedGiven := false
	flags.Visit(func(f *flag.Flag) { feedGiven = feedGiven || f.Name == "feed" })
	if level := getenv("LOG_LEVEL"); level != "" {
		var known slog.Level
		if err := known.UnmarshalText([]byte(level)); err != nil {
			return options{}, fmt.Errorf("LOG_LEVEL %q: want debug, info, warn or error", level)
		}
	}
	return o, o.validate(feedGiven)
}

func (o options) validate(feedGiven bool) error {
	names := clusterNames()
	switch {
	case o.clusters < 2 || o.clusters > len(names):
		return fmt.Errorf("--clusters %d: want 2 to %d (%s)", o.clusters, len(names), strings.Join(names, ", "))
	case o.rate < 0 || o.rate != o.rate:
		return fmt.Errorf("--rate %g: want events per second, or 0 for as fast as possible", o.rate)
	case !slices.Contains([]string{"flights", "none"}, o.feed):
		return fmt.Errorf("--feed %s: want flights or none", o.feed)
	case o.input != "" && feedGiven && o.feed != "none":
		return errors.New("--input and --feed flights: use one of them")
	case o.dir == "":
		return errors.New("--dir: want a folder")
	case o.ports < 1 || o.ports+devcluster.PortStep*(o.clusters+1) > 65_535:
		return fmt.Errorf("--ports %d: want the first of ports between 1 and 65535", o.ports)
	case !isSyncInterval(o.syncInterval):
		return fmt.Errorf("--sync-interval %s: want a duration like 10s, or always", o.syncInterval)
	}
	return nil
}

func isSyncInterval(s string) bool {
	d, err := time.ParseDuration(s)
	return s == "always" || err == nil && d > 0
}

// flights reports whether the flights are fed, and so whether there is a truth.
func (o options) flights() bool { return o.input == "" && o.feed == "flights" }
