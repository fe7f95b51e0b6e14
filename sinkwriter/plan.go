package sinkwriter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tandem-fn/tandem/functions"
)

// planned is one write with its values encoded.
type planned struct {
	table  *table
	shape  *shape
	values []span // in the order of the shape's columns
	key    []span // identifies and sorts rows: equal for equal keys
}

// plan turns the writes of many offers into few statements, in the order that all
// writers use: tables after the tables that they reference, and the rows of a table by
// primary key. Deletes of rows that others may reference come last, in the opposite
// order.
//
// encode is called for each offer before the claim, so that an offer that cannot be
// written claims nothing. build is called after the claim, for the offers that won.
type plan struct {
	memory *scratch // of the arena and of the messages
	arena  []byte
	parts  []part    // of the encoded offers, in their order
	writes []planned // in the order of the offers and of their effects
	steps  []step

	spareSpans  []span // not in use yet
	spareWrites []planned

	// asWritten keeps every offer's own order, with one statement per write, for
	// an offer whose writes depend on each other in a way that only the server
	// can determine.
	asWritten bool
}

// part is the part of a plan that belongs to one offer.
type part struct {
	offer  *offer
	writes []planned
	execs  []step
	err    error // why the offer cannot be written
}

// build plans the effects of offers that were encoded, in the order in which they were
// encoded. That is the order of their keys, which is the same in all clusters. Offers
// with statements of their own come last, one after the other; their statements follow
// their writes.
func (p *plan) build(offers []*offer, tables map[string]*table) error {
	p.asWritten = len(offers) == 1 && offers[0].asWritten
	p.writes = make([]planned, 0, len(offers))
	var alone []*part
	next := 0
	for _, o := range offers {
		for p.parts[next].offer != o {
			next++
		}
		one := &p.parts[next]
		switch {
		case one.err != nil:
			return one.err
		case p.asWritten || o.executes || delicate(o, tables):
			alone = append(alone, one)
		default:
			p.writes = append(p.writes, one.writes...)
		}
	}
	p.flush()
	slices.SortStableFunc(alone, func(a, b *part) int { return compareExecs(a.offer, b.offer) })
	for _, one := range alone {
		p.writes = append(p.writes, one.writes...)
		if p.asWritten || delicate(one.offer, tables) {
			p.flushAsWritten()
		} else {
			p.flush()
		}
		p.steps = append(p.steps, one.execs...)
	}
	return nil
}

// delicate reports whether an offer may write one row twice under keys that
// look different here.
func delicate(o *offer, tables map[string]*table) bool {
	var seen *table
	for i := range o.effects.Writes {
		t := tables[o.effects.Writes[i].Table]
		if t == nil || !t.opaque {
			continue
		}
		if seen != nil && seen.oid == t.oid {
			return true
		}
		seen = t
	}
	return false
}

// compareExecs sorts equal statements with equal arguments next to each
// other, so that statements that lock the same rows usually lock them in one
// order.
func compareExecs(a, b *offer) int { return bytes.Compare(a.exec, b.exec) }

// attribute returns the error that names the offer as the cause of err.
func attribute(o *offer, tableName string, err error) *offerError {
	var cause *Error
	known := Error{Fault: FaultEvent, Err: err}
	if errors.As(err, &cause) {
		known = *cause
	}
	known.Function = o.function
	if known.Table == "" {
		known.Table = tableName
	}
	return &offerError{offer: o, err: &known}
}

// encode encodes the effects of an offer. Its error is an [offerError].
func (p *plan) encode(o *offer, tables map[string]*table, statements map[string]*described) error {
	n := len(o.effects.Writes)
	if len(p.spareWrites) < n {
		p.spareWrites = make([]planned, max(n, cap(p.parts)-len(p.parts)))
	}
	one := part{offer: o, writes: p.spareWrites[:0:n]}
	p.spareWrites = p.spareWrites[n:]
	one.err = p.encodePart(&one, tables, statements)
	p.parts = append(p.parts, one)
	return one.err
}

