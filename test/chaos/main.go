package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

const (
	exitViolation = 1
	exitFailure   = 2
)

// errViolation means that there was a violation, which has been printed.
var errViolation = errors.New("violation")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], rand.Uint64N(1_000_000), os.Stderr)
	if err == nil {
		err = execute(ctx, o, os.Stdout)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errViolation):
		os.Exit(exitViolation)
	default:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(exitFailure)
	}
}

// execute builds the components and runs, once or with successive seeds.
func execute(ctx context.Context, o options, out io.Writer) (err error) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	bin, err := devcluster.TempDir("", "tandem-test-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	say("building")
	programs, err := build(ctx, bin, os.Stderr)
	if err != nil {
		return err
	}
	var bad []uint64
	for range o.runs {
		err := once(ctx, o, programs, say)
		if errors.Is(err, errViolation) {
			bad = append(bad, o.seed)
		} else if err != nil {
			return err
		}
		o.seed++
	}
	if o.runs > 1 {
		say("%d runs, %d with violations: seeds %d", o.runs, len(bad), bad)
	}
	if len(bad) > 0 {
		return errViolation
	}
	return nil
}

// once runs in a folder of its own, and writes the report.
func once(ctx context.Context, o options, programs programs, say func(string, ...any)) (err error) {
	if o.dir, err = devcluster.TempDir("", "tandem-test-"); err != nil {
		return err
	}
	say("seed %d, %s", o.seed, o.duration)
	r, err := run(ctx, o, programs, say)
	if o.keep || err != nil {
		say("data and logs: %s", o.dir)
	} else {
		defer func() { err = errors.Join(err, devcluster.RemoveDir(o.dir)) }()
	}
	if err != nil {
		return err
	}
	for _, v := range r.Violations {
		say("VIOLATION: %s", v)
	}
	dir, err := r.write(o.report)
	if err != nil {
		return err
	}
	say("%s %d events handled once, %d dead with a reason, %d outputs. Report: %s", r.verdict(), r.Audit.Handled, r.Audit.Dead, r.Audit.Outputs, filepath.Join(dir, "report.md"))
	if len(r.Violations) > 0 {
		return errViolation
	}
	return nil
}
