package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

// Tables are random tables with random writes to them: types, constraints, keys with
// several spellings, triggers and partitions. The model does not predict their result; it
// only must not depend on which events are committed together.
type Tables struct {
	random *rand.Rand
	list   []randomTable
}

// TypesSQL creates the types that random tables use. It needs the extension
// citext.
const TypesSQL = `
create type mood as enum ('glad', 'sad');
create domain level as int check (value >= -5);
create domain price as numeric(6, 2) check (value < 1000);
create domain word as text not null default '?';`

type randomTable struct {
	name     string
	sql      []string
	key      []randomColumn
	columns  []randomColumn
	versions []string
	tombs    bool
	log      bool
}

// randomColumn is a column with values for it, some of which do not fit.
type randomColumn struct {
	name, kind string
	adds       bool
	value      func(r *rand.Rand) any
}

// NewTables returns n tables that are generated from a seed.
func NewTables(seed uint64, n int) *Tables {
	t := &Tables{random: rand.New(rand.NewPCG(seed, 7))}
	for i := range n {
		t.list = append(t.list, newTable(t.random, fmt.Sprintf("t%d_%d", seed, i)))
	}
	return t
}

// SQL returns the statements that create the tables.
func (t *Tables) SQL() string {
	var all []string
	for i := range t.list {
		all = append(all, t.list[i].sql...)
	}
	return strings.Join(all, ";\n")
}

// DropSQL returns the statements that drop them.
func (t *Tables) DropSQL() string {
	var names []string
	for i := range t.list {
		names = append(names, t.list[i].name)
		if t.list[i].log {
			names = append(names, t.list[i].name+"_log")
		}
	}
	return "drop table " + strings.Join(names, ", ")
}

// Queries returns queries that read each table, and the log of its triggers, as text. Equal
// rows have equal text.
func (t *Tables) Queries() []string {
	var all []string
	for i := range t.list {
		all = append(all, queryOf(t.list[i].name))
		if t.list[i].log {
			all = append(all, queryOf(t.list[i].name+"_log"))
		}
	}
	return all
}

func queryOf(table string) string {
	return "select coalesce(string_agg(r::text, E'\\n' order by r::text collate \"C\"), '') from " + table + " r"
}

