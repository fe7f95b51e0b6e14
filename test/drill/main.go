package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/drill"
	"github.com/tandem-fn/tandem/test/deployment"
)

const (
	exitBroken  = 1
	exitFailure = 2
)

// errBroken means that a guarantee was broken, which has been printed.
var errBroken = errors.New("a guarantee was broken")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stdout, os.Stderr)
	if err == nil {
		err = execute(ctx, o, os.Stdout)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp), errors.Is(err, errListed):
	case errors.Is(err, errBroken):
		os.Exit(exitBroken)
	default:
		fmt.Fprintln(os.Stderr, "drill:", err)
		os.Exit(exitFailure)
	}
}

// execute runs the requested drills.
func execute(ctx context.Context, o options, out io.Writer) (err error) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	bin, err := devcluster.TempDir("", "tandem-test-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	say("building (a minute or two the first time)")
	programs, err := deployment.Build(ctx, bin, os.Stderr)
	if err != nil {
		return err
	}
	names := []string{o.scenario}
	if o.scenario == "all" {
		names = nil
		for _, s := range scenarios {
			names = append(names, s.name)
		}
	}
	var broken error
	for _, name := range names {
		o.scenario = name
		err := once(ctx, o, programs, say)
		if err != nil && !errors.Is(err, errBroken) {
			return fmt.Errorf("%s: %w", name, err)
		}
		broken = errors.Join(broken, err)
	}
	return broken
}

// once runs one drill in a folder of its own.
func once(ctx context.Context, o options, programs devcluster.Programs, say func(string, ...any)) (err error) {
	if o.dir, err = devcluster.TempDir("", "tandem-test-"); err != nil {
		return err
	}
	say("drill %s: %s", o.scenario, o.shown())
	r, err := run(ctx, o, programs, say)
	if o.keep || err != nil {
		say("data and logs: %s", o.dir)
	} else {
		defer func() { err = errors.Join(err, devcluster.RemoveDir(o.dir)) }()
	}
	if err != nil {
		return err
	}
	return finish(r, o, say)
}

// finish prints the verdict and writes the report.
func finish(r drill.Result, o options, say func(string, ...any)) error {
	r.Print(say)
	dir, err := r.Write(o.report)
	if err != nil {
		return err
	}
	verdict := "PASSED"
	if !r.Passed {
		verdict = "FAILED"
	}
	say("%s. Report: %s", verdict, filepath.Join(dir, "report.md"))
	if !r.Passed {
		return errBroken
	}
	return nil
}
