package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/test/bench/e2e"
)

// options are the parsed flags.
type options struct {
	quick      bool
	only       *regexp.Regexp
	jsonFile   string
	modesSVG   string
	cpuProfile string
	dir        string

	events     int
	rounds     int
	ledgerRows int

	callers     int
	together    int
	connections int
	batch       int

	e2eRate     int
	raceRate    int
	e2eDuration time.Duration
	e2eProbe    time.Duration
	e2eSync     string
	e2eEnv      []string
	pending     int
	beside      time.Duration
}

const usage = `Measures the cost of sinkwriter, compared with hand-written code and with the floor:
the bare upsert of the same rows by one writer.

    go run ./test/bench --quick              a look: one short round, a few minutes
    go run ./test/bench                      the table: %d rounds of %s events,
                                             some hours on two cores
    go run ./test/bench --only '^(one|race)$' --events 200000
    go run ./test/bench --only '^race$' --rounds 1 --cpuprofile cpu.out
                                             then: go tool pprof -top cpu.out
    go run ./test/bench --only '^(e2e|latency|nap|freeze|slow|no-stall|stall|stop|catch-up|ordered|beside)'
                                             the whole path, with two clusters
    go run ./test/bench --quick --only '^latency-' --race-rate 3000
                                             latencies at fractions of a known rate
    go run ./test/bench --rounds 3 --only '^burn-'
                                             race, hedge, share and standby

It starts a PostgreSQL of its own in a folder of its own and removes it at the end.
TANDEM_PG_BIN is the folder of another initdb. The folder must be on a disk (--dir),
not in memory, or commits cost nothing. For figures of a smaller machine, limit bench
and the server, which inherits the limit, to two cores:

    taskset -c 0,1 go run ./test/bench

An event writes one row of about 200 bytes and emits one output of about 200 bytes. A
cluster is a sinkwriter.Writer with a pool of its own. Its callers take the events in
the order of the stream, several at a time like an endpoint that receives batches, and
call CommitAll; in row single each caller calls Commit with one event. Outputs are
discarded when they are published. Retries of a writer are logged on stderr, because
nothing is made to fail: on a busy machine a batch can exceed its claim timeout, which
is a rollback. The rate counts distinct events, until every cluster has an answer to
every offer. By hand a fiftieth of the events is sufficient for a rate, on tables that
stay small, which favours it.

Rows:
%s
Columns:
  events_per_second      distinct events, median of the rounds
  of_floor, of_by_hand   median of the ratio within each round
  rollbacks, deadlocks   of the database, all rounds together
  wal_bytes_per_event    WAL, including the outbox
  connections            open at the end, all clusters together
  allocations_per_event  in this process, all clusters together; 14 per cluster are for
                         creating the event and its effects
  client_us, server_us   processor time per event, in microseconds (Linux)

Columns about serving:
  of_bare                ratio of events per second to the bare handler's requests per
                         second
  server_us              processor time of the server per request; likewise the
                         generator's
  server_busy            used share of the server's processor time; below 100 %% something
                         else was the limit

The columns of the table of modes come from the rows burn-race, burn-hedge, burn-share and
burn-standby, and from those whose names begin with these:

  computations …         per event, both clusters together, at 50 %% of the rate of
                         burn-race: computations; processor time of everything, of the
                         functions and of the database; transactions; bytes of WAL
  site_bytes             bytes over the connections of cluster east to database and
                         stream, both directions
  nap_, freeze_, kill_   latencies of those rows

Columns end to end:
  events/s               distinct events: of a filled stream, from its first output to
                         its last; in race rows the highest rate that an open loop
                         sustains
  of                     median of the ratio within each round: of the rates, in rows
                         with latencies of the p99.9
  at                     the rate at which events were published
  p50_ms, …              from publication until the stream has stored the output, median
                         of the rounds
  lag_ms, end_lag_ms     the lag of the cluster, or outbox, with the largest lag: its
                         maximum, and its median in the last second
  computed               share of the events, by the cluster that computed fewest, or,
                         in catch-up-skip, by the one that rejoins
  in_time                share of the good events beside bad ones whose output was stored
                         before the last one was published
  settled_ms             after a strike, until each cluster computes its own events
                         again, except for one in twenty in each second
  pause_ms               the longest time between two commits after a cluster was killed

A race row searches its rate: up or down by a factor, then by bisection, in short
probes, and confirms it for --e2e-duration. A rate is sustained if the lag stays below
1 s (in a short trial below 200 ms at its end) and each cluster computes at least 95 %%
of the events. With --race-rate the row is measured at that rate, sustained or not. Rows
at a fraction of the rate measure it first unless --race-rate is set. A row that fails is
listed with its error, and the exit status is 1.

Flags:`

// errUsage means that the flags are invalid and that the reason has been printed.
var errUsage = errors.New("wrong flags")

