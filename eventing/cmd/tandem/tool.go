package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing/program"
)

// Exit codes.
const (
	exitFound  = 1 // the command worked and found a problem for an operator
	exitFailed = 2 // the command failed
)

// tool is one run of the program.
type tool struct {
	in       io.Reader
	out, err io.Writer
	env      func(name string) string

	// build builds the program of a folder; nil for program.Build.
	build func(ctx context.Context, folder string) (*program.Program, error)

	databaseURL, natsURL string
	output               format
}

// execute runs the command that args name and returns the exit code.
func (t *tool) execute(ctx context.Context, args []string) int {
	root := t.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var found *foundError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &found):
		if found.text != "" {
			_, _ = fmt.Fprintln(t.err, "tandem:", found.text)
		}
		return exitFound
	}
	_, _ = fmt.Fprintln(t.err, "tandem:", err)
	return exitFailed
}

// foundError is the error of a command that found a problem. Text, if any, is printed.
type foundError struct{ text string }

// Error returns the text.
func (e *foundError) Error() string { return e.text }

const help = `tandem is the tool of users and operators of Tandem.

It reads and changes the database and the streams that the clusters share. It
needs no access to a cluster, and it links no function: where a command needs
functions, it builds or runs their own program.`

const environmentHelp = `Environment:
  DATABASE_URL   the database, if --database-url is not set
  NATS_URL       the NATS servers, if --nats-url is not set

Exit status: 0 on success, 1 if the command found a problem that needs
an operator, 2 if it failed.`

// command returns the root with all commands.
func (t *tool) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "tandem",
		Short: "Migrate, operate and verify Tandem",
		Long:  help + "\n\n" + environmentHelp,
		Example: `  tandem migrate --grant tandem_writer
  tandem hedge orders
  tandem dead-letters list --verdict poison
  tandem event /shop 4711
  tandem verify --since 2h`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })
	flags := root.PersistentFlags()
	flags.StringVar(&t.databaseURL, "database-url", "", "`URL` of the database, for example postgres://USER:PASSWORD@HOST:5432/NAME (DATABASE_URL)")
	flags.StringVar(&t.natsURL, "nats-url", "", "`URL` of the NATS servers, for example nats://HOST:4222 (NATS_URL)")
	flags.VarP(&t.output, "output", "o", "`format` of the output: table, or json for one JSON object per line")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(t.migrateCommand(), t.hedgeCommand(), t.deadLettersCommand(), t.deferredCommand(), t.rejectedOutputsCommand(), t.eventCommand(), t.verifyCommand(), t.drillCommand(), t.startAtCommand(), t.retireCommand(), t.versionCommand())
	return root
}

// usage returns err with the command that prints the usage of cmd.
func usage(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
}

// noArguments rejects arguments, and names the subcommands if there are any.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasAvailableSubCommands():
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		return usage(cmd, fmt.Errorf("unknown command %q: want %s", args[0], strings.Join(names, ", ")))
	}
	return usage(cmd, fmt.Errorf("argument %q: want flags only", args[0]))
}

// functionURL returns the function's address in K_SINK, the first of several.
func (t *tool) functionURL() string {
	first, _, _ := strings.Cut(t.env("K_SINK"), ",")
	return strings.TrimSpace(first)
}
