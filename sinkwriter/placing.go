package sinkwriter

import (
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

// place inserts the rows that are missing and locks the others, and then changes the
// existing ones, with one statement for each shape.
func (p *plan) place(writes []planned) {
	t := writes[0].table
	columns := slices.Clone(t.key)
	deletes, inserts := false, false
	for i := range writes {
		s := writes[i].shape
		if i > 0 && s == writes[i-1].shape {
			continue
		}
		if s.op == functions.OpDelete {
			deletes = true
			continue
		}
		inserts = true
		for _, c := range s.tuple() {
			if !slices.Contains(columns, c) {
				columns = append(columns, c)
			}
		}
	}
	if !inserts {
		p.runs(writes)
		return
	}
	slices.Sort(columns[len(t.key):])
	placing := t.placingOf(columns, deletes)
	params := make([][]byte, len(columns), len(columns)+1)
	for n, c := range columns {
		params[n] = p.column(t.columns[c].elemOID, len(writes), func(i int) span { return p.valueOf(&writes[i], n, c) })
	}
	if deletes {
		params = append(params, appendArray(nil, pgtype.BoolOID, len(writes), func(i int) ([]byte, bool) {
			return boolean(writes[i].shape.op == functions.OpDelete), false
		}))
	}
	p.steps = append(p.steps, step{sql: placing.sql, oids: placing.oids, params: params, table: t.name, partitioned: t.partitioned, effect: true})

	var done []*shape
	for i := range writes {
		if s := writes[i].shape; s.updateSQL != "" && !slices.Contains(done, s) {
			done = append(done, s)
			p.updatePlaced(writes, s)
		}
	}
}

// updatePlaced adds the statement that applies the writes of a shape to the rows that a
// placing has found.
func (p *plan) updatePlaced(writes []planned, s *shape) {
	t := writes[0].table
	var numbers []int // of the rows, starting at 1
	for i := range writes {
		if writes[i].shape == s {
			numbers = append(numbers, i+1)
		}
	}
	params := make([][]byte, len(s.columns), len(s.columns)+1)
	for c := range s.columns {
		params[c] = p.column(t.columns[s.columns[c]].elemOID, len(numbers), func(i int) span { return writes[numbers[i]-1].values[c] })
	}
	var n [4]byte
	params = append(params, appendArray(nil, pgtype.Int4OID, len(numbers), func(i int) ([]byte, bool) {
		binary.BigEndian.PutUint32(n[:], uint32(numbers[i]))
		return n[:], false
	}))
	oids := append(slices.Clone(s.oids), pgtype.Int4ArrayOID)
	p.steps = append(p.steps, step{sql: s.updateSQL, oids: oids, params: params, table: t.name, partitioned: t.partitioned, effect: true})
}

// valueOf returns the value of column c, which has number n in the placing, of the row that
// a write inserts.
func (p *plan) valueOf(w *planned, n, c int) span {
	switch {
	case n < len(w.table.key):
		return w.values[n]
	case c == w.shape.mark:
		from := len(p.arena)
		p.arena = append(p.arena, boolean(w.shape.deleted)...)
		return span{from, from + 1}
	}
	if i := slices.Index(w.shape.columns, c); i >= 0 {
		return w.values[i]
	}
	return null // the default
}

// tuple returns the columns of the row that a write of the shape inserts.
func (s *shape) tuple() []int {
	if s.mark < 0 {
		return s.columns
	}
	return append(slices.Clone(s.columns), s.mark)
}

// placeable returns how many of the first writes can share one placing: they leave the same
// columns to defaults other than NULL. A delete inserts nothing.
func placeable(writes []planned) int {
	var like *planned
	for i := range writes {
		w := &writes[i]
		switch {
		case w.shape.op == functions.OpDelete:
		case like == nil:
			like = w
		case !w.sameDefaults(like):
			return i
		}
	}
	return len(writes)
}

// sameDefaults reports whether two writes leave the same columns to their
// defaults.
func (w *planned) sameDefaults(other *planned) bool {
	if w.shape == other.shape {
		return true
	}
	a, b := w.shape.tuple(), other.shape.tuple()
	for i := range w.table.columns {
		if c := &w.table.columns[i]; c.hasDefault && slices.Contains(a, i) != slices.Contains(b, i) {
			return false
		}
	}
	return true
}

var trueByte, falseByte = []byte{1}, []byte{0}

// boolean returns the binary form of a boolean.
func boolean(b bool) []byte {
	if b {
		return trueByte
	}
	return falseByte
}
