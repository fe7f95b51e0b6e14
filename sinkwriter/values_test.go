package sinkwriter_test

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

var update = flag.Bool("update", false, "write docs/values.md")

type (
	status  string // a named string type
	cents   int64  // a named integer type
	level   int    // an integer type with a String method
	amount  struct{ hundredths int64 }
	ticket  struct{ number int }
	payload struct {
		A int `json:"a"`
	}
)

func (l level) String() string { return "high" }
func (a amount) Value() (driver.Value, error) {
	return fmt.Sprintf("%d.%02d", a.hundredths/100, a.hundredths%100), nil
}
func (t *ticket) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(t.number)), nil }

// goValue is a value that a function may pass. Its literals are the values that columns
// then hold.
type goValue struct {
	name  string
	value any
	text  string            // in PostgreSQL's syntax
	json  string            // in a document
	bytea string            // in a bytea column
	in    map[string]string // in columns of other types
}

const anySample = "(sample)" // the sample of the column's type

var (
	noon     = time.Date(2024, 5, 1, 12, 30, 0, 123456000, time.FixedZone("", 2*3600)) // 10:30 UTC
	midnight = time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC)
)

// goValues returns a value of every kind, except those that are NULL.
func goValues() []goValue {
	int12 := func(name string, v any) goValue { return goValue{name: name, value: v, text: "12", json: "12"} }
	return []goValue{
		{name: "`string`, as PostgreSQL writes the value", value: anySample, text: anySample},
		{name: "named `string`", value: status(anySample), text: anySample},
		{name: "`bool`", value: true, text: "true", json: "true"},
		int12("`int`", 12), int12("`int8`", int8(12)), int12("`int16`", int16(12)), int12("`int32`", int32(12)), int12("`int64`", int64(12)),
		int12("`uint`", uint(12)), int12("`uint8`", uint8(12)), int12("`uint16`", uint16(12)), int12("`uint32`", uint32(12)), int12("`uint64`", uint64(12)),
		int12("named integer", cents(12)), int12("named integer with `String`", level(12)),
		{name: "`uint64` above the largest `int64`", value: uint64(1<<63 + 1), text: "9223372036854775809", json: "9223372036854775809"},
		int12("whole `float64`", 12.0),
		{name: "`float64` 1.5", value: 1.5, text: "1.5", json: "1.5"},
		{name: "`float32` 1.5", value: float32(1.5), text: "1.5", json: "1.5"},
		int12("`json.Number` 12", json.Number("12")),
		{name: "`json.Number` 1.5", value: json.Number("1.5"), text: "1.5", json: "1.5"},
		int12("`*big.Int`", big.NewInt(12)),
		{name: "`*big.Float`", value: big.NewFloat(1.5), text: "1.5", json: "1.5"},
		{name: "`[]byte`", value: []byte("12"), text: "12", json: "12", bytea: `\x3132`},
		{
			name: "`[16]byte`", value: [16]byte([]byte("0123456789abcdef")), text: "0123456789abcdef", bytea: `\x30313233343536373839616263646566`,
			in: map[string]string{"uuid": "30313233-3435-3637-3839-616263646566"},
		},
		{name: "`json.RawMessage`", value: json.RawMessage(`{"a":1}`), json: `{"a":1}`},
		{name: "`time.Time`", value: noon, text: "2024-05-01T10:30:00.123456Z", json: `"2024-05-01T10:30:00.123456Z"`},
		{name: "`time.Time` at midnight UTC", value: midnight, text: "2024-05-01T00:00:00Z", json: `"2024-05-01T00:00:00Z"`},
		{
			name: "`time.Duration`", value: 90 * time.Minute, text: "1h30m0s", json: "5400000000000",
			in: map[string]string{"bigint": "5400000000000", "numeric": "5400000000000", "double precision": "5400000000000", "real": "5400000000000", "interval": "01:30:00"},
		},
		{name: "slice", value: []int{1, 2}, text: "{1,2}", json: "[1,2]", in: map[string]string{"pair": "(1,2)"}},
		{name: "map", value: map[string]any{"a": "1"}, json: `{"a":"1"}`, in: map[string]string{"hstore": `a=>1`, "pair": "(1,)"}},
		{name: "struct", value: payload{1}, json: `{"a":1}`},
		{name: "`driver.Valuer`", value: amount{150}, text: "1.50", json: `"1.50"`},
		{name: "`encoding.TextMarshaler`", value: &ticket{12}, text: "12", json: `"12"`},
		{name: "`netip.Addr`", value: netip.MustParseAddr("10.0.0.1"), text: "10.0.0.1", json: `"10.0.0.1"`},
		{name: "`pgtype.Int8`", value: pgtype.Int8{Int64: 12, Valid: true}, text: "12", json: "12"},
		{name: "`pgtype.Numeric`", value: pgtype.Numeric{Int: big.NewInt(150), Exp: -2, Valid: true}, text: "1.50", json: `"1.50"`},
		{name: "`pgtype.Interval`", value: pgtype.Interval{Days: 1, Valid: true}, text: "1 day 00:00:00", json: `"1 day 00:00:00"`},
		{name: "`pgtype.Bits`", value: pgtype.Bits{Bytes: []byte{0xa0}, Len: 3, Valid: true}, text: "101", json: `"101"`},
		{name: "`pgtype.Range`", value: pgtype.Range[pgtype.Int4]{
			Lower: pgtype.Int4{Int32: 1, Valid: true}, Upper: pgtype.Int4{Int32: 5, Valid: true}, LowerType: pgtype.Inclusive, UpperType: pgtype.Exclusive, Valid: true,
		}, text: "[1,5)", json: `{"Lower":1,"Upper":5,"LowerType":105,"UpperType":101,"Valid":true}`, in: map[string]string{"int4multirange": "{[1,5)}"}},
		{name: "`sql.Null`", value: sql.Null[int64]{V: 12, Valid: true}, text: "12", json: "12"},
	}
}