func (p *plan) encodePart(one *part, tables map[string]*table, statements map[string]*described) error {
	o, from := one.offer, len(p.arena)
	for i := range o.effects.Writes {
		w := &o.effects.Writes[i]
		if w.Op == functions.OpExec {
			st, err := encodeExec(o, w, statements[w.Statement.SQL])
			if err != nil {
				return attribute(o, st.table, err)
			}
			one.execs = append(one.execs, st)
			continue
		}
		t := tables[w.Table]
		s, err := t.shapeOf(w)
		if err == nil && o.findsRows {
			s, err = t.earlyShape(s)
		}
		if err == nil {
			var encoded planned
			encoded, err = p.encodeWrite(t, s, w)
			one.writes = append(one.writes, encoded)
		}
		if err == nil {
			err = checkEffectBytes(o.function, len(p.arena)-from)
		}
		if err != nil {
			return attribute(o, w.Table, err)
		}
	}
	return nil
}

// encodeExec encodes a statement of a function.
func encodeExec(o *offer, w *functions.Write, parameters *described) (step, error) {
	st := step{sql: w.Statement.SQL, oids: parameters.oids, table: statementName(&w.Statement), effect: true, offer: o}
	if len(parameters.types) != len(w.Args) {
		return st, &Error{Fault: FaultFunction, Err: fmt.Errorf("the statement has %d parameters, and was given %d arguments", len(parameters.types), len(w.Args))}
	}
	for i, v := range w.Args {
		param, format, err := encodeArg(parameters.types[i], v)
		if err != nil {
			return st, fmt.Errorf("argument %d: %w", i+1, err)
		}
		st.params, st.formats = append(st.params, param), append(st.formats, format)
	}
	return st, nil
}

func (p *plan) encodeWrite(t *table, s *shape, w *functions.Write) (planned, error) {
	values := p.spans(len(s.columns))
	for i, c := range s.columns {
		col := &t.columns[c]
		v, ok := w.Row[col.name]
		if i < len(t.key) && w.Key != nil {
			v, ok = w.Key[col.name]
		}
		if !ok {
			v = nil
		}
		var err error
		if p.arena, values[i], err = appendValue(p.arena, col, v); err != nil {
			return planned{}, columnError(col, err)
		}
		if values[i] != null {
			continue
		}
		if col.inKey || c == s.version {
			return planned{}, &Error{Fault: FaultEvent, Column: col.name, Err: errors.New("a column of the primary key or the version is NULL")}
		}
		if s.op == functions.OpAdd {
			return planned{}, &Error{Fault: FaultEvent, Column: col.name, Err: errors.New("an amount to add is NULL")}
		}
	}
	key := values[:len(t.key)]
	if t.loose {
		key = p.spans(len(t.key))
		for i, c := range t.key {
			p.arena, key[i] = appendNormal(p.arena, &t.columns[c], values[i])
		}
	}
	return planned{table: t, shape: s, values: values, key: key}, nil
}

// spans returns n spans.
func (p *plan) spans(n int) []span {
	if len(p.spareSpans) < n {
		p.spareSpans = make([]span, max(n, n*(cap(p.parts)-len(p.parts))))
	}
	spans := p.spareSpans[:n:n]
	p.spareSpans = p.spareSpans[n:]
	return spans
}

// columnError adds the column's name to an error.
func columnError(col *column, err error) error {
	known := Error{Fault: FaultEvent, Err: err}
	var cause *Error
	if errors.As(err, &cause) {
		known = *cause
	}
	known.Column = col.name
	return &known
}

// flush turns the pending writes into statements.
func (p *plan) flush() {
	writes := p.writes
	for len(writes) > 0 {
		n := p.phase(writes)
		p.flushPhase(writes[:n])
		writes = writes[n:]
	}
	p.writes = p.writes[:0]
}

