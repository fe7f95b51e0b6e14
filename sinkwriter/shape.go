package sinkwriter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/tandem-fn/tandem/functions"
)

// tombstone is the column that marks deleted rows in tables whose deletes
// have a version.
const tombstone = "deleted"

// shape is one form of statement: an operation on some columns of a table.
// Consecutive writes of one shape are one statement.
type shape struct {
	op      functions.Op
	columns []int // of the table, those of the primary key first and in its order
	version int   // the column that versions are compared by; -1 if there is none
	keyed   bool  // the primary key is in the key of a write, not in its row
	mark    int   // the column that marks deleted rows; -1 if there is none
	deleted bool  // the value of mark
	lockSQL string
	sql     string
	oids    []uint32

	// plainSQL inserts without "on conflict". Fresh counts the rows that were inserted since
	// one already existed.
	plainSQL string
	fresh    atomic.Int64

	// early: the server may reject an upsert in one statement because of the offered row,
	// although the resulting row is allowed. Then a placing first inserts the rows that
	// are missing, and updateSQL updates the others.
	early     bool
	updateSQL string
}

// maxName is the maximum length of a name in PostgreSQL (NAMEDATALEN - 1).
const maxName = 63

// undefinedColumn is the SQLSTATE of a column that does not exist.
const undefinedColumn = "42703"

// missingColumn returns the error for the first column, by name, that w writes and t
// does not have, so that all events with that error have one fingerprint.
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

// fits reports whether a write of the table has the shape s of an earlier one.
func (s *shape) fits(t *table, w *functions.Write) bool {
	if s.op != w.Op || s.keyed != (w.Key != nil) || len(w.Key)+len(w.Row) != len(s.columns) ||
		(s.version < 0) != (w.Version == "") || s.version >= 0 && t.columns[s.version].name != w.Version {
		return false
	}
	key := w.Row
	if s.keyed {
		key = w.Key
	}
	for i, c := range s.columns {
		from := w.Row
		if i < len(t.key) {
			from = key
		}
		if _, ok := from[t.columns[c].name]; !ok {
			return false
		}
	}
	return true
}

// shapeOf returns the shape of a write, which is usually that of the write
// before.
func (t *table) shapeOf(w *functions.Write) (*shape, error) {
	if s := t.latest.Load(); s != nil && s.fits(t, w) {
		return s, nil
	}
	s, err := t.findShape(w)
	if err == nil {
		t.latest.Store(s)
	}
	return s, err
}

// findShape returns the shape of a write, and creates it if necessary.
func (t *table) findShape(w *functions.Write) (*shape, error) {
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
			return nil, &Error{Fault: FaultFunction, Column: name, Err: errors.New("a column of the primary key must be in the key, not in the row")}
		}
	}
	slices.Sort(columns[rest:])
	version := -1
	if w.Version != "" {
		c, ok := t.byName[w.Version]
		if !ok || !slices.Contains(columns[rest:], c) {
			return nil, &Error{Fault: FaultFunction, Column: w.Version, Err: errors.New("the version is not a column of the row, or it is part of the primary key")}
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
	columns = slices.Clone(columns)
	s, err := t.newShape(w.Op, columns, version, t.checksEarly(w.Op, columns))
	if err != nil {
		return nil, err
	}
	return t.keepShape(string(id), s), nil
}

// keepShape stores a shape under id, unless there is one, and returns the stored
// one.
func (t *table) keepShape(id string, s *shape) *shape {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.shapes[id]; known != nil {
		return known
	}
	t.shapes[id] = s
	return s
}

// earlyShape returns the variant of s that finds the row before it inserts one.
func (t *table) earlyShape(s *shape) (*shape, error) {
	if s.early || s.op == functions.OpDelete {
		return s, nil
	}
	id := append([]byte{0, byte(s.op), byte(s.version >> 8), byte(s.version)}, indexes(s.columns)...)
	t.mu.RLock()
	known := t.shapes[string(id)]
	t.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	early, err := t.newShape(s.op, s.columns, s.version, true)
	if err != nil {
		return nil, err
	}
	return t.keepShape(string(id), early), nil
}

// indexes encodes the numbers of columns, for the id of a shape.
func indexes(columns []int) []byte {
	id := make([]byte, 0, 2*len(columns))
	for _, c := range columns {
		id = append(id, byte(c>>8), byte(c))
	}
	return id
}

// checkKey returns an error unless the write addresses exactly one row.
func (t *table) checkKey(w *functions.Write) error {
	switch w.Op {
	case functions.OpInsert, functions.OpReplace, functions.OpNewest, functions.OpOldest, functions.OpMax, functions.OpMin:
		for _, c := range t.key {
			if _, ok := w.Row[t.columns[c].name]; !ok {
				return &Error{Fault: FaultFunction, Column: t.columns[c].name, Err: errors.New("the row lacks a column of the primary key")}
			}
		}
		if (w.Op == functions.OpNewest || w.Op == functions.OpOldest) && w.Version == "" {
			return &Error{Fault: FaultFunction, Err: errors.New("newest-wins or oldest-wins has no version column")}
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

// rows returns the table's reference in a statement that finds rows by their key. It
// excludes tables that inherit from it, because these have keys of their own.
func (t *table) rows() string {
	if t.inherited {
		return "only " + t.quoted
	}
	return t.quoted
}
