package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tandem-fn/tandem/sinkwriter"
)

// maxCell bounds what a table shows of a text, in runes.
const maxCell = 60

func (d desk) list(ctx context.Context) error {
	table := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	n := 0
	err := d.each(ctx, func(list []sinkwriter.DeadEvent) error {
		for _, e := range list {
			n++
			if d.opts.json {
				if err := d.printJSON(e); err != nil {
					return err
				}
				continue
			}
			if n == 1 {
				row(table, "VERDICT", "FUNCTION", "CODE", "CLUSTERS", "ATTEMPTS", "LAST", "SOURCE", "ID", "REASON")
			}
			row(table, e.Verdict, e.Function, number(int64(e.Code)), strings.Join(e.Clusters, ","), number(e.Attempts),
				e.LastAt.UTC().Format(time.RFC3339), e.Source, e.ID, e.Reason)
		}
		return nil
	})
	switch {
	case err != nil || d.opts.json:
		return err
	case n == 0:
		_, err = io.WriteString(d.out, "no dead letters\n")
		return err
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if n == d.opts.limit {
		_, err = fmt.Fprintf(d.out, "… the first %d; more with --limit\n", n)
	}
	return err
}

// shown is an event with all its letters.
type shown struct {
	sinkwriter.DeadEvent
	Letters []sinkwriter.ClusterLetter `json:"letters"`
}

func (d desk) show(ctx context.Context) error {
	n := 0
	err := d.each(ctx, func(list []sinkwriter.DeadEvent) error {
		for _, e := range list {
			letters, err := d.verdicts.Read(ctx, e.Function, e.Source, e.ID)
			if errors.Is(err, sinkwriter.ErrNoDeadLetter) {
				continue // gone since it was listed
			}
			if err != nil {
				return err
			}
			n++
			if d.opts.json {
				err = d.printJSON(shown{DeadEvent: e, Letters: letters})
			} else {
				err = d.printEvent(e, letters)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil || d.opts.json:
		return err
	case n == 0:
		_, err = io.WriteString(d.out, "no dead letters\n")
	case n == d.opts.limit:
		_, err = fmt.Fprintf(d.out, "… the first %d; more with --limit\n", n)
	}
	return err
}

// printEvent prints what each cluster said, and the event as the last one had it.
func (d desk) printEvent(e sinkwriter.DeadEvent, letters []sinkwriter.ClusterLetter) error {
	_, _ = fmt.Fprintf(d.out, "%s  %s  %s  %s\n", e.Verdict, e.Function, e.Source, e.ID)
	table := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	row(table, "  CLUSTER", "CODE", "ATTEMPTS", "TIMES", "FIRST", "LAST")
	for _, l := range letters {
		row(table, "  "+l.Cluster, number(int64(l.Code)), number(l.Attempts), strconv.FormatInt(l.Times, 10),
			l.FirstAt.UTC().Format(time.RFC3339), l.LastAt.UTC().Format(time.RFC3339))
	}
	// Whether anybody reads it is found out with the last line.
	if err := table.Flush(); err != nil {
		return err
	}
	for _, l := range letters {
		_, _ = fmt.Fprintf(d.out, "  %s said: %s\n", l.Cluster, l.Reason)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, letters[0].Event, "  ", "  "); err != nil {
		return fmt.Errorf("event %s of %s: %w", e.ID, e.Source, err)
	}
	_, err := fmt.Fprintf(d.out, "  %s\n\n", pretty.Bytes())
	return err
}

func (d desk) printJSON(v any) error {
	encoder := json.NewEncoder(d.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// row writes a row of a table.
func row(table io.Writer, cells ...string) {
	for i, cell := range cells {
		cells[i] = clip(cell)
	}
	_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
}

// clip makes a text fit for a table's cell.
func clip(text string) string {
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > maxCell {
		runes = append(runes[:maxCell-1], '…')
	}
	return indent + string(runes)
}

// number shows 0 as unknown.
func number(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}