func oneOf[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func smallInt(r *rand.Rand) any { return oneOf[any](r, r.IntN(13)-6, int64(r.IntN(13)-6)) }

// keyColumns returns key columns, most of which have values with several
// spellings.
func keyColumns(r *rand.Rand) []randomColumn {
	column := func(kind string, value func(r *rand.Rand) any) randomColumn {
		return randomColumn{name: "k", kind: kind, value: value}
	}
	some := func(list ...any) func(*rand.Rand) any {
		return func(r *rand.Rand) any { return oneOf(r, list...) }
	}
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	far := time.FixedZone("far", 5*3600)
	columns := []randomColumn{
		column("int", some(1, int64(1), 2, int32(2), 3, -1, 0)),
		column("bigint", some(1, 2, 3, 4)),
		column("text", some("a", "b", "B", "a ", "")),
		column("citext", some("ann", "Ann", "ANN", "bob", "Bob", "carl")),
		column("char(5)", some("a", "a ", "a  ", "b", "B")),
		column("varchar(3)", some("a", "b", "abc", "abcd")),
		column("numeric", some("1", "1.0", "1.00", "2", "0", "0.0", "-0", "10000", "1e4", 1)),
		column("numeric(6,2)", some("1", "1.0", "1.001", "1.004", "2", 1)),
		column("float8", some(0.0, 1.5, 2.5, math.Copysign(0, -1), "1.5")),
		column("uuid", some("00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000A", "0000000000000000000000000000000b")),
		column("timestamptz", some(at, at.In(far), at.Add(time.Second), at.Add(time.Second).In(far))),
		column("timestamptz(0)", some(at, at.In(far), at.Add(400*time.Millisecond), at.Add(time.Second))),
		column("date", some(at.Truncate(24*time.Hour), "2001-02-03", "2001-02-04")),
		column("mood", some("glad", "sad")),
		column("level", some(1, 2, -5)),
		column("inet", some("10.0.0.1", "10.0.0.2")),
	}
	key := []randomColumn{columns[r.IntN(len(columns))]}
	if r.IntN(4) == 0 {
		part := columns[r.IntN(len(columns))]
		part.name = "l"
		key = append(key, part)
	}
	return key
}

// plainColumns returns the columns that rows may have in addition to their key.
func plainColumns() []randomColumn {
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	words := func(r *rand.Rand) any {
		return oneOf[any](r, "", "a", "B", "b c", `"q"`, "ünï", "abcd", "abcde", nil)
	}
	times := func(r *rand.Rand) any {
		if r.IntN(12) == 0 {
			return nil
		}
		return at.Add(time.Duration(r.IntN(9)) * 300 * time.Millisecond)
	}
	return []randomColumn{
		{"i2", "smallint", true, func(r *rand.Rand) any { return oneOf[any](r, smallInt(r), smallInt(r), 20000, -20000) }},
		{"i4", "int", true, smallInt},
		{"i8", "bigint", true, func(r *rand.Rand) any {
			return oneOf[any](r, smallInt(r), smallInt(r), smallInt(r), int64(1)<<62, -(int64(1) << 62))
		}},
		{"n", "numeric", true, func(r *rand.Rand) any {
			return oneOf[any](r, "1.5", "1.50", "-2.25", "0", "0.000", "123456789.123456789", "-1", 3, "99999999999999999999")
		}},
		{"n2", "numeric(6,2)", true, func(r *rand.Rand) any {
			return oneOf[any](r, "1.25", "-1.5", "0.005", "0.00", "4000", "-4000.01", 2, "12345")
		}},
		{"m", "money", true, func(r *rand.Rand) any { return oneOf[any](r, "1.25", "-3.50", "0.01") }},
		{"f", "float8", true, func(r *rand.Rand) any { return oneOf[any](r, 0.1, 0.2, 1.5, -0.3, 0.0) }},
		{"t", "text", false, words},
		{"vc", "varchar(4)", false, words},
		{"tz", "timestamptz", false, times},
		{"tz0", "timestamptz(0)", false, func(r *rand.Rand) any { return at.Add(time.Duration(r.IntN(9)) * time.Second) }},
		{"b", "boolean", false, func(r *rand.Rand) any { return oneOf[any](r, true, false, nil) }},
		{"lv", "level", true, func(r *rand.Rand) any { return oneOf[any](r, 1, 2, -1, -2, -7) }},
		{"p", "price", true, func(r *rand.Rand) any { return oneOf[any](r, "1.25", "0.005", "900", "-300") }},
		{"w", "word", false, words},
		{"e", "mood", false, func(r *rand.Rand) any { return oneOf[any](r, "glad", "sad", "glad", "sad", nil) }},
		{"j", "jsonb", false, func(r *rand.Rand) any {
			return oneOf[any](r, map[string]any{"a": 1}, []int{1, 2}, []byte(`{"a":1.0}`), []byte(`{"a"`), nil)
		}},
		{"iv", "interval", false, func(r *rand.Rand) any { return oneOf[any](r, "1 mon", "30 days", "720 hours", "1 day", nil) }},
		{"c", "citext", false, words},
		{"by", "bytea", false, func(r *rand.Rand) any { return oneOf[any](r, []byte{}, []byte{1}, []byte{255, 0}, nil) }},
	}
}

// newTable returns a random table.
func newTable(r *rand.Rand, name string) randomTable {
	t := randomTable{name: name, key: keyColumns(r)}
	all := plainColumns()
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var lines, keys []string
	for _, c := range t.key {
		lines = append(lines, c.name+" "+c.kind)
		keys = append(keys, c.name)
	}
	for _, c := range all[:r.IntN(7)] {
		line := c.name + " " + c.kind
		switch r.IntN(8) {
		case 0:
			line += " not null"
		case 1:
			if c.adds {
				line += " not null default 1"
			}
		case 2:
			if c.adds && c.kind != "money" {
				line += " check (" + c.name + oneOf(r, " >= 0", " > -3", " <= 4", " <> 2", " between -4 and 8") + ")"
			}
		}
		lines = append(lines, line)
		t.columns = append(t.columns, c)
	}
	if r.IntN(2) == 0 {
		kind := oneOf(r, "bigint", "int", "numeric", "text", "timestamptz(0)", "timestamptz", "interval")
		lines = append(lines, "v "+kind)
		t.columns = append(t.columns, randomColumn{"v", kind, false, versionOf(kind)})
		t.versions = append(t.versions, "v")
		if r.IntN(2) == 0 {
			t.tombs = true
			lines = append(lines, "deleted boolean"+oneOf(r, "", " not null default false"))
			t.columns = append(t.columns, randomColumn{"deleted", "boolean", false, func(r *rand.Rand) any { return r.IntN(2) == 0 }})
		}
	}
	lines = append(lines, t.constraints(r)...)
	lines = append(lines, "primary key ("+strings.Join(keys, ", ")+")")
	create := "create table " + name + " (" + strings.Join(lines, ", ") + ")"
	if r.IntN(6) == 0 && !strings.Contains(keys[0], "l") {
		create += " partition by hash (k)"
		t.sql = append(t.sql, create)
		for i := range 2 {
			t.sql = append(t.sql, fmt.Sprintf("create table %s_%d partition of %s for values with (modulus 2, remainder %d)", name, i, name, i))
		}
	} else {
		t.sql = append(t.sql, create)
	}
	t.triggers(r)
	return t
}

func versionOf(kind string) func(*rand.Rand) any {
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	return func(r *rand.Rand) any {
		switch kind {
		case "numeric":
			return oneOf[any](r, "1", "1.0", "1.00", "2", "0.5", 3)
		case "text":
			return oneOf[any](r, "a", "B", "ä", "b", "")
		case "interval":
			return oneOf[any](r, "1 mon", "30 days", "720 hours", "1 day")
		case "timestamptz(0)":
			return at.Add(time.Duration(r.IntN(9)) * time.Second)
		case "timestamptz":
			return at.Add(time.Duration(r.IntN(9)) * 300 * time.Millisecond)
		}
		return r.IntN(6)
	}
}

func (t *randomTable) has(name string) bool {
	for _, c := range t.columns {
		if c.name == name {
			return true
		}
	}
	return false
}

// constraints returns constraints over several columns.
func (t *randomTable) constraints(r *rand.Rand) []string {
	var lines []string
	if t.has("i4") && t.has("i8") && r.IntN(2) == 0 {
		lines = append(lines, "check (i4 <= i8 + 5)")
	}
	if t.has("i2") && r.IntN(3) == 0 {
		lines = append(lines, "g int generated always as (i2 * 100000) stored")
	}
	if t.has("t") && r.IntN(3) == 0 {
		lines = append(lines, "check (length(t) < 4)")
	}
	return lines
}

// triggers adds triggers that raise, change the row, or log what they see.
func (t *randomTable) triggers(r *rand.Rand) {
	function := func(suffix, when, body string) {
		t.sql = append(t.sql,
			fmt.Sprintf("create function %s_%s() returns trigger language plpgsql as $$ begin %s; return new; end $$", t.name, suffix, body),
			fmt.Sprintf("create trigger %s_%s %s on %s for each row execute function %s_%s()", t.name, suffix, when, t.name, t.name, suffix))
	}
	if t.has("i4") && r.IntN(4) == 0 {
		function("raise", "before "+oneOf(r, "insert", "update", "insert or update"), "if new.i4 in (-2, 3) then raise exception 'no'; end if")
	}
	if t.has("t") && r.IntN(6) == 0 {
		function("trim", "before insert or update", "new.t = upper(new.t)")
	}
	if r.IntN(5) == 0 {
		t.log = true
		t.sql = append(t.sql, "create table "+t.name+"_log (op text, r text)")
		t.sql = append(t.sql,
			fmt.Sprintf("create function %[1]s_note() returns trigger language plpgsql as $$ begin insert into %[1]s_log values (tg_op, coalesce(new, old)::text); return null; end $$", t.name),
			fmt.Sprintf("create trigger %[1]s_note after insert or update or delete on %[1]s for each row execute function %[1]s_note()", t.name))
	}
}

// Effects returns random writes of one event, generated from the seed and its
// number alone.
func (t *Tables) Effects(seed uint64, i int) functions.Effects {
	r := rand.New(rand.NewPCG(seed, uint64(i)))
	var fx functions.Effects
	// One table per event: if writes to one table are refused, a batch first commits the
	// events that do not write to it.
	table := &t.list[r.IntN(len(t.list))]
	for range 1 + r.IntN(3)*r.IntN(2) {
		// An event that writes twice under keys that only the server can compare is
		// committed after the other events of its batch.
		if table.opaque() && slices.ContainsFunc(fx.Writes, func(w functions.Write) bool { return w.Table == table.name }) {
			continue
		}
		table.write(r, &fx)
	}
	return fx
}

// opaque reports whether only the server can compare the table's keys.
func (t *randomTable) opaque() bool {
	return slices.ContainsFunc(t.key, func(c randomColumn) bool { return c.kind == "inet" || c.kind == "level" })
}

func (t *randomTable) write(r *rand.Rand, fx *functions.Effects) {
	key := functions.Row{}
	for _, c := range t.key {
		key[c.name] = c.value(r)
	}
	row := functions.Row{}
	for name, v := range key {
		row[name] = v
	}
	most := r.IntN(3) == 0
	for _, c := range t.columns {
		if (most || r.IntN(2) == 0) && c.name != "deleted" || r.IntN(10) == 0 {
			row[c.name] = c.value(r)
		}
	}
	switch r.IntN(9) {
	case 0:
		fx.Upsert(t.name, row, functions.FirstWins())
	case 1:
		fx.Upsert(t.name, row, functions.Replace())
	case 2:
		fx.Delete(t.name, key)
	case 3:
		fx.Upsert(t.name, row, oneOf(r, functions.Max, functions.Min)())
	case 4, 5:
		if len(t.versions) == 0 {
			fx.Insert(t.name, row)
			return
		}
		for _, c := range t.columns {
			if c.name == "v" {
				row["v"] = c.value(r)
			}
		}
		switch {
		case t.tombs && r.IntN(4) == 0:
			fx.Delete(t.name, key, functions.Version{Column: "v", Value: row["v"]})
		case r.IntN(2) == 0:
			fx.Upsert(t.name, row, functions.OldestWins("v"))
		default:
			fx.Upsert(t.name, row, functions.NewestWins("v"))
		}
	default:
		amounts := functions.Row{}
		for _, c := range t.columns {
			if c.adds && r.IntN(2) == 0 {
				amounts[c.name] = c.value(r)
			}
		}
		if len(amounts) == 0 {
			fx.Upsert(t.name, row, functions.Replace())
			return
		}
		fx.Add(t.name, key, amounts)
	}
}
