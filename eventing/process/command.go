package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing/program"
	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// Migrate creates and changes the tables of Tandem and of all functions of the Runtime,
// which need not be started. It is safe to call in several processes.
func (rt *Runtime) Migrate(ctx context.Context, databaseURL string) error {
	return schema.Migrate(ctx, databaseURL, migrationSets(rt.functions)...)
}

// migrationSets returns the migrations of the functions that have any.
func migrationSets(fs []functions.Function) []schema.MigrationSet {
	var sets []schema.MigrationSet
	for _, f := range fs {
		if f.Migrations != nil {
			sets = append(sets, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
		}
	}
	return sets
}

// commandConfig is the environment of a process that runs a command.
type commandConfig struct {
	Command     string   `env:"TANDEM_COMMAND"`
	DatabaseURL string   `env:"DATABASE_URL"`
	Functions   []string `env:"TANDEM_FUNCTIONS"`
}

// runCommand runs the command in env, if any, and ends the process.
func runCommand(ctx context.Context, env map[string]string, all []functions.Function) {
	var c commandConfig
	err := telemetry.ReadEnvironment(ctx, envconfig.MapLookuper(env), &c)
	if c.Command == "" {
		return // Start reports errors of the whole environment
	}
	// A function that prints must not write between the answers.
	out := os.Stdout
	os.Stdout = os.Stderr
	if err == nil {
		err = c.run(ctx, all, os.Stdin, out)
	}
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "TANDEM_COMMAND=%s: %v\n", c.Command, err)
		os.Exit(2)
	}
	os.Exit(0)
}

func (c *commandConfig) run(ctx context.Context, all []functions.Function, in io.Reader, out io.Writer) error {
	selected, err := selectFunctions(all, c.Functions)
	if err != nil {
		return err
	}
	switch c.Command {
	case program.CommandDescribe:
		return program.Describe(selected, out)
	case program.CommandMigrate:
		if c.DatabaseURL == "" {
			return errors.New("DATABASE_URL is not set: want postgres://USER:PASSWORD@HOST:5432/NAME")
		}
		return schema.Migrate(ctx, c.DatabaseURL, migrationSets(selected)...)
	case program.CommandCompute:
		return program.Compute(ctx, selected, in, out)
	}
	return fmt.Errorf("want %s, %s or %s", program.CommandDescribe, program.CommandMigrate, program.CommandCompute)
}
