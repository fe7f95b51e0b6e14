package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing"
)

// plants are the faults that can be planted, to test that chaos detects them.
var plants = []string{"", "early-ack", "loose-claim", "random-ids"}

type options struct {
	seed     uint64
	runs     int
	duration time.Duration
	rate     float64
	plant    string
	hedge    string
	only     []string // kinds of strikes; all if there are none
	report   string   // folder
	dir      string   // of all data and logs
	keep     bool
}

func parse(args []string, random uint64, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = io.WriteString(stderr, "chaos injects faults into two clusters and checks the results. make chaos SEED=… DURATION=… PLANT=…\nExit status: 0 without a violation, 1 with one, 2 if it could not run.\n\n")
		flags.PrintDefaults()
	}
	seed := flags.String("seed", "", "`number` that determines the run; by default a random one, which is printed")
	flags.IntVar(&o.runs, "runs", 1, "`number` of runs, each with the next seed")
	flags.DurationVar(&o.duration, "duration", 15*time.Second, "how `long` faults are injected")
	flags.Float64Var(&o.rate, "rate", 300, "`events` per second")
	flags.StringVar(&o.plant, "plant", "", "a `fault` that chaos must detect: "+strings.Join(plants[1:], ", "))
	flags.StringVar(&o.hedge, "hedge", "0", "TANDEM_HEDGE of both `clusters`: 0 (race), a delay such as 300ms, or share")
	only := flags.String("only", "", "comma-separated names, or beginnings, of the `kinds` of faults, such as disk,clock; all by default")
	flags.StringVar(&o.report, "report", ".tandem/chaos", "`folder` for the report")
	flags.BoolVar(&o.keep, "keep", false, "keep data and logs of the processes")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.seed = random
	var errs []error
	if *seed != "" {
		if _, err := fmt.Sscan(*seed, &o.seed); err != nil {
			errs = append(errs, fmt.Errorf("--seed %q: want a number", *seed))
		}
	}
	if o.duration < time.Second || o.duration > 24*time.Hour {
		errs = append(errs, fmt.Errorf("--duration %s: want 1s to 24h", o.duration))
	}
	if o.runs < 1 {
		errs = append(errs, fmt.Errorf("--runs %d: want 1 or more", o.runs))
	}
	if o.rate < 1 || o.rate > 100_000 {
		errs = append(errs, fmt.Errorf("--rate %g: want 1 to 100000", o.rate))
	}
	if !slices.Contains(plants, o.plant) {
		errs = append(errs, fmt.Errorf("--plant %q: want one of %s", o.plant, strings.Join(plants[1:], ", ")))
	}
	if _, err := eventing.ParseHedge(o.hedge); err != nil || o.hedge == "standby" {
		errs = append(errs, fmt.Errorf("--hedge %q: want 0, a delay such as 300ms, or share", o.hedge))
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, word := range o.only {
		if len(picked([]string{word})) == 0 {
			var names []string
			for _, k := range kinds {
				names = append(names, k.name)
			}
			errs = append(errs, fmt.Errorf("--only %q: want the beginning of one of %s", word, strings.Join(slices.Compact(names), ", ")))
		}
	}
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("unexpected argument %q; --help lists the flags", flags.Arg(0)))
	}
	return o, errors.Join(errs...)
}
