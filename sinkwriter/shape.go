package sinkwriter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

// tombstone is the column that marks a row as deleted where deletes have a
// version.
const tombstone = "deleted"

// shape is one form of statement: an operation on some columns of a table. All
// writes of a shape that come one after the other are one statement.
type shape struct {
	op      functions.Op
	columns []int // of the table, those of the primary key first and in its order
	version int   // the column that is compared, -1 for none
	lockSQL string
	sql     string
	oids    []uint32
}

// maxName is the length of the longest name of PostgreSQL (NAMEDATALEN - 1).
const maxName = 63

// undefinedColumn is the SQLSTATE of a column that does not exist.
const undefinedColumn = "42703"

// missingColumn returns the error about the first column, by name, that w writes and t
// lacks, so that all events that lack it have one fingerprint.
func (t *table) missingColumn(w *functions.Write) error {
	for _, name := range slices.Sorted(maps.Keys(w.Row)) {
		if _, ok := t.byName[name]; !ok {
			reason := "the table has no such column: run the migrations"
			if len(name) > maxName {
				reason = fmt.Sprintf("the name is longer than the %d bytes that PostgreSQL keeps of one", maxName)
			}
			return &Error{Fault: FaultDeployment, code: undefinedColumn, Column: name, Err: errors.New(reason)}
		}
	}
	return nil
}

// shapeOf finds or makes the shape of a write.
func (t *table) shapeOf(w *functions.Write) (*shape, error) {
	var space [64]byte
	id := append(space[:0], byte(w.Op))
	var colSpace [32]int
	columns := append(colSpace[:0], t.key...)
	rest := len(columns)

	if err := t.checkKey(w); err != nil {
		return nil, err
	}
	if err := t.unwritable(w); err != nil {
		return nil, err
	}
	for name := range w.Row {
		c, ok := t.byName[name]
		if !ok {
			return nil, t.missingColumn(w)
		}
		if !t.columns[c].inKey {
			columns = append(columns, c)
		} else if w.Key != nil {
			return nil, &Error{Fault: FaultFunction, Column: name, Err: errors.New("a column of the primary key belongs into the key")}
		}
	}
	slices.Sort(columns[rest:])
	version := -1
	if w.Version != "" {
		c, ok := t.byName[w.Version]
		if !ok || !slices.Contains(columns[rest:], c) {
			return nil, &Error{Fault: FaultFunction, Column: w.Version, Err: errors.New("the version is no column of the row, or is part of the primary key")}
		}
		version = c
	}
	for _, c := range columns {
		id = append(id, byte(c>>8), byte(c))
	}
	id = append(id, byte(version>>8), byte(version))

	t.mu.RLock()
	s := t.shapes[string(id)]
	t.mu.RUnlock()
	if s != nil {
		return s, nil
	}
	s, err := t.newShape(w.Op, slices.Clone(columns), version)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.shapes[string(id)]; known != nil {
		return known, nil
	}
	t.shapes[string(id)] = s
	return s, nil
}

// checkKey sees to it that a write addresses one row.
func (t *table) checkKey(w *functions.Write) error {
	switch w.Op {
	case functions.OpInsert, functions.OpReplace, functions.OpNewest:
		for _, c := range t.key {
			if _, ok := w.Row[t.columns[c].name]; !ok {
				return &Error{Fault: FaultFunction, Column: t.columns[c].name, Err: errors.New("the row lacks a column of the primary key")}
			}
		}
		if w.Op == functions.OpNewest && w.Version == "" {
			return &Error{Fault: FaultFunction, Err: errors.New("newest-wins has no version column")}
		}
		return nil
	case functions.OpAdd, functions.OpDelete, functions.OpDeleteNewest:
		if len(w.Key) != len(t.key) {
			return &Error{Fault: FaultFunction, Err: fmt.Errorf("the key has %d columns, the primary key %d", len(w.Key), len(t.key))}
		}
		for name := range w.Key {
			if c, ok := t.byName[name]; !ok || !t.columns[c].inKey {
				return &Error{Fault: FaultFunction, Column: name, Err: errors.New("the column is not part of the primary key")}
			}
		}
		if w.Op == functions.OpAdd && len(w.Row) == 0 {
			return &Error{Fault: FaultFunction, Err: errors.New("there is nothing to add")}
		}
		return nil
	default:
		return &Error{Fault: FaultFunction, Err: fmt.Errorf("there is no operation %d", w.Op)}
	}
}

