package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/snapshot"
)

// rowPortion is the number of rows compared at a time.
const rowPortion = 500

// table is a table that functions write to.
type table struct {
	*snapshot.Table
	rows map[string]*row // by their keys, as encoded here
}

// encode encodes values as JSON from which the server parses values of the columns'
// types.
func (t *table) encode(values functions.Row) ([]byte, error) {
	object := make(map[string]any, len(values))
	for name, value := range values {
		object[name] = t.plain(name, value)
	}
	return json.Marshal(object)
}

func (t *table) plain(column string, value any) any {
	isJSON := t.Types[column] == "json" || t.Types[column] == "jsonb"
	switch v := value.(type) {
	case []byte:
		switch {
		case isJSON:
			return json.RawMessage(v)
		case t.Types[column] == "bytea":
			return `\x` + hex.EncodeToString(v)
		}
		return string(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	case [16]byte:
		return hex.EncodeToString(v[:])
	}
	return value
}

// compareRows compares all tables with the expected rows.
func (a *audit) compareRows(ctx context.Context) error {
	a.report.unchecked("writes by a function's own statements", a.expected.statements)
	complete := a.report.Complete && !a.expected.holes
	for _, t := range a.expected.tables {
		// Keys as the server encodes them.
		there := map[string]bool{}
		groups := map[string][]*row{}
		for _, r := range t.rows {
			if r.deleted && r.written {
				a.report.unchecked("rows written and deleted by events without a version", 1)
				continue
			}
			if r.deleted {
				continue
			}
			var names []string
			for name, c := range r.cells {
				if _, ok := c.certain(complete); ok {
					names = append(names, name)
				} else {
					a.report.unchecked("columns whose value depends on more than the events read", 1)
				}
			}
			slices.Sort(names)
			shape := strings.Join(names, "\x00")
			groups[shape] = append(groups[shape], r)
		}
		for shape, rows := range groups {
			var names []string
			if shape != "" {
				names = strings.Split(shape, "\x00")
			}
			for part := range slices.Chunk(rows, rowPortion) {
				if err := a.comparePart(ctx, t, names, part, complete, there); err != nil {
					return fmt.Errorf("table %s: %w", t.Name, err)
				}
			}
		}
		if !complete {
			a.report.unchecked("whether tables have more rows than events explain", 1)
			continue
		}
		if err := a.lookForExtraRows(ctx, t, there); err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	return nil
}

// comparePart compares rows in which the same columns are certain.
func (a *audit) comparePart(ctx context.Context, t *table, names []string, part []*row, complete bool, there map[string]bool) error {
	want := make([]json.RawMessage, len(part))
	for i, r := range part {
		values := functions.Row{}
		for name, value := range r.key {
			values[name] = value
		}
		for _, name := range names {
			values[name], _ = r.cells[name].certain(complete)
		}
		var err error
		if want[i], err = t.encode(values); err != nil {
			return err
		}
	}
	return a.database.Compare(ctx, t.Table, names, want, func(c snapshot.Comparison) {
		a.report.Rows++
		finding := Finding{Thing: Row, Table: t.Name, Key: c.Key}
		switch {
		case !c.Found:
			finding.Kind, finding.Detail = Missing, fmt.Sprintf("should be %s", want[c.N-1])
		case len(c.Differ) > 0:
			finding.Kind = Different
			finding.Detail = fmt.Sprintf("%s: is %s, should be %s", strings.Join(c.Differ, ", "), c.Is, want[c.N-1])
		}
		if finding.Kind != "" {
			a.report.add(a.Limit, finding)
		}
		there[string(c.Key)] = true
	})
}

func (a *audit) lookForExtraRows(ctx context.Context, t *table, there map[string]bool) error {
	return a.database.EachRow(ctx, t.Table, func(key, is []byte) {
		if !there[string(key)] {
			a.report.add(a.Limit, Finding{Kind: Extra, Thing: Row, Table: t.Name, Key: key, Detail: fmt.Sprintf("no event explains %s", is)})
		}
	})
}
