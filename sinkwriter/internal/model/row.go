package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tandem-fn/tandem/functions"
)

// Row is a row as it is stored: int64, string, bool, or nil for NULL. A nil Row
// does not exist.
type Row map[string]any

// tombstone is the column that a delete with a version sets.
const tombstone = "deleted"

// table is the part of a table's definition that the model needs to write to it.
type table struct {
	key     []string
	columns []string // in the order of the table, the key's first
}

func (t table) has(column string) bool { return slices.Contains(t.columns, column) }

// apply returns a row after a write, following the documentation of
// functions.Effects.
func (t table) apply(row Row, w functions.Write) Row {
	given := Row{}
	for _, part := range []functions.Row{w.Key, w.Row} {
		for name, v := range part {
			given[name] = plain(v)
		}
	}
	switch w.Op {
	case functions.OpDelete:
		return nil
	case functions.OpInsert:
		if row != nil {
			return row
		}
	case functions.OpAdd:
		if row == nil {
			break
		}
		for name := range w.Row {
			before, _ := row[name].(int64)
			amount, _ := given[name].(int64)
			given[name] = before + amount
		}
	case functions.OpMax, functions.OpMin:
		for name := range w.Row {
			if before := row[name]; before != nil && !slices.Contains(t.key, name) && !beyond(given[name], before, w.Op == functions.OpMin) {
				given[name] = before
			}
		}
	case functions.OpOldest:
		if row != nil && !t.older(row, given, w) {
			return row
		}
	case functions.OpNewest, functions.OpDeleteNewest:
		if row != nil && !t.newer(row, given, w) {
			return row
		}
		if w.Op == functions.OpDeleteNewest {
			given[tombstone] = true
		} else if _, said := given[tombstone]; !said && t.has(tombstone) {
			given[tombstone] = false
		}
	default:
	}
	if row == nil {
		row = t.empty()
	}
	row = maps.Clone(row)
	maps.Copy(row, given)
	return row
}

// newer reports whether a write under newest-wins takes effect on a row.
func (t table) newer(row, given Row, w functions.Write) bool {
	stored, ok := row[w.Version].(int64)
	offered, _ := given[w.Version].(int64)
	switch {
	case !ok, offered > stored:
		return true
	case offered < stored:
		return false
	case w.Op == functions.OpDeleteNewest:
		return true
	}
	if said, before := given[tombstone] == true, row[tombstone] == true; said != before {
		return said
	}
	return t.greater(row, given, w)
}

// older reports whether a write under oldest-wins takes effect on a row.
func (t table) older(row, given Row, w functions.Write) bool {
	stored, ok := row[w.Version].(int64)
	offered, _ := given[w.Version].(int64)
	return !ok || offered < stored || offered == stored && t.greater(row, given, w)
}

// beyond reports whether a value is greater than another, or less.
func beyond(value, other any, less bool) bool {
	a, aIsNumber := value.(int64)
	b, bIsNumber := other.(int64)
	order := strings.Compare(fmt.Sprint(value), fmt.Sprint(other))
	if aIsNumber && bIsNumber {
		order = cmp.Compare(a, b)
	}
	return value != nil && order != 0 && (order < 0) == less
}

// greater reports whether the offered row is greater than the stored one, by its
// text.
func (t table) greater(row, given Row, w functions.Write) bool {
	var a, b []any
	for _, name := range t.columns {
		if _, ok := w.Row[name]; ok && !slices.Contains(t.key, name) {
			a, b = append(a, given[name]), append(b, row[name])
		}
	}
	return recordText(a) > recordText(b)
}

func (t table) empty() Row {
	row := Row{}
	for _, name := range t.columns {
		row[name] = nil
	}
	if t.has(tombstone) {
		row[tombstone] = false
	}
	return row
}

// plain returns a value as it is read back.
func plain(v any) any {
	switch v := v.(type) {
	case int:
		return int64(v)
	case int32:
		return int64(v)
	case int16:
		return int64(v)
	}
	return v
}

// recordText formats values as PostgreSQL's record_out does.
func recordText(values []any) string {
	var b strings.Builder
	b.WriteByte('(')
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		switch v := v.(type) {
		case nil:
		case bool:
			b.WriteString(strconv.FormatBool(v)[:1])
		case string:
			if v != "" && !strings.ContainsAny(v, "\"\\(), \t\n\r\v\f") {
				b.WriteString(v)
				continue
			}
			b.WriteByte('"')
			b.WriteString(strings.NewReplacer(`"`, `""`, `\`, `\\`).Replace(v))
			b.WriteByte('"')
		default:
			fmt.Fprint(&b, v)
		}
	}
	b.WriteByte(')')
	return b.String()
}
