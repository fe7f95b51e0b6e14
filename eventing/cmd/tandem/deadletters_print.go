package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
)

func (d *letters) list(ctx context.Context) error {
	table := tabwriter.NewWriter(d.tool.out, 0, 0, 2, ' ', 0)
	n := 0
	err := d.each(ctx, func(list []deadletter.Event) error {
		for _, e := range list {
			n++
			if d.tool.output.json {
				if err := d.tool.printJSON(e); err != nil {
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
	if err != nil {
		return err
	}
	return d.endList(table, n)
}

// shown is an event with all its dead letters.
type shown struct {
	deadletter.Event
	Letters []deadletter.ClusterLetter `json:"letters"`
}

func (d *letters) show(ctx context.Context) error {
	n := 0
	err := d.each(ctx, func(list []deadletter.Event) error {
		for _, e := range list {
			letters, err := d.verdicts.Read(ctx, e.Function, e.Source, e.ID)
			if errors.Is(err, deadletter.ErrNotFound) {
				continue // deleted since it was listed
			}
			if err != nil {
				return err
			}
			n++
			if d.tool.output.json {
				err = d.tool.printJSON(shown{Event: e, Letters: letters})
			} else {
				err = d.printEvent(e, letters)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return d.printEnd(n)
}

// printEvent prints the answer that each cluster received, and the latest stored copy
// of the event.
func (d *letters) printEvent(e deadletter.Event, letters []deadletter.ClusterLetter) error {
	d.tool.printf("%s  %s  %s  %s\n", e.Verdict, e.Function, e.Source, e.ID)
	table := tabwriter.NewWriter(d.tool.out, 0, 0, 2, ' ', 0)
	row(table, "  CLUSTER", "CODE", "ATTEMPTS", "TIMES", "FIRST", "LAST")
	for _, l := range letters {
		row(table, "  "+l.Cluster, number(int64(l.Code)), number(l.Attempts), strconv.FormatInt(l.Times, 10),
			l.FirstAt.UTC().Format(time.RFC3339), l.LastAt.UTC().Format(time.RFC3339))
	}
	// The last line returns the error of a failed write.
	if err := table.Flush(); err != nil {
		return err
	}
	for _, l := range letters {
		d.tool.printf("  %s: %s\n", l.Cluster, l.Reason)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, letters[0].Event, "  ", "  "); err != nil {
		return fmt.Errorf("event %s of %s: %w", e.ID, e.Source, err)
	}
	_, err := fmt.Fprintf(d.tool.out, "  %s\n\n", pretty.Bytes())
	return err
}
