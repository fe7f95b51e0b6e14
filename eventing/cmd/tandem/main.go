// Command tandem is the tool of users and operators of Tandem: it migrates the
// database, shows and switches redundancy, lists and replays dead letters, and compares
// the database with the stream. docs/tandem.md lists every command.
//
// It links no function. Where a command needs functions, it runs their own program.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	t := tool{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv}
	code := t.execute(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
