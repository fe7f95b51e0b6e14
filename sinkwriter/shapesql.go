package sinkwriter

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

// newShape generates the SQL. Rows are addressed by the primary key alone, and
// SET contains no column of it: that would block inserts of rows that reference
// them.
func (t *table) newShape(op functions.Op, columns []int, version int, early bool) (*shape, error) {
	keyed := op == functions.OpAdd || op == functions.OpDelete || op == functions.OpDeleteNewest
	s := &shape{op: op, columns: columns, version: version, keyed: keyed, mark: -1, early: early}
	for _, c := range columns {
		s.oids = append(s.oids, t.columns[c].arrayOID)
	}
	if op == functions.OpDelete {
		t.writeDelete(s)
		return s, nil
	}
	if err := t.markDeleted(s); err != nil {
		return nil, err
	}
	t.writeUpdate(s)

	var names, elements []string
	for i, c := range columns {
		names = append(names, quoteIdent(t.columns[c].name))
		elements = append(elements, "unnest("+parameter(i)+")"+t.columns[c].cast)
	}
	if s.mark >= 0 {
		names, elements = append(names, quoteIdent(tombstone)), append(elements, strconv.FormatBool(s.deleted))
	}
	into := "insert into " + t.quoted + " as t (" + list(names) + ") select "
	switch {
	case early && op == functions.OpInsert:
		// Existing rows are filtered out before the server evaluates the offered values.
		s.sql = into + list(t.sent("u.c", columns)) + " from " + unnest(len(columns)) + " as u(" + list(aliases(len(columns))) +
			") left join lateral (select true as found from " + t.rows() + " as t where " + t.matchKey() + " limit 1) as f on true where f.found is null" +
			" on conflict (" + t.keyNames() + ") do nothing"
	case !early:
		action := "nothing"
		set, where := t.change(s, func(i int) (stored, compared string) {
			name := "excluded." + quoteIdent(t.columns[columns[i]].name)
			return name, name
		})
		if len(set) > 0 {
			action = "update set " + list(set)
		}
		if where != "" {
			action += " where " + where
		}
		s.sql = into + list(elements) + " on conflict (" + t.keyNames() + ") do " + action
		if op == functions.OpInsert {
			s.plainSQL = into + list(elements)
		}
	}
	return s, nil
}

// markDeleted finds the column that marks deleted rows, if a write sets it in addition to
// its own columns.
func (t *table) markDeleted(s *shape) error {
	dead, ok := t.byName[tombstone]
	ok = ok && t.columns[dead].oid == pgtype.BoolOID
	switch {
	case s.op == functions.OpDeleteNewest && !ok:
		return &Error{Fault: FaultDeployment, code: undefinedColumn, Column: tombstone, Err: errors.New("a delete with a version needs a boolean column of this name: add it")}
	case s.op == functions.OpDeleteNewest:
		s.mark, s.deleted = dead, true
	case s.op == functions.OpNewest && ok && !slices.Contains(s.columns, dead):
		s.mark = dead
	}
	return nil
}

// writeDelete generates a delete. It first locks the rows in order, and then deletes only
// these: a row that appears in between would be locked out of order. A setting, which ends
// with the transaction, passes the rows from one statement to the next.
func (t *table) writeDelete(s *shape) {
	n := len(s.columns)
	from := unnest(n) + " with ordinality as u(" + list(aliases(n)) + ", n)"
	s.lockSQL = "select set_config('tandem.locked', coalesce(array_agg(l.n)::text, '{}'), true) from (select u.n from " + from +
		" join " + t.rows() + " as t on " + t.matchKey() + " order by u.n for update of t) as l"
	s.sql = "delete from " + t.rows() + " as t using " + from + " join unnest(nullif(current_setting('tandem.locked', true), '')::bigint[]) as l(n) on l.n = u.n where " + t.matchKey()
	s.updateSQL = "delete from " + t.rows() + " as t using " + unnest(n+1) + " as u(" + list(aliases(n)) + ", n) where " + t.matchKey() + " and " + placed
}