// flushAsWritten turns each pending write into a statement.
func (p *plan) flushAsWritten() {
	for i := range p.writes {
		p.run(p.writes[i : i+1])
	}
	p.writes = p.writes[:0]
}

// last reports whether a write must come after all others: a delete of a row
// that others may reference. All other writes are sorted together, so that
// every writer locks the rows of a table in one order.
func (w *planned) last() bool { return w.shape.op == functions.OpDelete && w.table.referenced }

// phase returns how many of the writes may be sorted together: all of them, up
// to a row that is written again after a delete that comes last.
func (p *plan) phase(writes []planned) int {
	var deleted map[string]bool
	for i := range writes {
		w := &writes[i]
		if !w.table.referenced || !w.last() && deleted == nil {
			continue
		}
		row := p.rowID(w)
		if !w.last() {
			if deleted[row] {
				return i
			}
			continue
		}
		if deleted == nil {
			deleted = map[string]bool{}
		}
		deleted[row] = true
	}
	return len(writes)
}

func (p *plan) rowID(w *planned) string {
	id := binary.BigEndian.AppendUint32(nil, w.table.oid)
	for _, part := range w.key {
		id = binary.BigEndian.AppendUint32(id, uint32(part.to-part.from))
		id = append(id, p.arena[part.from:part.to]...)
	}
	return string(id)
}

func (p *plan) flushPhase(writes []planned) {
	slices.SortStableFunc(writes, func(a, b planned) int { return p.compare(&a, &b) })
	var deletes []planned
	if slices.ContainsFunc(writes, func(w planned) bool { return w.last() }) {
		writes, deletes = p.partDeletes(writes)
	}
	p.tables(p.fold(writes))
	p.runs(deletes)
}

// partDeletes separates the deletes that come last. It drops the earlier writes
// of the same rows if nothing observes them: within a phase no write follows
// the delete.
func (p *plan) partDeletes(sorted []planned) (writes, deletes []planned) {
	for from := 0; from < len(sorted); {
		to := from + 1
		for to < len(sorted) && p.compare(&sorted[from], &sorted[to]) == 0 {
			to++
		}
		end := &sorted[to-1]
		for i := from; i < to; i++ {
			switch w := &sorted[i]; {
			case w.last() && (i == to-1 || !p.sameKey(w, end)):
				deletes = append(deletes, *w)
			case !w.last() && (!end.last() || !p.sameKey(w, end) || !p.vanishes(w)):
				writes = append(writes, *w)
			}
		}
		from = to
	}
	slices.SortStableFunc(deletes, func(a, b planned) int {
		return cmp.Or(-cmp.Compare(a.table.rank, b.table.rank), p.compare(&a, &b))
	})
	return writes, deletes
}

// compare orders rows. It returns zero for writes of one row, and for some
// pairs of rows whose keys look alike.
func (p *plan) compare(a, b *planned) int {
	if a.table.oid != b.table.oid {
		return cmp.Or(cmp.Compare(a.table.rank, b.table.rank), cmp.Compare(a.table.oid, b.table.oid))
	}
	return p.compareKeys(a, b)
}

func (p *plan) compareKeys(a, b *planned) int {
	for i, x := range a.key {
		y := b.key[i]
		if c := bytes.Compare(p.arena[x.from:x.to], p.arena[y.from:y.to]); c != 0 {
			return c
		}
	}
	return 0
}

// sameKey reports whether two writes that compare as equal are certainly of
// one row: the spelling of their keys is unique.
func (p *plan) sameKey(a, b *planned) bool {
	if !a.table.loose {
		return true
	}
	for i := range a.key {
		x, y := a.values[i], b.values[i]
		if !bytes.Equal(p.arena[x.from:x.to], p.arena[y.from:y.to]) {
			return false
		}
	}
	return true
}

