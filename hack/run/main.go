// Command run is make run: PostgreSQL, NATS and two or three clusters on this
// machine, each component a process of its own. Real events pass through all of
// them, and a table shows the race once a second.
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

// execute runs and returns the exit status.
func execute(start time.Time, o options) int {
	// Writing to a pipe without a reader must be an error and not end this
	// process: it has to end other processes first.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // the second Ctrl-C ends this program at once, and the system ends the rest

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

// fail prints an error in one line.
func fail(err error) {
	// The driver indents continuation lines.
	line := strings.NewReplacer("\n\t", " ", "\n", "; ").Replace(err.Error())
	fmt.Fprintln(os.Stderr, "tandem:", line)
}

// begun returns when make started, according to its date +%s.%N, because building
// is part of the time that a user waits; otherwise the start of this process.
func begun(told string, start time.Time) time.Time {
	whole, fraction, _ := strings.Cut(told, ".")
	s, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return start
	}
	ns, err := strconv.ParseInt(fraction, 10, 64)
	if err != nil || len(fraction) != 9 {
		ns = 0 // a date command without %N
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

// terminalWidth returns the terminal's width in columns, 0 if it is unknown.
func terminalWidth() int {
	size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
