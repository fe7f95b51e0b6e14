package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// options is the command line.
type options struct {
	command string
	filter  sinkwriter.DeadFilter
	limit   int
	json    bool

	to        string
	parallel  int
	patience  time.Duration
	tokenFile string
}

// parse reads the command line. The error is [flag.ErrHelp], or says what is wrong.
func parse(args []string) (options, error) {
	o := options{limit: math.MaxInt}
	if len(args) == 0 {
		return o, errors.New("want a command: list, show, replay or drop")
	}
	o.command = args[0]
	switch o.command {
	case "list":
		o.limit = 100
	case "show":
		o.limit = 10
	case "replay", "drop":
	case "-h", "-help", "--help", "help":
		return o, flag.ErrHelp
	default:
		return o, fmt.Errorf("command %q: want list, show, replay or drop", o.command)
	}

	flags := flag.NewFlagSet(o.command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	flags.StringVar(&o.filter.Function, "function", "", "")
	flags.StringVar(&o.filter.Source, "source", "", "")
	flags.StringVar(&o.filter.ID, "id", "", "")
	flags.StringVar(&o.filter.Type, "type", "", "")
	flags.StringVar(&o.filter.Cluster, "cluster", "", "")
	flags.StringVar(&o.filter.Reason, "reason", "", "")
	flags.IntVar(&o.filter.Code, "code", 0, "")
	flags.Func("verdict", "", func(text string) (err error) {
		o.filter.Verdict, err = verdict(text)
		return err
	})
	flags.Func("since", "", at(&o.filter.Since))
	flags.Func("until", "", at(&o.filter.Until))
	flags.IntVar(&o.limit, "limit", o.limit, "")
	all := flags.Bool("all", false, "")
	flags.BoolVar(&o.json, "json", false, "")
	if o.command == "replay" {
		flags.StringVar(&o.to, "to", "", "")
		flags.IntVar(&o.parallel, "parallel", 8, "")
		flags.DurationVar(&o.patience, "patience", time.Minute, "")
		flags.StringVar(&o.tokenFile, "token-file", eventing.TokenFile, "")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return o, err
	}
	filtered := o.filter != sinkwriter.DeadFilter{}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("argument %q: want flags only", flags.Arg(0))
	case o.limit < 1:
		return o, fmt.Errorf("--limit %d: want at least 1", o.limit)
	case o.command == "replay" && (o.parallel < 1 || o.parallel > 256):
		return o, fmt.Errorf("--parallel %d: want 1 to 256", o.parallel)
	case *all && filtered:
		return o, errors.New("--all beside another flag that picks events: want one or the other")
	case (o.command == "replay" || o.command == "drop") && !*all && !filtered:
		return o, fmt.Errorf("which events to %s: want --function, --id or another flag that picks some, or --all", o.command)
	}
	return o, nil
}

func verdict(text string) (string, error) {
	switch strings.ToLower(text) {
	case "poison":
		return sinkwriter.VerdictPoison, nil
	case "sick", "sick cluster", "sick-cluster":
		return sinkwriter.VerdictSickCluster, nil
	case "undecided":
		return sinkwriter.VerdictUndecided, nil
	}
	return "", errors.New("want poison, sick or undecided")
}

// at reads a time, or how long ago it is.
func at(into *time.Time) func(string) error {
	return func(text string) error {
		if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
			*into = time.Now().Add(-ago) //nolint:forbidigo // what a person asks for
			return nil
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return errors.New("want how long ago, as 90m, or a time, as 2006-01-02T15:04:05Z")
		}
		*into = t
		return nil
	}
}
