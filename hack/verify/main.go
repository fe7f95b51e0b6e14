// Command verify finds out, after an incident, whether the database says what the
// stream says, and has what is missing delivered again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	exitWrong   = 1
	exitFailure = 2
)

// errWrong says that something is wrong, which has been printed.
var errWrong = errors.New("not as it should be")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	o, err := parse(os.Args[1:], time.Now(), os.Stderr)
	if err == nil {
		err = run(ctx, o, os.Stdout)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errWrong):
		os.Exit(exitWrong)
	default:
		fmt.Fprintln(os.Stderr, "verify:", err)
		os.Exit(exitFailure)
	}
}