// fold combines several writes of one row where the result is the same as
// executing them in order. The writes are sorted by table and key.
func (p *plan) fold(writes []planned) []planned {
	out := writes[:0]
	for from := 0; from < len(writes); {
		to := from + 1
		for to < len(writes) && p.compare(&writes[to], &writes[from]) == 0 {
			to++
		}
		begin := len(out)
		for i := from; i < to; i++ {
			if n := len(out); n > begin && p.foldInto(&out[n-1], &writes[i]) {
				continue
			}
			out = append(out, writes[i])
		}
		if len(out)-begin > 1 {
			out = append(out[:begin], p.sumAdds(out[begin:])...)
		}
		from = to
	}
	return out
}

// foldInto reports whether it combined w, which follows into on the same
// row, with into. A write that is omitted could neither have been rejected
// nor observed.
func (p *plan) foldInto(into, w *planned) bool {
	if !p.sameKey(into, w) {
		return false
	}
	switch {
	case into.shape.op == functions.OpDelete:
		return w.shape.op == functions.OpDelete
	case w.shape.op == functions.OpDelete:
		if !p.vanishes(into) {
			return false
		}
		*into = *w
		return true
	case w.shape.op == functions.OpInsert: // the row exists by then
		return p.readable(w, false)
	case into.shape != w.shape:
		return false
	}
	switch w.shape.op {
	case functions.OpReplace:
		if !p.sound(into) {
			return false
		}
		into.values = w.values
		return true
	case functions.OpNewest, functions.OpOldest, functions.OpDeleteNewest:
		return p.foldVersion(into, w)
	case functions.OpMax, functions.OpMin:
		return p.foldExtreme(into, w)
	default:
		return false
	}
}

// foldVersion keeps the newer or the older of two writes. It leaves them to the
// server if their bytes do not determine the order.
func (p *plan) foldVersion(into, w *planned) bool {
	i := slices.Index(w.shape.columns, w.shape.version)
	x, y := into.values[i], w.values[i]
	col := &w.table.columns[w.shape.version]
	c, ok := compareBinary(col, p.arena[x.from:x.to], p.arena[y.from:y.to])
	if !ok || c == 0 || col.typmod >= 0 || !p.sound(into) || !p.sound(w) {
		return false
	}
	if (c < 0) != (w.shape.op == functions.OpOldest) {
		into.values = w.values
	}
	return true
}

// foldExtreme keeps the greatest or least value of each column.
func (p *plan) foldExtreme(into, w *planned) bool {
	if !p.sound(into) || !p.sound(w) {
		return false
	}
	values := slices.Clone(into.values)
	for i := len(w.table.key); i < len(values); i++ {
		x, y := values[i], w.values[i]
		switch {
		case y == null:
		case x == null:
			values[i] = y
		default:
			c, ok := compareBinary(&w.table.columns[w.shape.columns[i]], p.arena[x.from:x.to], p.arena[y.from:y.to])
			if !ok {
				return false
			}
			if c != 0 && (c < 0) == (w.shape.op == functions.OpMax) {
				values[i] = y
			}
		}
	}
	into.values = values
	return true
}

// tables adds the statements of writes that are sorted by table and key, table by table.
func (p *plan) tables(writes []planned) {
	for from := 0; from < len(writes); {
		to := from + 1
		for to < len(writes) && writes[to].table.oid == writes[from].table.oid {
			to++
		}
		p.rows(writes[from:to])
		from = to
	}
}

// rows adds the statements of one table's writes. The first writes of all rows precede
// all second ones, so that there are few statements with many rows each. The first writes
// take the locks, in the order of the keys.
func (p *plan) rows(writes []planned) {
	if !p.repeats(writes) {
		p.firstWrites(writes, false)
		return
	}
	first, again := make([]planned, 0, len(writes)), [][]planned(nil)
	held := false // a first write may leave its row unlocked, and another write follows
	flush := func() {
		p.firstWrites(first, held)
		p.laterWrites(again)
		first, again, held = first[:0], nil, false
	}
	for from := 0; from < len(writes); {
		to := from + 1
		for to < len(writes) && p.compareKeys(&writes[to], &writes[from]) == 0 {
			to++
		}
		row := writes[from:to]
		from = to
		if len(row) > 1 && row[0].shape.op == functions.OpDelete {
			// If the row is missing, nothing is locked until it is inserted.
			flush()
			for i := range row {
				p.run(row[i : i+1])
			}
			continue
		}
		first = append(first, row[0])
		if len(row) > 1 {
			again = append(again, row[1:])
			held = held || row[0].shape.op == functions.OpInsert
		}
	}
	flush()
}

