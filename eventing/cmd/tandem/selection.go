package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// selection is shared by the commands that select events or outputs: how many, and
// whether all.
type selection struct {
	tool  *tool
	noun  string // the selected items, in the plural
	title string // the title of a list, as in "no dead letters"

	all   bool
	limit int
	check bool
}

// flags adds the flags of a selection, with the default of its limit; math.MaxInt is for
// commands that change all selected items.
func (s *selection) flags(flags *pflag.FlagSet, limit int) {
	flags.IntVar(&s.limit, "limit", limit, "maximum `number` of "+s.noun+", the oldest first")
	if limit == math.MaxInt {
		flags.Lookup("limit").DefValue = "0" // 0 is not printed
		flags.BoolVar(&s.all, "all", false, "all "+s.noun)
	}
}

// validate returns the error in the flags. Filtered reports whether another flag
// selects items.
func (s *selection) validate(command string, filtered bool) error {
	switch {
	case s.limit < 1:
		return fmt.Errorf("--limit %d: want at least 1", s.limit)
	case s.all && filtered:
		return errors.New("--all and another flag that selects " + s.noun + ": want one of them")
	case (command == "replay" || command == "run" || command == "drop") && !s.all && !filtered:
		return fmt.Errorf("which %s to %s: want --function, --id or another flag that selects %s, or --all", s.noun, command, s.noun)
	}
	return nil
}

// wire makes cmd validate its flags, connect to the database, and run.
func (s *selection) wire(cmd *cobra.Command, validate func(command string) error, run func(context.Context, *databasePool) error) *cobra.Command {
	cmd.Args = noArguments
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := validate(cmd.Name()); err != nil {
			return usage(cmd, err)
		}
		pool, err := s.tool.openDatabase(cmd.Context())
		if err != nil {
			return err
		}
		defer pool.Close()
		return explain(run(cmd.Context(), pool))
	}
	return cmd
}

// eachPage calls do with the listed items, a page at a time, up to the limit of the
// selection. Do may delete them.
func eachPage[T any](s *selection, list func(after *T, limit int) ([]T, error), do func([]T) error) error {
	const page = 100
	var after *T
	for rest := s.limit; rest > 0; {
		items, err := list(after, min(page, rest))
		if err != nil || len(items) == 0 {
			return err
		}
		if err := do(items); err != nil {
			return err
		}
		rest -= len(items)
		after = &items[len(items)-1]
	}
	return nil
}

// endList ends a list of n rows.
func (s *selection) endList(table *tabwriter.Writer, n int) error {
	if err := table.Flush(); err != nil {
		return err
	}
	if err := s.printEnd(n); err != nil {
		return err
	}
	if s.check && n > 0 {
		return &foundError{}
	}
	return nil
}

// printEnd prints, unless the output is JSON, whether the list is empty or may
// continue.
func (s *selection) printEnd(n int) error {
	switch {
	case s.tool.output.json:
	case n == 0:
		return s.tool.print("no %s\n", s.title)
	case n == s.limit:
		return s.tool.print("… the first %d; see more with --limit\n", n)
	}
	return nil
}