// nulls returns the values that are NULL in every column.
func nulls() map[string]any {
	return map[string]any{
		"`nil`": nil, "nil pointer": (*int)(nil), "nil `[]byte`": []byte(nil), "nil slice": []string(nil), "nil map": map[string]any(nil),
		"nil `json.RawMessage`": json.RawMessage(nil), "nil `*time.Time`": (*time.Time)(nil), "nil pointer with methods": (*ticket)(nil),
		"`sql.NullString` that is not valid": sql.NullString{}, "`sql.Null` that is not valid": sql.Null[int64]{}, "`pgtype` value that is not valid": pgtype.Numeric{},
		"nil `*big.Int`": (*big.Int)(nil), "pointer to a nil pointer": new(*int),
	}
}

// columnTypes are the types of columns, with a value of each in PostgreSQL's syntax.
var columnTypes = []struct{ name, sample string }{
	{"boolean", "true"},
	{"smallint", "7"},
	{"integer", "7"},
	{"bigint", "7"},
	{"real", "0.1"},
	{"double precision", "0.1"},
	{"numeric", "7.50"},
	{"numeric(10,1)", "7.5"},
	{"money", "$7.50"},
	{"text", "a \"b\" \\ é {,}"},
	{"varchar(12)", "abc"},
	{"char(12)", "abc"},
	{"citext", "Abc"},
	{"name", "abc"},
	{"bytea", `\x00ff`},
	{"uuid", "0189f3a0-0000-7000-8000-000000000001"},
	{"date", "2024-05-01"},
	{"timestamp", "2024-05-01 10:00:00.5"},
	{"timestamp(3)", "2024-05-01 10:00:00.5"},
	{"timestamptz", "2024-05-01 10:00:00.5+00"},
	{"time", "10:00:00.5"},
	{"timetz", "10:00:00.5+00"},
	{"interval", "1 mon 2 days 03:04:05.5"},
	{"json", `{"a": 1}`},
	{"jsonb", `{"a": 1}`},
	{"xml", "<a>1</a>"},
	{"bit(3)", "101"},
	{"varbit", "101"},
	{"mood", "glad"},
	{"small", "7"},
	{"short", "7.5"},
	{"pair", "(1,\"a b\")"},
	{"int4range", "[1,5)"},
	{"numrange", "[1.5,2.5)"},
	{"tstzrange", `["2024-05-01 10:00:00+00",infinity)`},
	{"int4multirange", "{[1,5),[7,9)}"},
	{"inet", "10.0.0.1/24"},
	{"cidr", "10.0.0.0/24"},
	{"macaddr", "08:00:2b:01:02:03"},
	{"ltree", "a.b.c"},
	{"hstore", `"a"=>"1", "b"=>NULL`},
	{"tsvector", "'a':1 'b':2"},
	{"tsquery", "'a' & 'b'"},
	{"point", "(1,2)"},
	{"box", "(3,4),(1,2)"},
	{"oid", "7"},
	{"pg_lsn", "0/10"},
	{"jsonpath", `$."a"`},
}