// repeats reports whether a row is written more than once, or two rows may be the
// same.
func (p *plan) repeats(writes []planned) bool {
	for i := 1; i < len(writes); i++ {
		if p.compareKeys(&writes[i-1], &writes[i]) == 0 {
			return true
		}
	}
	return false
}

// firstWrites adds the statements of the first writes of rows: one for each run of writes
// of one shape, unless a placing is required or saves statements.
func (p *plan) firstWrites(writes []planned, held bool) {
	runs, shapes := shapeRuns(writes)
	if !held && runs <= shapes+1 {
		p.runs(writes)
		return
	}
	for len(writes) > 0 {
		n := placeable(writes)
		p.place(writes[:n])
		writes = writes[n:]
	}
}

// shapeRuns counts the runs of one shape, and the shapes.
func shapeRuns(writes []planned) (runs, shapes int) {
	var known []*shape
	for i := range writes {
		s := writes[i].shape
		if i > 0 && s == writes[i-1].shape {
			continue
		}
		runs++
		if !slices.Contains(known, s) {
			known = append(known, s)
		}
	}
	return runs, len(known)
}

// laterWrites adds the statements of the writes after the first, whose rows are locked
// by then: one of each shape for the second write of each row, then for the third, and
// so on.
func (p *plan) laterWrites(rows [][]planned) {
	for len(rows) > 0 {
		var order []*shape
		groups := map[*shape][]planned{}
		left := rows[:0]
		for _, row := range rows {
			s := row[0].shape
			if groups[s] == nil {
				order = append(order, s)
			}
			groups[s] = append(groups[s], row[0])
			if len(row) > 1 {
				left = append(left, row[1:])
			}
		}
		rows = left
		for _, s := range order {
			p.run(groups[s])
		}
	}
}

// runs adds one statement for each run of one shape. A statement contains no
// row twice, and no two rows that only look alike: the server would reject them
// if they are the same.
func (p *plan) runs(writes []planned) {
	for from := 0; from < len(writes); {
		to := from + 1
		for to < len(writes) && writes[to].shape == writes[from].shape && p.compareKeys(&writes[to], &writes[to-1]) != 0 {
			to++
		}
		p.run(writes[from:to])
		from = to
	}
}

// run adds the one or two statements for writes of one shape.
func (p *plan) run(run []planned) {
	s, t := run[0].shape, run[0].table
	if s.sql == "" {
		p.place(run)
		return
	}
	params := make([][]byte, len(s.columns))
	for c := range s.columns {
		params[c] = p.column(t.columns[s.columns[c]].elemOID, len(run), func(i int) span { return run[i].values[c] })
	}
	if s.lockSQL != "" {
		p.steps = append(p.steps, step{sql: s.lockSQL, oids: s.oids, params: params, table: t.name, partitioned: t.partitioned, effect: true})
	}
	st := step{sql: s.sql, oids: s.oids, params: params, table: t.name, partitioned: t.partitioned, effect: true}
	p.steps = append(p.steps, s.insertion(st, len(run)))
}

// column returns the values of one column of n rows as an array.
func (p *plan) column(elemOID uint32, n int, value func(i int) span) []byte {
	size := 20
	for i := range n {
		v := value(i)
		size += 4 + max(0, v.to-v.from)
	}
	return appendArray(p.memory.take(size), elemOID, n, func(i int) ([]byte, bool) {
		v := value(i)
		if v == null {
			return nil, true
		}
		return p.arena[v.from:v.to], false
	})
}
