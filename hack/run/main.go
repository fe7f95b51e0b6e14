// Command run is `make run`: PostgreSQL, NATS and two or three clusters on this
// machine, each part a process of its own, real events through all of them, and a
// table that shows the race once a second.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	start := time.Now()
	o, err := parseOptions(os.Args[1:], os.Getenv, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fail(err)
		os.Exit(exitUsage)
	}
	os.Exit(execute(start, o))
}

// execute runs and gives the exit status.
func execute(start time.Time, o options) int {
	// A write to a pipe that nobody reads is an error and not our end: there are
	// processes to end first.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends us at once, and the system the rest

	dir, err := filepath.Abs(o.dir)
	if err != nil {
		fail(err)
		return exitFailure
	}
	o.dir = dir
	r := &run{
		o:      o,
		out:    newScreen(os.Stdout, isTerminal(os.Stdout), terminalWidth),
		stderr: os.Stderr,
		stdin:  os.Stdin,
		now:    time.Now,
		start:  begun(os.Getenv("TANDEM_STARTED"), start),
	}
	err = r.execute(ctx)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil, errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, errDifferent):
		return exitFailure
	default:
		fail(err)
		return exitFailure
	}
}

// fail says in one line what is wrong.
func fail(err error) {
	// The driver indents what belongs to the line before.
	line := strings.NewReplacer("\n\t", " ", "\n", "; ").Replace(err.Error())
	fmt.Fprintln(os.Stderr, "tandem:", line)
}

// begun is when make began, as `date +%s.%N` told it, since building is part of the
// time that a person waits; else our own start.
func begun(told string, start time.Time) time.Time {
	whole, fraction, _ := strings.Cut(told, ".")
	s, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return start
	}
	ns, err := strconv.ParseInt(fraction, 10, 64)
	if err != nil || len(fraction) != 9 {
		ns = 0 // a date that knows no %N
	}
	if t := time.Unix(s, ns); t.Before(start) && start.Sub(t) < time.Hour {
		return t
	}
	return start
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// terminalWidth is the terminal's width in columns, 0 if it does not say.
func terminalWidth() int {
	size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