// rows returns the table as it stands in a statement that finds rows by their key: without
// those of tables that inherit from it, which have keys of their own.
func (t *table) rows() string {
	if t.inherited {
		return "only " + t.quoted
	}
	return t.quoted
}

// newShape writes the SQL. Rows are addressed by the primary key alone, and SET
// names no column of it: that would lock out inserts of rows that refer to them.
func (t *table) newShape(op functions.Op, columns []int, version int) (*shape, error) {
	s := &shape{op: op, columns: columns, version: version}
	var names, values, arrays, aliases, elements, key, set, stored, offered []string
	for i, c := range columns {
		col := &t.columns[c]
		name, alias := quoteIdent(col.name), "c"+strconv.Itoa(i)
		names = append(names, name)
		values = append(values, "u."+alias+col.cast)
		arrays = append(arrays, "$"+strconv.Itoa(i+1))
		aliases = append(aliases, alias)
		elements = append(elements, "unnest("+arrays[i]+")"+col.cast)
		s.oids = append(s.oids, col.arrayOID)
		switch {
		case i < len(t.key):
			key = append(key, name)
		case op == functions.OpAdd:
			set = append(set, name+" = coalesce(t."+name+", 0) + excluded."+name)
		default:
			set = append(set, name+" = excluded."+name)
			stored, offered = append(stored, "t."+name), append(offered, "excluded."+name)
		}
	}
	list := func(parts []string) string { return strings.Join(parts, ", ") }
	unnest := "unnest(" + list(arrays) + ")"

	if op == functions.OpDelete {
		var on []string
		for i := range key {
			on = append(on, "t."+key[i]+" = "+values[i])
		}
		match := strings.Join(on, " and ")
		from := unnest + " with ordinality as u(" + list(append(slices.Clone(aliases), "n")) + ")"
		// The rows are locked in order, and then only those are deleted: one that
		// appears in between would be locked out of order. The setting ends with
		// the transaction; it is how one statement tells the next.
		s.lockSQL = "select set_config('tandem.locked', coalesce(array_agg(l.n)::text, '{}'), true) from (select u.n from " + from +
			" join " + t.rows() + " as t on " + match + " order by u.n for update of t) as l"
		s.sql = "delete from " + t.rows() + " as t using " + from + " join unnest(nullif(current_setting('tandem.locked', true), '')::bigint[]) as l(n) on l.n = u.n where " + match
		return s, nil
	}

	action, marks := "nothing", ""
	dead, hasTombstone := t.byName[tombstone]
	switch op {
	case functions.OpAdd, functions.OpReplace:
		if len(set) > 0 {
			action = "update set " + list(set)
		}
	case functions.OpNewest, functions.OpDeleteNewest:
		name := quoteIdent(t.columns[version].name)
		newer := "t." + name + " is null or excluded." + name + " > t." + name
		if op == functions.OpDeleteNewest {
			if !hasTombstone || t.columns[dead].oid != pgtype.BoolOID {
				return nil, &Error{Fault: FaultDeployment, code: undefinedColumn, Column: tombstone, Err: errors.New("a delete with a version needs a boolean column of this name: add it")}
			}
			names, elements = append(names, quoteIdent(tombstone)), append(elements, "true")
			set = append(set, quoteIdent(tombstone)+" = true")
			newer += " or excluded." + name + " = t." + name
		} else {
			tie := "excluded." + name + " = t." + name +
				" and row(" + list(offered) + `)::text collate "C" > row(` + list(stored) + `)::text collate "C"`
			if hasTombstone && !slices.Contains(columns, dead) {
				set = append(set, quoteIdent(tombstone)+" = false")
				tie += " and t." + quoteIdent(tombstone) + " is not true"
			}
			newer += " or " + tie
		}
		action, marks = "update set "+list(set), " where "+newer
	default:
	}
	s.sql = "insert into " + t.quoted + " as t (" + list(names) + ") select " + list(elements) +
		" on conflict (" + list(key) + ") do " + action + marks
	return s, nil
}