// writeUpdate generates the update of rows that a placing found.
func (t *table) writeUpdate(s *shape) {
	set, where := t.change(s, func(i int) (stored, compared string) {
		col := &t.columns[s.columns[i]]
		stored = alias(i) + col.cast
		if compared = stored; col.typmod >= 0 {
			compared = alias(i) + "::" + col.fullType
		}
		return stored, compared
	})
	if len(set) == 0 {
		return
	}
	n := len(s.columns)
	s.updateSQL = "update " + t.rows() + " as t set " + list(set) + " from " + unnest(n+1) + " as u(" + list(aliases(n)) + ", n) where " + t.matchKey() + " and " + placed
	if where != "" {
		s.updateSQL += " and (" + where + ")"
	}
}

// change returns what a write does to an existing row, and under which condition. Offered
// returns the offered value of a column of the shape in two forms: as it is stored, and as
// it is compared and added, which is with the column's precision.
func (t *table) change(s *shape, offered func(i int) (stored, compared string)) (set []string, where string) {
	var there, here []string // the existing and the offered values, for comparison
	var changed []string
	for i := len(t.key); i < len(s.columns); i++ {
		col := &t.columns[s.columns[i]]
		name := quoteIdent(col.name)
		stored, compared := offered(i)
		text := ""
		if col.fullType == "money" {
			text = "::numeric" // the text of its type depends on a locale
		}
		there, here = append(there, "t."+name+text), append(here, compared+text)
		switch s.op {
		case functions.OpAdd:
			stored = "coalesce(t." + name + " + " + compared + ", " + compared + ")"
		case functions.OpMax, functions.OpMin:
			order := " > "
			if s.op == functions.OpMin {
				order = " < "
			}
			beyond := "t." + name + " is null and " + compared + " is not null or " + col.compare(compared, order, "t."+name) + " or " + col.compare(compared, " = ", "t."+name) +
				" and " + compared + `::text collate "C" > t.` + name + `::text collate "C"`
			changed = append(changed, beyond)
			stored = "case when " + beyond + " then " + stored + " else t." + name + " end"
		case functions.OpInsert:
			continue
		default:
		}
		set = append(set, name+" = "+stored)
	}
	if s.mark >= 0 {
		set = append(set, quoteIdent(tombstone)+" = "+strconv.FormatBool(s.deleted))
	}
	if s.version < 0 {
		return set, strings.Join(changed, " or ")
	}
	version := &t.columns[s.version]
	_, newer := offered(slices.Index(s.columns, s.version))
	name := "t." + quoteIdent(version.name)
	order := " > "
	if s.op == functions.OpOldest {
		order = " < "
	}
	where = name + " is null or " + version.compare(newer, order, name) + " or " + version.compare(newer, " = ", name)
	if s.op == functions.OpDeleteNewest {
		return set, where
	}
	// Of equal versions the row with the greater text is kept; with newest-wins a deleted
	// row precedes that.
	a, b := "row("+list(here)+`)::text collate "C"`, "row("+list(there)+`)::text collate "C"`
	if dead, ok := t.byName[tombstone]; s.op == functions.OpNewest && ok && t.columns[dead].oid == pgtype.BoolOID {
		deleted := "false"
		if i := slices.Index(s.columns, dead); i >= 0 {
			_, deleted = offered(i)
			deleted = "coalesce(" + deleted + ", false)"
		}
		a, b = "("+deleted+", "+a+")", "(coalesce(t."+quoteIdent(tombstone)+", false), "+b+")"
	}
	return set, where + " and " + a + " > " + b
}

// compare returns a comparison of two values of a column in an order that is the same on
// every server, which collations do not guarantee.
func (c *column) compare(a, order, b string) string {
	if c.textual {
		return a + `::text collate "C"` + order + b + `::text collate "C"`
	}
	return a + order + b
}

// placing inserts the rows that are missing and locks the others, in one pass in the order
// of their keys, whatever is done with each row. Then one statement of each shape changes
// the existing rows, and no lock is taken out of order. An existing row is found before the
// server evaluates the row to insert; a row that appears meanwhile is locked, too.
type placing struct {
	columns []int // those of the primary key first and in its order
	deletes bool  // some rows are only locked
	sql     string
	oids    []uint32
}

// placed is the condition that a placing has locked the row and not inserted it. Column n of
// u is the row's number in the placing.
const placed = "(select pg_catalog.current_setting('tandem.placed', true)::boolean[])[u.n]"