const columnTypesSQL = `
create extension citext; create extension hstore; create extension ltree;
create type mood as enum ('glad', 'sad');
create domain small as integer check (value < 1000);
create domain short as numeric(10,1);
create type pair as (n integer, note text);
`

// valuesTable returns the name of the table with a column of a type.
func valuesTable(i int, array bool) string {
	if array {
		return fmt.Sprint("array_", i)
	}
	return fmt.Sprint("value_", i)
}

// verdict is the outcome of a value.
type verdict struct {
	outcome string // stored, or refused by the writer or the server
	reason  string
}

// TestWhatBecomesOfEveryValueInEveryColumn compares docs/values.md with the server.
func TestWhatBecomesOfEveryValueInEveryColumn(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	var tables strings.Builder
	tables.WriteString(columnTypesSQL)
	for i, c := range columnTypes {
		fmt.Fprintf(&tables, "create table %s (id text primary key, v %s); create table %s (id text primary key, v %s[]);\n", valuesTable(i, false), c.name, valuesTable(i, true), c.name)
	}
	sinktest.Execute(t, pool, tables.String())
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 2})

	checkNulls(t, w, pool)
	values := goValues()
	found := map[string]map[bool][]verdict{}
	for _, c := range columnTypes {
		found[c.name] = map[bool][]verdict{}
	}
	for _, array := range []bool{false, true} {
		var offers []sinkwriter.Offer
		for i, c := range columnTypes {
			for n, g := range values {
				v := g.value
				switch v {
				case anySample:
					v = c.sample
				case status(anySample):
					v = status(c.sample)
				}
				if array {
					v = []any{v, nil}
				}
				table, id := valuesTable(i, array), fmt.Sprint(n)
				offers = append(offers, write(table+" "+id, effects(insert(table, functions.Row{"id": id, "v": v}))))
			}
		}
		outcomes := w.CommitAll(t.Context(), offers)
		for i, c := range columnTypes {
			expect := map[string]string{}
			for n, g := range values {
				o := outcomes[i*len(values)+n]
				v := verdictOf(t, o)
				found[c.name][array] = append(found[c.name][array], v)
				if v.outcome == stored {
					expect[fmt.Sprint(n)] = literalOf(g, c.name, c.sample)
				}
			}
			checkStored(t, pool, valuesTable(i, array), c.name, array, expect)
		}
	}
	page := valuesPage(values, found) + checkEdgeValues(t, w, pool)
	xml := hasXML(t, pool)
	if *update {
		if !xml {
			t.Fatal("docs/values.md is of a server with XML, and this one was built without it")
		}
		if err := os.WriteFile("../docs/values.md", []byte(page), 0o644); err != nil { //nolint:gosec // it is a page
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("../docs/values.md")
	if err != nil {
		t.Fatal(err)
	}
	if !xml {
		t.Log("columns of xml were not compared: the server was built without it")
		have, page = []byte(withoutXML(string(have))), withoutXML(page)
	}
	if diff := cmp.Diff(string(have), page); diff != "" {
		t.Errorf("docs/values.md is outdated: run go test ./sinkwriter -run %s -update (-page +found):\n%s", t.Name(), diff)
	}
}

// hasXML reports whether the server was built with XML.
func hasXML(t *testing.T, pool *pgxpool.Pool) bool {
	t.Helper()

	var pg *pgconn.PgError
	if _, err := pool.Exec(t.Context(), "select xmlparse(content 'a')"); errors.As(err, &pg) && pg.Code == "0A000" {
		return false
	} else if err != nil {
		t.Fatal(err)
	}
	return true
}

// withoutXML returns the page without the section about xml columns.
func withoutXML(page string) string {
	before, rest, _ := strings.Cut(page, "\n### `xml`\n")
	_, after, _ := strings.Cut(rest, "\n### ")
	return before + "\n### " + after
}

func bigInt(i int64) *big.Int { return big.NewInt(i) }

const stored, refusedBefore, refusedByServer = "stored", "refused before the claim", "refused by the server"

// verdictOf returns the verdict of an outcome. It fails the test if a refusal is
// not FaultEvent.
func verdictOf(t *testing.T, o sinkwriter.Outcome) verdict {
	t.Helper()

	if o.Err == nil {
		if !o.Receipt.Won {
			t.Errorf("lost: %+v", o.Receipt)
		}
		return verdict{outcome: stored}
	}
	var refused *sinkwriter.Error
	if !errors.As(o.Err, &refused) {
		t.Errorf("neither stored nor refused: %v", o.Err)
		return verdict{}
	}
	var answer *pgconn.PgError
	if errors.As(o.Err, &answer) {
		return verdict{outcome: refusedByServer, reason: answer.Code}
	}
	if refused.Column != "v" {
		t.Errorf("the refusal does not name the column: %v", o.Err)
	}
	reason := strings.TrimPrefix(refused.Err.Error(), "element 0: ")
	if _, rest, ok := strings.Cut(reason, " does not fit "); ok {
		_, reason, ok = strings.Cut(rest, ": ")
		if !ok || reason == "" {
			t.Errorf("the refusal has no reason: %v", o.Err)
		}
	}
	return verdict{refusedBefore, reason}
}

// literalOf returns the value that a column then holds, in PostgreSQL's syntax.
func literalOf(g goValue, column, sample string) string {
	if literal, ok := g.in[column]; ok {
		return literal
	}
	switch {
	case g.text == anySample && (column == "json" || column == "jsonb"):
		text, _ := json.Marshal(sample) // a string is a string of the document
		return string(text)
	case g.text == anySample:
		return sample
	case column == "json", column == "jsonb":
		return g.json
	case column == "bytea" && g.bytea != "":
		return g.bytea
	}
	return g.text
}

// checkStored compares the rows of a table with literals that the server parses.
func checkStored(t *testing.T, pool *pgxpool.Pool, table, column string, array bool, expect map[string]string) {
	t.Helper()

	ids := slices.Sorted(maps.Keys(expect))
	literals := make([]string, len(ids))
	for i, id := range ids {
		literals[i] = expect[id]
	}
	have, want := "v", "l.literal::"+column
	if array {
		want = "array[" + want + ", null]"
	}
	rows, err := pool.Query(t.Context(), fmt.Sprintf(`select l.id, coalesce(%s::text, 'NULL'), (%s)::text from unnest($1::text[], $2::text[]) as l (id, literal) left join %s using (id)
		where %s::text is distinct from (%s)::text`, have, want, table, have, want), ids, literals)
	if err != nil {
		t.Fatalf("%s: %v", column, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, got, literal string
		if err := rows.Scan(&id, &got, &literal); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s, array %t, Go value %s: stored as %s, want %s", column, array, id, got, literal)
	}
	if err := rows.Err(); err != nil {
		t.Errorf("%s, array %t: %v", column, array, err)
	}
}

// checkNulls offers every value that is NULL to every column.
func checkNulls(t *testing.T, w *sinkwriter.Writer, pool *pgxpool.Pool) {
	t.Helper()

	var offers []sinkwriter.Offer
	for i := range columnTypes {
		for _, array := range []bool{false, true} {
			for name, v := range nulls() {
				table := valuesTable(i, array)
				offers = append(offers, write(table+" "+name, effects(insert(table, functions.Row{"id": name, "v": v}))))
			}
		}
	}
	for i, o := range w.CommitAll(t.Context(), offers) {
		if o.Err != nil {
			t.Errorf("%s: %v", offers[i].Event.ID(), o.Err)
		}
	}
	for i, c := range columnTypes {
		for _, array := range []bool{false, true} {
			if n := sinktest.Query[int](t, pool, "select count(*) from "+valuesTable(i, array)+" where v is null"); n != len(nulls()) {
				t.Errorf("%s, array %t: %d rows are NULL, want %d", c.name, array, n, len(nulls()))
			}
		}
	}
}

// valuesPage generates docs/values.md.
func valuesPage(values []goValue, found map[string]map[bool][]verdict) string {
	var b strings.Builder
	b.WriteString(valuesIntroduction)
	fmt.Fprintf(&b, "NULL in every column, and in every column of an array: %s.\n", strings.Join(slices.Sorted(maps.Keys(nulls())), ", "))
	for _, c := range columnTypes {
		of := found[c.name]
		fmt.Fprintf(&b, "\n### `%s`\n\n| outcome | Go value |\n|---|---|\n", c.name)
		writeVerdicts(&b, values, of[false], nil)
		if !slices.Equal(of[false], of[true]) {
			fmt.Fprintf(&b, "\nAs an element of `%s[]` it is the same, but for:\n\n| outcome | Go value |\n|---|---|\n", c.name)
			writeVerdicts(&b, values, of[true], of[false])
		}
	}
	return b.String()
}

// writeVerdicts adds a row for each verdict, except those that are equal in known.
func writeVerdicts(b *strings.Builder, values []goValue, verdicts, known []verdict) {
	names := map[verdict][]string{}
	for n, v := range verdicts {
		if known == nil || known[n] != v {
			names[v] = append(names[v], values[n].name)
		}
	}
	order := slices.SortedFunc(maps.Keys(names), func(a, b verdict) int {
		rank := map[string]int{stored: 0, refusedBefore: 1, refusedByServer: 2}
		if d := rank[a.outcome] - rank[b.outcome]; d != 0 {
			return d
		}
		return strings.Compare(a.reason, b.reason)
	})
	for _, v := range order {
		outcome := v.outcome
		if v.reason != "" {
			outcome += ": " + v.reason
		}
		fmt.Fprintf(b, "| %s | %s |\n", strings.ReplaceAll(outcome, "|", `\|`), strings.Join(names[v], ", "))
	}
}

const valuesIntroduction = `# Values: what a function passes, and what a column holds

After this page you know which Go values each type of column stores. A value of any Go type, in a column of any PostgreSQL type or of its
array, is **stored exactly**, or the event is **refused** with a sentence that names the column and the remedy. Nothing is rounded, cut off or
reinterpreted. A test generates this page from the answers of a server (` + "`go test ./sinkwriter -run EveryColumn -update`" + `), and compares
each stored value with the server's own reading of it.

- **Refused before the claim**: the value does not fit the column. The event is answered with 422 and becomes a dead letter; the other events of its batch are
  not affected. **Refused by the server** (with the SQLSTATE): only PostgreSQL can judge the value, such as one that violates a constraint or a text of
  a type that Tandem does not know. The answer is 422 too, and the batch is divided until the event is alone.
- **A value has one form, whatever the column is**, and clusters compare this form. A pointer stands for the value that it points to. A
  value with methods has the form that ` + "`Value`" + ` (` + "`driver.Valuer`" + `), else ` + "`MarshalText`" + `, else ` + "`MarshalJSON`" + ` returns; ` + "`String`" + ` is ignored. A struct
  without them is JSON.
- **Integers and floats**: a float fits an integer column if it is whole and below 2^53. From there on a float has lost digits that
  the event may have had: decode JSON into ` + "`int64`" + ` or ` + "`json.Number`" + ` (` + "`Decoder.UseNumber`" + `) instead of ` + "`any`" + `. A decimal fits ` + "`numeric(p,s)`" + `, ` + "`real`" + ` and ` + "`double precision`" + ` if
  PostgreSQL writes it with the same digits. Minus zero is zero.
- **Times** are stored in UTC and to the microsecond, because PostgreSQL has no nanoseconds: only these digits are dropped, from a ` + "`time.Time`" + ` and from
  a text alike. A text is RFC 3339, ` + "`2024-05-01`" + `, ` + "`2024-05-01 10:00:00`" + ` (UTC), or ` + "`infinity`" + `. Words such as ` + "`now`" + ` are refused, because the server's clock would decide.
  A ` + "`date`" + ` accepts no time of day, and ` + "`timestamp(3)`" + ` no microseconds: truncate them in the function.
- **Text** must be UTF-8 without the character zero, and not longer than the column allows, also where PostgreSQL itself would cut it off (` + "`name`" + `, domains over ` + "`varchar(n)`" + `).
- **JSON**: ` + "`[]byte`" + ` and ` + "`json.RawMessage`" + ` are documents; any other value is encoded, so a string becomes a JSON string.
- **Arrays** are slices, slices of slices for more dimensions, or a text such as ` + "`{1,2}`" + `. Nil elements are NULL, an empty slice is an empty array.
- **Composite types** are a map by the names of the attributes, a slice in their order, or a text such as ` + "`(1,abc)`" + `.
- **Time zone, date style and similar settings** of the role, the database or the connection string have no effect: each transaction sets its own.

PostGIS's geometry and geography accept text (WKT, or WKB in hexadecimal digits) and ` + "`[]byte`" + ` (EWKB).

`
