package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/jetstream"
)

const help = `verify finds out whether the database says what the stream says: it reads the
stream, runs the functions again in memory, and compares with the ledger, the rows
and the outputs. What is missing, extra or different it lists. It changes nothing,
unless --repair is given, and may run while everything else does.

  DATABASE_URL=postgres://… NATS_URL=nats://… go run ./hack/verify [flags]

After an incident, first look at everything:

  go run ./hack/verify

On a long stream only from where it became interesting; counters are then not
compared, since their past is not known:

  go run ./hack/verify --since 2h
  go run ./hack/verify --from 1500000 --until 1600000

What the findings mean, and what to do:

  missing event      acknowledged, but neither in the ledger nor a dead letter: lost.
                     --repair delivers it again, and it is applied.
  missing output     committed, but neither in the stream of outputs nor in the outbox.
                     --repair publishes it again, under the same source and id.
  missing row,       somebody or something else has written to the table. Delivering the
  different row      event again would not help, the ledger knows it: the line says what
                     the row should be, for you to decide.
  extra row          no event explains it: written by hand, or its message is gone.
  extra event        the ledger has it and the stream has not: the message is gone.
  extra output       no event explains it.
  different event    the function computes something else than what was committed: it is
                     not deterministic, or changed and kept its version.

Build it from the version of the functions that is deployed: their code is part of
it. Events that another version committed are counted, not compared.

Exit status: 0 if nothing is wrong, 1 if something is (also if it has been repaired:
look again), 2 if it could not be found out.

Flags:
`

// options are what somebody has asked for.
type options struct {
	databaseURL, natsURL string

	streams     []jetstream.StreamConfig
	outputs     jetstream.StreamConfig
	functions   []string
	from, until uint64
	since       time.Time
	limit       int
	json        bool
	repair      bool
	functionURL string
}

func parse(args []string, now time.Time, stderr io.Writer) (options, error) {
	o := options{databaseURL: os.Getenv("DATABASE_URL"), natsURL: os.Getenv("NATS_URL")}
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = io.WriteString(stderr, help)
		flags.PrintDefaults()
	}
	streams := flags.String("streams", env("TANDEM_STREAMS", "EVENTS"), "`streams` of the inputs, with commas between (TANDEM_STREAMS)")
	outputs := flags.String("outputs", env("TANDEM_OUTPUT_STREAM", "OUTPUTS"), "`stream` of the outputs (TANDEM_OUTPUT_STREAM)")
	names := flags.String("functions", os.Getenv("TANDEM_FUNCTIONS"), "`names` of the functions to look at, with commas between; all by default (TANDEM_FUNCTIONS)")
	flags.Uint64Var(&o.from, "from", 0, "first `sequence` of the streams to read; the oldest by default")
	flags.Uint64Var(&o.until, "until", 0, "last `sequence` of the streams to read; the newest by default")
	since := flags.String("since", "", "instead of --from, a `time`, as 2006-01-02T15:04:05Z, or how long ago, as 90m")
	flags.IntVar(&o.limit, "limit", 20, "how `many` findings of each kind are listed")
	flags.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	flags.BoolVar(&o.repair, "repair", false, "deliver missing events and publish missing outputs again; needs --function")
	flags.StringVar(&o.functionURL, "function", os.Getenv("K_SINK"), "`URL` of the function, to which missing events are delivered (K_SINK)")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	for name := range strings.SplitSeq(*streams, ",") {
		o.streams = append(o.streams, jetstream.ParseStream(name))
	}
	o.outputs = jetstream.ParseStream(*outputs)
	if *names != "" {
		o.functions = strings.Split(*names, ",")
	}
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("what is %q? --help lists the flags", flags.Arg(0)))
	}
	if o.databaseURL == "" {
		errs = append(errs, errors.New("DATABASE_URL is not set: say where the database is, as postgres://USER:PASSWORD@HOST:5432/NAME"))
	}
	if o.natsURL == "" {
		errs = append(errs, errors.New("NATS_URL is not set: say where the streams are, as nats://HOST:4222"))
	}
	if *since != "" {
		var err error
		if o.since, err = parseSince(*since, now); err != nil {
			errs = append(errs, err)
		}
		if o.from != 0 {
			errs = append(errs, errors.New("--since and --from say the same: give one of them"))
		}
	}
	if u, err := url.Parse(o.functionURL); o.repair && (err != nil || u.Host == "") {
		errs = append(errs, fmt.Errorf("--repair: --function %q: want the URL of the function, as http://HOST:8080", o.functionURL))
	}
	if o.limit < 0 {
		errs = append(errs, fmt.Errorf("--limit %d: want 0 or more", o.limit))
	}
	return o, errors.Join(errs...)
}

func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	return time.Time{}, fmt.Errorf("--since %q: want a time, as 2006-01-02T15:04:05Z, or a duration, as 90m", text)
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
