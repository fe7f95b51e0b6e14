package sinkwriter

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

// shape is one form of statement: an operation on some columns of a table. All
// writes of a shape that come one after the other are one statement.
type shape struct {
	op      functions.Op
	columns []int // of the table, those of the primary key first and in its order
	sql     string
	oids    []uint32
}

// planned is one write with its values encoded.
type planned struct {
	table  *table
	shape  *shape
	offer  *offer
	values []span // by the shape's columns
}

// plan turns the writes of many offers into few statements, in the one order
// that all writers keep.
type plan struct {
	types  *pgtype.Map
	arena  []byte
	writes []planned
}

// add encodes the writes of an offer.
func (p *plan) add(o *offer, tables map[string]*table) error {
	for i := range o.effects.Writes {
		w := &o.effects.Writes[i]
		t := tables[w.Table]
		s, err := t.shapeOf(w)
		if err == nil {
			err = p.encode(o, t, s, w)
		}
		if err != nil {
			var known *Error
			if !errors.As(err, &known) {
				known = &Error{Fault: FaultEvent, Err: err}
			}
			known.Function, known.Table = o.function, w.Table
			return &offerError{offer: o, err: known}
		}
	}
	return nil
}

func (p *plan) encode(o *offer, t *table, s *shape, w *functions.Write) error {
	values := make([]span, len(s.columns))
	for i, c := range s.columns {
		col := &t.columns[c]
		v, ok := w.Row[col.name]
		if w.Op == functions.OpAdd && i < len(t.key) {
			v, ok = w.Key[col.name]
		}
		if !ok {
			v = nil
		}
		var err error
		if p.arena, values[i], err = appendValue(p.types, p.arena, col, v); err != nil {
			return &Error{Fault: FaultEvent, Column: col.name, Err: err}
		}
		if col.inKey && values[i] == null {
			return &Error{Fault: FaultEvent, Column: col.name, Err: errors.New("the primary key is NULL")}
		}
	}
	p.writes = append(p.writes, planned{table: t, shape: s, offer: o, values: values})
	return nil
}

// steps sorts and folds the writes and gives the statements.
func (p *plan) steps() []step {
	slices.SortStableFunc(p.writes, func(a, b planned) int {
		if a.table != b.table {
			return cmp.Or(cmp.Compare(a.table.rank, b.table.rank), cmp.Compare(a.table.oid, b.table.oid))
		}
		return p.compareKeys(&a, &b)
	})
	writes := p.fold(p.writes)

	var steps []step
	for from := 0; from < len(writes); {
		to := from + 1
		for to < len(writes) && writes[to].shape == writes[from].shape && p.compareKeys(&writes[to], &writes[to-1]) != 0 {
			to++
		}
		steps = append(steps, p.step(writes[from:to]))
		from = to
	}
	return steps
}

func (p *plan) compareKeys(a, b *planned) int {
	for i := range a.table.key {
		x, y := a.values[i], b.values[i]
		if c := bytes.Compare(p.arena[x.from:x.to], p.arena[y.from:y.to]); c != 0 {
			return c
		}
	}
	return 0
}

// fold makes one write of several on the same row where that gives the same.
// The writes are sorted by table and key.
func (p *plan) fold(writes []planned) []planned {
	out := writes[:0]
	for _, w := range writes {
		if n := len(out); n > 0 && out[n-1].shape == w.shape && p.compareKeys(&out[n-1], &w) == 0 {
			switch w.shape.op {
			case functions.OpInsert:
				continue // the first write has won
			case functions.OpAdd:
				if p.foldAdd(&out[n-1], &w) {
					continue
				}
			}
		}
		out = append(out, w)
	}
	return out
}

func (p *plan) foldAdd(into, w *planned) bool {
	key := len(w.table.key)
	sums := make([]span, len(w.values))
	copy(sums, into.values[:key])
	for i := key; i < len(w.values); i++ {
		var ok bool
		if p.arena, sums[i], ok = add(p.arena, &w.table.columns[w.shape.columns[i]], into.values[i], w.values[i]); !ok {
			return false
		}
	}
	into.values = sums
	return true
}