// placingOf returns the placing of rows with those columns. It is created once.
func (t *table) placingOf(columns []int, deletes bool) *placing {
	id := append([]byte{255}, indexes(columns)...)
	if deletes {
		id[0] = 254
	}
	t.mu.RLock()
	known := t.placings[string(id)]
	t.mu.RUnlock()
	if known != nil {
		return known
	}
	p := t.newPlacing(columns, deletes)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.placings == nil {
		t.placings = map[string]*placing{}
	}
	t.placings[string(id)] = p
	return p
}

func (t *table) newPlacing(columns []int, deletes bool) *placing {
	p := &placing{columns: columns, deletes: deletes}
	var names []string
	for _, c := range columns {
		names = append(names, quoteIdent(t.columns[c].name))
		p.oids = append(p.oids, t.columns[c].arrayOID)
	}
	n := len(columns)
	numbered, insert, found := list(aliases(n))+", n", "f.found is null", "i.k0 is null"
	if deletes {
		p.oids = append(p.oids, pgtype.BoolArrayOID)
		numbered = list(aliases(n)) + ", o, n"
		insert, found = insert+" and not f.o", "case when f.o then f.found is not null else i.k0 is null end"
		n++
	}
	action := "nothing"
	if len(columns) > len(t.key) {
		name := names[len(t.key)]
		action = "update set " + name + " = t." + name + " where false" // which locks the row
	}
	var returned, same []string
	for i := range t.key {
		k := "k" + strconv.Itoa(i)
		returned = append(returned, "t."+names[i]+" as "+k)
		same = append(same, "i."+k+" = f.c"+strconv.Itoa(i)+t.columns[columns[i]].castKey())
	}
	// The insert comes first, and processes the result of the first part row by row. The
	// full join has no condition that compares every row with every other.
	at := "true as found"
	if t.opaque {
		at = "t.ctid as found, t.tableoid as part"
	}
	p.sql = "with f as materialized (select u.*, e.* from " + unnest(n) + " with ordinality as u(" + numbered + ") left join lateral (select " + at + " from " + t.rows() +
		" as t where " + t.matchKey() + " for no key update) as e on true), i as (insert into " + t.quoted + " as t (" + list(names) + ") select " +
		list(t.sent("f.c", columns)) + " from f where " + insert + " on conflict (" + t.keyNames() + ") do " + action + " returning " + list(returned) +
		") select pg_catalog.set_config('tandem.placed', (select array_agg(" + found + " order by f.n)::text from f full join i on " + strings.Join(same, " and ") + "), true)"
	if t.opaque {
		// Two writes of one row under different spellings: 21000, as with ON
		// CONFLICT.
		p.sql += ", (select v from (values (1), (2)) as d(v) where exists (select from f where f.found is not null group by f.part, f.found having count(*) > 1))"
	}
	p.sql += " from (select count(*) from i) as inserted"
	return p
}

// matchKey returns the condition that row t of the table has the key in u.
func (t *table) matchKey() string {
	var on []string
	for i, c := range t.key {
		on = append(on, "t."+quoteIdent(t.columns[c].name)+" = "+alias(i)+t.columns[c].castKey())
	}
	return strings.Join(on, " and ")
}

// castKey returns the cast of a value to the key that is stored for it: numbers and times are
// rounded. Text that is too long is not truncated, because the server rejects it.
func (c *column) castKey() string {
	if c.typmod < 0 {
		return c.cast
	}
	switch c.elemOID {
	case pgtype.NumericOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return "::" + c.fullType
	}
	return c.cast
}

// sent returns the values of columns; their names are prefix plus a number.
func (t *table) sent(prefix string, columns []int) []string {
	var values []string
	for i, c := range columns {
		values = append(values, prefix+strconv.Itoa(i)+t.columns[c].cast)
	}
	return values
}

func (t *table) keyNames() string {
	var names []string
	for _, c := range t.key {
		names = append(names, quoteIdent(t.columns[c].name))
	}
	return list(names)
}

func list(parts []string) string { return strings.Join(parts, ", ") }

func parameter(i int) string { return "$" + strconv.Itoa(i+1) }

// alias returns column i of u, which holds the parameters as rows.
func alias(i int) string { return "u.c" + strconv.Itoa(i) }

func aliases(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = "c" + strconv.Itoa(i)
	}
	return names
}

// unnest returns the rows of the first n parameters.
func unnest(n int) string {
	parameters := make([]string, n)
	for i := range parameters {
		parameters[i] = parameter(i)
	}
	return "unnest(" + list(parameters) + ")"
}
