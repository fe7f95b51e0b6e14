// Command migrate brings the database of DATABASE_URL up to what this version of
// Tandem and all of its functions need. It may run while the version before is at
// work, and again: then there is nothing to do. With --grant it gives another role
// what it takes to write, and nothing else; --help explains the two roles.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/hack/schema"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const help = `migrate makes and changes the tables of Tandem and of all its functions.

  DATABASE_URL=postgres://MIGRATOR:PASSWORD@HOST:5432/NAME migrate [--grant ROLE]... [--revoke ROLE]...

It may run while the version before is at work, any number of times, and twice at
once: one waits for the other. Then start the new version.

Two roles. The role of DATABASE_URL owns the tables. Functions and sources need far
less, so let them log in as another one:

  create role tandem_migrator login password '…';
  create role tandem_writer login password '…';
  grant create on database NAME to tandem_migrator;
  grant create on schema public to tandem_migrator;

  DATABASE_URL=postgres://tandem_migrator:…@HOST/NAME migrate --grant tandem_writer

and DATABASE_URL of functions and sources is postgres://tandem_writer:…@HOST/NAME.
Neither is a superuser. Instead of "create on database", the migrator may be given
its schema: create schema tandem authorization tandem_migrator. "create on schema
public" is for the functions' tables; if they go elsewhere, set search_path for both
roles: alter role tandem_writer in database NAME set search_path = app.

All clusters have to log in as the same writing role: one that hangs is ended by
another, and a role ends connections of its own only.

  --grant ROLE   Lets ROLE use schema tandem as functions and sources do, and select,
                 insert, update and delete in the tables that the migrations of
                 functions have made. It cannot create, alter, drop or truncate
                 anything, nor touch other tables. What it did is printed as SQL.
                 Once is enough: later runs of migrate give the role what they add,
                 also without --grant. For tables that no migration here has made,
                 the owner has to grant: select, insert, update, delete.
                 May be given several times.
  --revoke ROLE  Takes all of that from ROLE again, after the grants.

A source shows how far standby servers are behind if the writing role may see them:
grant pg_monitor to tandem_writer, as a superuser. Nothing depends on it.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], envconfig.OsLookuper(), os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "migrate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, environment envconfig.Lookuper, out io.Writer) error {
	flags := flag.NewFlagSet("migrate", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var grants, revokes []string
	names := func(list *[]string) func(string) error {
		return func(role string) error {
			if role == "" {
				return errors.New("want the name of a role")
			}
			*list = append(*list, role)
			return nil
		}
	}
	flags.Func("grant", "", names(&grants))
	flags.Func("revoke", "", names(&revokes))
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(out, help)
		return err
	case err != nil:
		return fmt.Errorf("%w: migrate --help says how it is used", err)
	case flags.NArg() > 0:
		return fmt.Errorf("argument %q: there are only --grant ROLE and --revoke ROLE: migrate --help says how it is used", flags.Arg(0))
	}
	var env struct {
		DatabaseURL string `env:"DATABASE_URL"`
	}
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: &env, Lookuper: environment}); err != nil {
		return err
	}
	if env.DatabaseURL == "" {
		return errors.New("DATABASE_URL is not set: want postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	if err := schema.Migrate(ctx, env.DatabaseURL); err != nil {
		return err
	}
	for _, role := range grants {
		if err := grant(ctx, env.DatabaseURL, role, out); err != nil {
			return err
		}
	}
	for _, role := range revokes {
		statements, err := sinkwriter.Revoke(ctx, env.DatabaseURL, role)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, script(statements, "-- role "+role+" had nothing")); err != nil {
			return err
		}
	}
	return nil
}

// script is what was done, as SQL.
func script(statements []string, none string) string {
	if len(statements) == 0 {
		return none + "\n"
	}
	return strings.Join(statements, ";\n") + ";\n"
}

func grant(ctx context.Context, databaseURL, role string, out io.Writer) error {
	granted, err := sinkwriter.Grant(ctx, databaseURL, role)
	if err != nil {
		return err
	}
	text := script(granted.Statements, "-- role "+role+" has all that it needs")
	for _, warning := range granted.Warnings {
		text += "-- note: " + warning + "\n"
	}
	_, err = io.WriteString(out, text)
	return err
}