// step is the statement for a run of writes of one shape.
func (p *plan) step(run []planned) step {
	s, t := run[0].shape, run[0].table
	params := make([][]byte, len(s.columns))
	for c := range s.columns {
		size := 20
		for i := range run {
			size += 4 + max(0, run[i].values[c].to-run[i].values[c].from)
		}
		params[c] = appendArray(make([]byte, 0, size), t.columns[s.columns[c]].elemOID, len(run), func(i int) ([]byte, bool) {
			v := run[i].values[c]
			if v == null {
				return nil, true
			}
			return p.arena[v.from:v.to], false
		})
	}
	return step{sql: s.sql, oids: s.oids, params: params, table: t.name}
}

// shapeOf finds or makes the shape of a write.
func (t *table) shapeOf(w *functions.Write) (*shape, error) {
	var space [64]byte
	id := append(space[:0], byte(w.Op))
	var colSpace [32]int
	columns := append(colSpace[:0], t.key...)
	rest := len(columns)

	switch w.Op {
	case functions.OpInsert:
		for _, c := range t.key {
			if _, ok := w.Row[t.columns[c].name]; !ok {
				return nil, &Error{Fault: FaultFunction, Column: t.columns[c].name, Err: errors.New("the row lacks a column of the primary key")}
			}
		}
	case functions.OpAdd:
		if len(w.Key) != len(t.key) {
			return nil, &Error{Fault: FaultFunction, Err: fmt.Errorf("the key has %d columns, the primary key %d", len(w.Key), len(t.key))}
		}
		for name := range w.Key {
			if c, ok := t.byName[name]; !ok || !t.columns[c].inKey {
				return nil, &Error{Fault: FaultFunction, Column: name, Err: errors.New("the column is not part of the primary key")}
			}
		}
		if len(w.Row) == 0 {
			return nil, &Error{Fault: FaultFunction, Err: errors.New("there is nothing to add")}
		}
	default:
		return nil, &Error{Fault: FaultFunction, Err: fmt.Errorf("there is no operation %d", w.Op)}
	}
	for name := range w.Row {
		c, ok := t.byName[name]
		if !ok {
			return nil, &Error{Fault: FaultDeployment, Column: name, Err: errors.New("the table has no such column: run the migrations")}
		}
		if !t.columns[c].inKey {
			columns = append(columns, c)
		} else if w.Op == functions.OpAdd {
			return nil, &Error{Fault: FaultFunction, Column: name, Err: errors.New("a column of the primary key cannot be added to")}
		}
	}
	slices.Sort(columns[rest:])
	for _, c := range columns {
		id = append(id, byte(c>>8), byte(c))
	}

	t.mu.RLock()
	s := t.shapes[string(id)]
	t.mu.RUnlock()
	if s != nil {
		return s, nil
	}
	s = t.newShape(w.Op, slices.Clone(columns))
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.shapes[string(id)]; known != nil {
		return known, nil
	}
	t.shapes[string(id)] = s
	return s, nil
}

func (t *table) newShape(op functions.Op, columns []int) *shape {
	s := &shape{op: op, columns: columns}
	var names, values, arrays, aliases, conflict, set []string
	for i, c := range columns {
		col := &t.columns[c]
		name, alias := quoteIdent(col.name), "c"+strconv.Itoa(i)
		names = append(names, name)
		values = append(values, "u."+alias+col.cast)
		arrays = append(arrays, "$"+strconv.Itoa(i+1))
		aliases = append(aliases, alias)
		s.oids = append(s.oids, col.arrayOID)
		if i < len(t.key) {
			conflict = append(conflict, name)
		} else {
			set = append(set, name+" = coalesce(t."+name+", 0) + excluded."+name)
		}
	}
	action := "nothing"
	if op == functions.OpAdd {
		action = "update set " + strings.Join(set, ", ")
	}
	list := func(parts []string) string { return strings.Join(parts, ", ") }
	s.sql = "insert into " + t.quoted + " as t (" + list(names) + ") select " + list(values) +
		" from unnest(" + list(arrays) + ") as u(" + list(aliases) + ") on conflict (" + list(conflict) + ") do " + action
	return s
}
