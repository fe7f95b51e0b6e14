package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing/program"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

const migrateHelp = `Creates and changes the tables of Tandem and of a function. You may run it while the
previous version runs, any number of times, and in several places at once: one
waits for the other. Start the new version afterwards.

The tables of a function are created by its own program: --function builds it, --image
runs it. Without both the command takes the function of the current folder, if there
is a func.yaml, and otherwise creates Tandem's own tables alone. In a cluster, the
function's image does it as a Job with TANDEM_COMMAND=migrate.

It uses two roles. The role of the database URL owns the tables. Functions and sources need
far fewer privileges, so let them log in as another one:

  create role tandem_migrator login password '…';
  create role tandem_writer login password '…';
  grant create on database NAME to tandem_migrator;
  grant create on schema public to tandem_migrator;

  DATABASE_URL=postgres://tandem_migrator:…@HOST/NAME tandem migrate --grant tandem_writer

and DATABASE_URL of functions and sources is postgres://tandem_writer:…@HOST/NAME.
Neither is a superuser. Instead of "create on database", the migrator may own its
schema: create schema tandem authorization tandem_migrator. "create on schema public"
is for the functions' tables; if they are elsewhere, set search_path for both roles:
alter role tandem_writer in database NAME set search_path = app.

Each function may have its own writing role. A cluster ends the session of another one that
hangs and holds a lock; for those of another role, the migrator must be a member of it:
create role tandem_writer login password '…' role tandem_migrator. --grant warns if it is
not.

--grant lets a role use schema tandem as functions and sources do, and select, insert,
update and delete in the tables that the migrations of functions have created. The
role cannot create, alter, drop or truncate anything, nor use other tables. The
statements are printed. Once is enough: later runs grant the role what they add. For
tables that no migration here has created, the owner must grant: select, insert,
update, delete. --revoke revokes all of these privileges, after the grants.

A source shows the lag of standby servers if the writing role may see them: grant
pg_monitor to tandem_writer, as a superuser. Nothing depends on it.`

// migration is one run of the command.
type migration struct {
	tool     *tool
	function functionFlags
	grants   []string
	revokes  []string
}

// migrated is the output of the command.
type migrated struct {
	Functions []program.Function `json:"functions"`
	Granted   []string           `json:"granted,omitempty"` // statements
	Revoked   []string           `json:"revoked,omitempty"`
	Warnings  []string           `json:"warnings,omitempty"`
}

func (t *tool) migrateCommand() *cobra.Command {
	m := &migration{tool: t, function: functionFlags{build: t.build}}
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Create and change the tables of Tandem and of a function",
		Long:  migrateHelp,
		Example: `  tandem migrate --grant tandem_writer
  tandem migrate --function ./orders
  tandem migrate --image registry.example.com/shop/orders@sha256:…`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := m.validate(); err != nil {
				return usage(cmd, err)
			}
			return m.run(cmd.Context())
		},
	}
	m.function.add(cmd)
	cmd.Flags().StringArrayVar(&m.grants, "grant", nil, "`role` that functions and sources log in as; may be repeated")
	cmd.Flags().StringArrayVar(&m.revokes, "revoke", nil, "`role` that loses all of these privileges; may be repeated")
	return cmd
}

func (m *migration) validate() error {
	if slices.Contains(m.grants, "") || slices.Contains(m.revokes, "") {
		return errors.New("--grant and --revoke: want the name of a role")
	}
	return m.function.validate()
}

func (m *migration) run(ctx context.Context) (err error) {
	url, err := m.tool.database()
	if err != nil {
		return err
	}
	function, err := m.function.open(ctx)
	if err != nil {
		return err
	}
	done := migrated{Functions: []program.Function{}}
	if function != nil {
		defer func() { err = errors.Join(err, function.Close()) }()
		d, err := function.Describe(ctx)
		if err != nil {
			return err
		}
		done.Functions = d.Functions
	}
	if err := schema.Migrate(ctx, url); err != nil {
		return err
	}
	if function != nil {
		if err := function.Migrate(ctx, url); err != nil {
			return err
		}
	}
	if !m.tool.output.json {
		m.tool.printf("-- migrated: %s\n", done.names())
	}
	for _, role := range m.grants {
		granted, err := schema.Grant(ctx, url, role)
		if err != nil {
			return err
		}
		done.Granted = append(done.Granted, granted.Statements...)
		done.Warnings = append(done.Warnings, granted.Warnings...)
		m.printSQL(granted.Statements, "role "+role+" has all the privileges that it needs")
		m.printNotes(granted.Warnings)
	}
	for _, role := range m.revokes {
		statements, err := schema.Revoke(ctx, url, role)
		if err != nil {
			return err
		}
		done.Revoked = append(done.Revoked, statements...)
		m.printSQL(statements, "role "+role+" had no privileges")
	}
	if m.tool.output.json {
		return m.tool.printJSON(done)
	}
	return nil
}

// names returns a list of the sets of migrations.
func (d *migrated) names() string {
	names := []string{"tandem"}
	for _, f := range d.Functions {
		names = append(names, fmt.Sprintf("%s %s", f.Name, f.Version))
	}
	return strings.Join(names, ", ")
}

// printSQL prints, unless the output is JSON, the executed statements.
func (m *migration) printSQL(statements []string, none string) {
	switch {
	case m.tool.output.json:
	case len(statements) == 0:
		m.tool.printf("-- %s\n", none)
	default:
		m.tool.printf("%s;\n", strings.Join(statements, ";\n"))
	}
}

func (m *migration) printNotes(warnings []string) {
	for _, warning := range warnings {
		if !m.tool.output.json {
			m.tool.printf("-- note: %s\n", warning)
		}
	}
}
