package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/drill"
)

// plants are the faults that can be planted, to test that a drill detects them.
var plants = []string{"", "early-ack", "loose-claim", "random-ids"}

const help = `drill causes a failure while events are published, repairs it, and reports the effect.

  make drill SCENARIO=lose-cluster         on this machine, with processes of its own
  go run ./test/drill [flags] SCENARIO     the same
  go run ./test/drill [flags] all          one after the other

tandem drill watches your own deployment while you cause the failure.

Scenarios:

%s
Exit status: 0 if every guarantee held, 1 if not, 2 if the drill could not be run.
docs/drills.md explains each scenario, and the report.

Flags:
`

type options struct {
	scenario string

	// For drills on this machine.
	seed     uint64
	rate     float64
	phase    time.Duration
	lag      time.Duration
	reaction time.Duration
	witness  bool
	times    int
	plant    string
	dir      string // of all data and logs
	keep     bool

	maxGap time.Duration
	report string // folder
}

// listed returns a description of the scenarios.
func listed() string {
	var b strings.Builder
	for _, s := range scenarios {
		fmt.Fprintf(&b, "  %-20s %s\n", s.name, s.what)
	}
	return b.String()
}

// errListed means that the scenarios were only listed.
var errListed = errors.New("scenarios listed")

func parse(args []string, out, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("drill", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprintf(stderr, help, listed())
		flags.PrintDefaults()
	}
	flags.Uint64Var(&o.seed, "seed", 1, "`number` that determines the events")
	flags.Float64Var(&o.rate, "rate", 500, "`events` per second")
	flags.DurationVar(&o.phase, "phase", 10*time.Second, "how `long` each phase lasts: before, during and after")
	flags.DurationVar(&o.lag, "lag", 3*time.Second, "database-failover: how `long` replication has stopped when the primary is killed")
	flags.DurationVar(&o.reaction, "reaction", 5*time.Second, "how `long` operators take to notice and to act, if a scenario needs them")
	flags.BoolVar(&o.witness, "witness", true, "lose-primary: a witness in a third site promotes the standby; without it, an operator does")
	flags.IntVar(&o.times, "times", 9, "source-replicas: how `often` a replica is ended")
	flags.StringVar(&o.plant, "plant", "", "a `fault` that the drill must detect: "+strings.Join(plants[1:], ", "))
	flags.BoolVar(&o.keep, "keep", false, "keep data and logs of the processes")
	flags.DurationVar(&o.maxGap, "max-gap", 0, "longest allowed `time` without a commit; by default the guarantee of the scenario")
	flags.StringVar(&o.report, "report", ".tandem/drill", "`folder` for the report")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.scenario = flags.Arg(0)
	var errs []error
	if o.scenario == "" {
		_, _ = fmt.Fprintf(out, "Scenarios, for make drill SCENARIO=…; details with ARGS=--help:\n\n%s", listed())
		return o, errListed
	}
	if _, ok := find(o.scenario); !ok && o.scenario != "all" {
		errs = append(errs, fmt.Errorf("unknown scenario %q; the scenarios are:\n%s", o.scenario, listed()))
	}
	if flags.NArg() > 1 {
		errs = append(errs, fmt.Errorf("unexpected argument %q: flags come first, then the scenario", flags.Arg(1)))
	}
	if o.rate < 1 || o.rate > 100_000 {
		errs = append(errs, fmt.Errorf("--rate %g: want 1 to 100000", o.rate))
	}
	for name, d := range map[string]time.Duration{"phase": o.phase, "lag": o.lag, "reaction": o.reaction} {
		if d < 500*time.Millisecond || d > 24*time.Hour {
			errs = append(errs, fmt.Errorf("--%s %s: want 500ms to 24h", name, d))
		}
	}
	if o.times < 1 || o.times > 100_000 {
		errs = append(errs, fmt.Errorf("--times %d: want 1 to 100000", o.times))
	}
	if o.maxGap < 0 {
		errs = append(errs, fmt.Errorf("--max-gap %s: want more than 0", o.maxGap))
	}
	if !slices.Contains(plants, o.plant) {
		errs = append(errs, fmt.Errorf("--plant %q: want one of %s", o.plant, strings.Join(plants[1:], ", ")))
	}
	return o, errors.Join(errs...)
}

// conditions returns the parameters of the allowed gap.
func (o options) conditions(before time.Duration) drill.Conditions {
	return drill.Conditions{Before: before, Lag: o.lag, Reaction: o.reaction, Witness: o.witness}
}

// shown returns a description of the drill's parameters.
func (o options) shown() string {
	text := fmt.Sprintf("%g events a second, %s before, during and after. To repeat it: `make drill SCENARIO=%s`", o.rate, o.phase, o.scenario)
	var args []string
	if o.rate != 500 {
		args = append(args, fmt.Sprintf("--rate %g", o.rate))
	}
	if o.phase != 10*time.Second {
		args = append(args, "--phase "+o.phase.String())
	}
	if o.times != 9 {
		args = append(args, fmt.Sprintf("--times %d", o.times))
	}
	if !o.witness {
		args = append(args, "--witness=false")
	}
	if len(args) > 0 {
		text = strings.TrimSuffix(text, "`") + ` ARGS="` + strings.Join(args, " ") + "\"`"
	}
	return text + "."
}