func parseOptions(args []string, output io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.Usage = func() {
		var rows strings.Builder
		for _, s := range scenarios() {
			fmt.Fprintf(&rows, "  %-18s %s\n", s.name, s.about)
		}
		rows.WriteString("\nRows about serving, in a table of their own:\n")
		for _, r := range aboutServing() {
			fmt.Fprintf(&rows, "  %-18s %s\n", r[0], r[1])
		}
		rows.WriteString("\nRows end to end, in a table of their own:\n")
		for _, r := range e2e.Rows() {
			fmt.Fprintf(&rows, "  %-18s %s\n", r.Name, r.About)
		}
		say(output, usage, defaultRounds, thousands(defaultEvents), rows.String())
		flags.PrintDefaults()
	}
	flags.BoolVar(&o.quick, "quick", false, "one short round, a small ledger")
	only := flags.String("only", "", "run only the rows whose name matches this `regexp`; ratios need floor and by-hand")
	flags.StringVar(&o.jsonFile, "json", "", "write the table to this `file` too, as a JSON array")
	flags.StringVar(&o.modesSVG, "modes-svg", "", "draw a comparison of the modes, from the rows burn-…, into this `file`")
	flags.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of this process to this `file`")
	flags.StringVar(&o.dir, "dir", "", "`folder` for the server's data, created if missing (default: a temporary one)")
	flags.IntVar(&o.events, "events", 0, fmt.Sprintf("distinct events of a trial (default %d, quick %d)", defaultEvents, quickEvents))
	flags.IntVar(&o.rounds, "rounds", 0, fmt.Sprintf("trials of each row (default %d, quick 1)", defaultRounds))
	flags.IntVar(&o.ledgerRows, "ledger", 0, fmt.Sprintf("rows in the ledger beforehand in ledger-10m (default %d, quick %d)", defaultLedger, quickLedger))
	flags.IntVar(&o.callers, "callers", defaultCallers, "concurrent calls of each cluster")
	flags.IntVar(&o.together, "together", defaultTogether, "events per call of CommitAll, like an endpoint that accepts batches")
	flags.IntVar(&o.connections, "connections", defaultConnections, "sinkwriter.Config.Connections of each cluster")
	flags.IntVar(&o.batch, "batch", defaultBatch, "sinkwriter.Config.BatchEvents, and the floor's batch")
	flags.IntVar(&o.e2eRate, "e2e-rate", defaultE2ERate, "events per second in the rows about stalls, and where searches start")
	flags.IntVar(&o.raceRate, "race-rate", 0, "events per second of e2e-race and e2e-race-by-hand; 0: search for the highest")
	flags.DurationVar(&o.e2eDuration, "e2e-duration", 0, fmt.Sprintf("how long latencies are measured, and a rate must be sustained (default %s, quick %s)", e2eDuration, quickE2EDuration))
	flags.DurationVar(&o.e2eProbe, "e2e-probe", 0, fmt.Sprintf("how long a probe of a search lasts, at most --e2e-duration (default %s, quick %s)", e2eProbe, quickE2EProbe))
	flags.StringVar(&o.e2eSync, "e2e-sync", defaultE2ESync, "how often NATS syncs its files to the disk: a `duration`, or always")
	flags.Func("e2e-env", "a further `VARIABLE=value` for sources and functions end to end; may be repeated", func(s string) error {
		o.e2eEnv = append(o.e2eEnv, s)
		return nil
	})
	flags.IntVar(&o.pending, "pending", 0, fmt.Sprintf("messages of row pending (default %d, quick %d)", defaultPending, quickPending))
	flags.DurationVar(&o.beside, "beside-duration", 0, fmt.Sprintf("how long good events are published beside each kind of bad ones (default %s, quick %s)", besideDuration, quickE2EDuration))
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage
	}

	problem := func(format string, args ...any) (options, error) {
		say(output, "bench: "+format+"; see --help", args...)
		return o, errUsage
	}
	if flags.NArg() > 0 {
		return problem("unexpected argument %q", flags.Arg(0))
	}
	if o.raceRate < 0 || o.raceRate > 100_000 {
		return problem("--race-rate %d: want 0 to 100000", o.raceRate)
	}
	if o.e2eDuration < 0 || o.e2eDuration > time.Hour || o.e2eDuration > 0 && o.e2eDuration < time.Second {
		return problem("--e2e-duration %s: want 1s to 1h", o.e2eDuration)
	}
	if o.e2eProbe < 0 || o.e2eProbe > time.Hour || o.e2eProbe > 0 && o.e2eProbe < time.Second {
		return problem("--e2e-probe %s: want 1s to 1h", o.e2eProbe)
	}
	if o.beside < 0 || o.beside > time.Hour || o.beside > 0 && o.beside < time.Second {
		return problem("--beside-duration %s: want 1s to 1h", o.beside)
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return problem("--only: %v", err)
	}
	events, rounds, ledger, pending := defaultEvents, defaultRounds, defaultLedger, defaultPending
	if o.quick {
		events, rounds, ledger, pending = quickEvents, 1, quickLedger, quickPending
	}
	for _, n := range []struct {
		name            string
		value           *int
		otherwise       int
		lowest, highest int
	}{
		{"events", &o.events, events, hotRows, 50_000_000},
		{"rounds", &o.rounds, rounds, 1, 1000},
		{"ledger", &o.ledgerRows, ledger, 1, 40_000_000},
		{"callers", &o.callers, defaultCallers, 1, 100_000},
		{"together", &o.together, defaultTogether, 1, 10_000},
		{"connections", &o.connections, defaultConnections, 1, 16},
		{"batch", &o.batch, defaultBatch, 1, 10_000},
		{"e2e-rate", &o.e2eRate, defaultE2ERate, 1, 100_000},
		{"pending", &o.pending, pending, 1000, 100_000_000},
	} {
		if *n.value == 0 {
			*n.value = n.otherwise
		}
		if *n.value < n.lowest || *n.value > n.highest {
			return problem("--%s %d: want %d to %d", n.name, *n.value, n.lowest, n.highest)
		}
	}
	return o, nil
}

// selected returns the rows that the flags select.
func (o options) selected() []scenario {
	var list []scenario
	for _, s := range scenarios() {
		if o.only.MatchString(s.name) && (!s.long || o.only.String() != "") {
			list = append(list, s)
		}
	}
	return list
}

// thousands formats a number for people.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
