// Command migrate brings the database of DATABASE_URL up to what this version of
// Tandem and all of its functions need. It may run while the version before is at
// work, and again: then there is nothing to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/hack/schema"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "migrate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var env struct {
		DatabaseURL string `env:"DATABASE_URL"`
	}
	if err := envconfig.Process(ctx, &env); err != nil {
		return err
	}
	if env.DatabaseURL == "" {
		return errors.New("DATABASE_URL is not set: want postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	return schema.Migrate(ctx, env.DatabaseURL)
}
