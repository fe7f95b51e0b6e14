package sinkwriter_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// edgeValue is a value at the limit of what a column accepts.
type edgeValue struct {
	column string
	name   string // in Go's syntax, or the function's name for it
	value  any
	want   string // the literal that is stored; empty if the value is refused before the claim
}

func edgeValues() []edgeValue {
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			panic(err)
		}
		return parsed
	}
	return []edgeValue{
		{"bigint", "12.99", 12.99, ""},
		{"bigint", "-0.5", -0.5, ""},
		{"bigint", "NaN", math.NaN(), ""},
		{"bigint", "+Inf", math.Inf(1), ""},
		{"bigint", "2^53 as a float64", float64(1 << 53), ""},
		{"bigint", "2^53-1 as a float64", float64(1<<53 - 1), "9007199254740991"},
		{"bigint", "-0.0", math.Copysign(0, -1), "0"},
		{"bigint", `json.Number("9007199254740993")`, json.Number("9007199254740993"), "9007199254740993"},
		{"bigint", `json.Number("1.2e1")`, json.Number("1.2e1"), "12"},
		{"bigint", `json.Number("1e400000000")`, json.Number("1e400000000"), ""},
		{"bigint", `" 12 "`, " 12 ", "12"},
		{"bigint", `"-9223372036854775808"`, "-9223372036854775808", "-9223372036854775808"},
		{"bigint", `"9223372036854775808"`, "9223372036854775808", ""},
		{"bigint", `"many"`, "many", ""},
		{"bigint", `""`, "", ""},
		{"integer", "1<<40", 1 << 40, ""},
		{"integer", "-1<<31", -1 << 31, "-2147483648"},
		{"smallint", "32768", 32768, ""},
		{"numeric", "0.1", 0.1, "0.1"},
		{"numeric", "19.99 + 12.5", 19.99 + 12.5, "32.49"},
		{"numeric", "2^53 as a float64", float64(1 << 53), ""},
		{"numeric", "NaN", math.NaN(), "NaN"},
		{"numeric", "-Inf", math.Inf(-1), "-Infinity"},
		{"numeric", `"1.500"`, "1.500", "1.500"},
		{"numeric", `"1e-10"`, "1e-10", "0.0000000001"},
		{"numeric", `"-12345678901234567890.123456789"`, "-12345678901234567890.123456789", "-12345678901234567890.123456789"},
		{"numeric", `"100000000"`, "100000000", "100000000"},
		{"numeric", `"0.00"`, "0.00", "0.00"},
		{"numeric", `"1e999999999"`, "1e999999999", ""},
		{"numeric", `"1e-999999999"`, "1e-999999999", ""},
		{"numeric", `"0x1F"`, "0x1F", ""},
		{"numeric(5,2)", "999.99", 999.99, "999.99"},
		{"numeric(5,2)", "1000", 1000, ""},
		{"numeric(5,2)", "12.345", 12.345, ""},
		{"numeric(5,2)", `"12.340"`, "12.340", "12.34"},
		{"numeric(5,2)", "+Inf", math.Inf(1), ""},
		{"numeric(2,-3)", "12000", 12000, "12000"},
		{"numeric(2,-3)", "12001", 12001, ""},
		{"real", "0.1 as a float64", 0.1, "0.1"},
		{"real", "16777217", 16777217, ""},
		{"real", "math.Pi", math.Pi, ""},
		{"real", "1e39", 1e39, ""},
		{"double precision", "NaN", math.NaN(), "NaN"},
		{"double precision", "-0.0", math.Copysign(0, -1), "0"},
		{"double precision", "1<<53 + 1", 1<<53 + 1, ""},
		{"double precision", `"0.1234567890123456789"`, "0.1234567890123456789", ""},
		{"double precision", `"1e400"`, "1e400", ""},
		{"double precision", `"1e-400"`, "1e-400", ""},
		{"boolean", `"yes"`, "yes", "true"},
		{"boolean", `"maybe"`, "maybe", ""},
		{"money", `"$1,234.50"`, "$1,234.50", "1234.50"},
		{"money", "-0.05", -0.05, "-0.05"},
		{"money", "1.005", 1.005, ""},
		{"varchar(3)", `"äöü"`, "äöü", "äöü"},
		{"varchar(3)", `"abcd"`, "abcd", ""},
		{"varchar(3)", `"abc "`, "abc ", ""},
		{"char(3)", `"ab"`, "ab", "ab"},
		{"char(3)", `"abcd"`, "abcd", ""},
		{"short_text", `"abcd"`, "abcd", ""},
		{"short_text[]", `[]string{"abcd"}`, []string{"abcd"}, ""},
		{"char(3)[]", `[]string{"abc"}`, []string{"abc"}, "{abc}"},
		{"name", "64 bytes", strings.Repeat("a", 64), ""},
		{`"char"`, `"ab"`, "ab", ""},
		{"text", `"a\x00b"`, "a\x00b", ""},
		{"text", `"\xff"`, "\xff", ""},
		{"text", `[]byte("\xff")`, []byte("\xff"), ""},
		{"text", `""`, "", "''"},
		{"bytea", "[]byte{}", []byte{}, `\x`},
		{"bytea", `"abc"`, "abc", ""},
		{"uuid", "in capitals, between braces", "{0189F3A0-0000-7000-8000-00000000000A}", "0189f3a0-0000-7000-8000-00000000000a"},
		{"uuid", "without hyphens", "0189f3a000007000800000000000000a", "0189f3a0-0000-7000-8000-00000000000a"},
		{"uuid", `"1"`, "1", ""},
		{"date", `"2024-05-01T00:00:00Z"`, "2024-05-01T00:00:00Z", "2024-05-01"},
		{"date", `"2024-05-01T10:00:00Z"`, "2024-05-01T10:00:00Z", ""},
		{"date", "midnight in Berlin", time.Date(2024, 5, 1, 0, 0, 0, 0, time.FixedZone("", 7200)), ""},
		{"date", `"infinity"`, "infinity", "infinity"},
		{"date", `"0044-03-15 BC"`, "0044-03-15 BC", "0044-03-15 BC"},
		{"date", `"2024-02-30"`, "2024-02-30", ""},
		{"date", `"01/02/2024"`, "01/02/2024", ""},
		{"date", `"today"`, "today", ""},
		{"date", "time.Time{}", time.Time{}, "0001-01-01"},
		{"timestamptz", `"2024-05-01T10:00:00Z"`, "2024-05-01T10:00:00Z", "2024-05-01 10:00:00+00"},
		{"timestamptz", `"2024-05-01T10:00:00.123456789+05:30"`, "2024-05-01T10:00:00.123456789+05:30", "2024-05-01 04:30:00.123456+00"},
		{"timestamptz", "the same as a time.Time", at("2024-05-01T10:00:00.123456789+05:30"), "2024-05-01 04:30:00.123456+00"},
		{"timestamptz", `"2024-05-01"`, "2024-05-01", "2024-05-01 00:00:00+00"},
		{"timestamptz", `"2024-05-01 10:00:00+02"`, "2024-05-01 10:00:00+02", "2024-05-01 08:00:00+00"},
		{"timestamptz", `"infinity"`, "infinity", "infinity"},
		{"timestamptz", `"-infinity"`, "-infinity", "-infinity"},
		{"timestamptz", "pgtype.Timestamptz, infinity", pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, "infinity"},
		{"timestamptz", `"now"`, "now", ""},
		{"timestamptz", "year 300000", time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC), ""},
		{"timestamptz", "year 5000 BC", time.Date(-4999, 1, 1, 0, 0, 0, 0, time.UTC), ""},
		{"timestamptz", "44 BC", time.Date(-43, 3, 15, 12, 0, 0, 0, time.UTC), "0044-03-15 12:00:00+00 BC"},
		{"timestamptz", "one microsecond before 1970", time.UnixMicro(-1), "1969-12-31 23:59:59.999999+00"},
		{"timestamp", `"2024-05-01T10:00:00+02:00"`, "2024-05-01T10:00:00+02:00", "2024-05-01 08:00:00"},
		{"timestamp(0)", "with a fraction", at("2024-05-01T10:00:00.5Z"), ""},
		{"timestamp(0)[]", "with a fraction", []time.Time{at("2024-05-01T10:00:00.5Z")}, ""},
		{"timestamptz[]", "44 BC", []time.Time{time.Date(-43, 3, 15, 12, 0, 0, 0, time.UTC)}, `{"0044-03-15 12:00:00+00 BC"}`},
		{"timestamptz[]", `"{now}"`, "{now}", ""},
		{"tstzrange", `"[now,)"`, "[now,)", ""},
		{"time", `"24:00:00"`, "24:00:00", "24:00:00"},
		{"time", `"10:00:00+02"`, "10:00:00+02", ""},
		{"time", `"now"`, "now", ""},
		{"time(0)", `"10:00:00.5"`, "10:00:00.5", ""},
		{"timetz", `"10:00:00+02"`, "10:00:00+02", "10:00:00+02"},
		{"interval", "time.Nanosecond", time.Nanosecond, ""},
		{"interval", `"1 year 2 mons -3 days"`, "1 year 2 mons -3 days", "1 year 2 mons -3 days"},
		{"interval", `"-1 days +02:03:00"`, "-1 days +02:03:00", "-1 days +02:03:00"},
		{"interval", `"0.0000001 s"`, "0.0000001 s", ""},
		{"interval(0)", "1.5 s", 1500 * time.Millisecond, ""},
		{"interval day to minute", "90 min", 90 * time.Minute, "01:30:00"},
		{"interval day to minute", "1 s", time.Second, ""},
		{"jsonb", `json.RawMessage("{")`, json.RawMessage("{"), ""},
		{"jsonb", "[]byte(`null`)", []byte("null"), "null"},
		{"jsonb", "`\"\\u0000\"`", json.RawMessage(`"\u0000"`), ""},
		{"jsonb", "`\"\\\\u0000\"`", json.RawMessage(`"\\u0000"`), `"\\u0000"`},
		{"json", "`\"\\u0000\"`", json.RawMessage(`"\u0000"`), `"\u0000"`},
		{"jsonb", "half of a pair", json.RawMessage(`"\ud800"`), ""},
		{"jsonb", "text that is not UTF-8", map[string]any{"a": "\xff"}, ""},
		{"jsonb", "NaN", math.NaN(), ""},
		{"jsonb", "a time in a map, of another zone", map[string]any{"at": at("2024-05-01T12:00:00.123456789+02:00")}, `{"at":"2024-05-01T10:00:00.123456Z"}`},
		{"jsonb", "values with methods in a list", []any{amount{150}, &ticket{7}, nil, (*ticket)(nil)}, `["1.50","7",null,null]`},
		{"jsonb[]", "documents", []any{map[string]any{"a": 1}, []int{1}, "x", nil}, `{"{\"a\": 1}","[1]","\"x\"",NULL}`},
		{"bit(3)", `"10"`, "10", ""},
		{"bit(3)", `"1010"`, "1010", ""},
		{"bit(3)[]", `[]string{"101"}`, []string{"101"}, "{101}"},
		{"flags", `"10"`, "10", ""},
		{"flags", `"1010"`, "1010", ""},
		{"varbit(3)", `"1010"`, "1010", ""},
		{"integer[]", "[]int{}", []int{}, "{}"},
		{"integer[]", "[]any{1, nil}", []any{1, nil}, "{1,NULL}"},
		{"integer[]", "[][]int{{1, 2}, {3, 4}}", [][]int{{1, 2}, {3, 4}}, "{{1,2},{3,4}}"},
		{"integer[]", "[][]int{{1}, {2, 3}}", [][]int{{1}, {2, 3}}, ""},
		{"integer[]", "[][]int{{1}, nil}", [][]int{{1}, nil}, ""},
		{"integer[]", "[][]int{{}}", [][]int{{}}, ""},
		{"integer[]", `"{1,NULL,3}"`, "{1,NULL,3}", "{1,NULL,3}"},
		{"integer[]", `"{1.5}"`, "{1.5}", ""},
		{"integer[]", `"{1,2"`, "{1,2", ""},
		{"integer[]", "[]float64{1.5}", []float64{1.5}, ""},
		{"integer[]", "pgtype.Array from -1 on", pgtype.Array[int]{Elements: []int{1, 2}, Dims: []pgtype.ArrayDimension{{Length: 2, LowerBound: -1}}, Valid: true}, "[-1:0]={1,2}"},
		{"integer[]", "pgtype.FlatArray", pgtype.FlatArray[int]{1, 2}, "{1,2}"},
		{"numeric(5,2)[]", `"{1.234}"`, "{1.234}", ""},
		{"numeric(5,2)[]", `[]string{"1.23"}`, []string{"1.23"}, "{1.23}"},
		{"text[]", `[]string{"NULL", "", "a\"b\\"}`, []string{"NULL", "", `a"b\`}, `{"NULL","","a\"b\\"}`},
		{"text[]", `[]string{"\x00"}`, []string{"\x00"}, ""},
		{"bytea[]", "[][]byte{{0}, nil}", [][]byte{{0}, nil}, `{"\\x00",NULL}`},
		{"box[]", `[]string{"(1,1),(0,0)"}`, []string{"(1,1),(0,0)"}, "{(1,1),(0,0)}"},
		{"mood[]", `[]string{"glad"}`, []string{"glad"}, "{glad}"},
		{"small[]", "[]int{7}", []int{7}, "{7}"},
		{"short", "7.55", 7.55, ""},
		{"short", "7.5", 7.5, "7.5"},
		{"priced", "map", map[string]any{"price": 1.5, "at": at("2024-05-01T12:00:00+02:00")}, `(1.50,"2024-05-01 10:00:00+00")`},
		{"priced", "more digits than an attribute keeps", map[string]any{"price": 1.555}, ""},
		{"priced", `"(1.555,)"`, "(1.555,)", ""},
		{"priced", `"(1.5,now)"`, "(1.5,now)", ""},
		{"priced", "an attribute that is not there", map[string]any{"cost": 1}, ""},
		{"priced[]", "[]any{map, nil}", []any{map[string]any{"price": 1.5}, nil}, `{"(1.50,)",NULL}`},
		{"numrange", "pgtype.Range without an upper bound", pgtype.Range[pgtype.Numeric]{LowerType: pgtype.Exclusive, UpperType: pgtype.Unbounded, Lower: pgtype.Numeric{Int: bigInt(15), Exp: -1, Valid: true}, Valid: true}, "(1.5,)"},
		{"numrange", "pgtype.Range, empty", pgtype.Range[pgtype.Numeric]{LowerType: pgtype.Empty, UpperType: pgtype.Empty, Valid: true}, "empty"},
		{"numrange", "pgtype.Range that is not valid", pgtype.Range[pgtype.Numeric]{}, "NULL"},
		{"int4multirange", "pgtype.Multirange", pgtype.Multirange[pgtype.Range[pgtype.Int4]]{
			{Lower: pgtype.Int4{Int32: 1, Valid: true}, LowerType: pgtype.Inclusive, UpperType: pgtype.Unbounded, Valid: true},
		}, "{[1,)}"},
		{"int4range[]", `[]string{"[1,3)"}`, []string{"[1,3)"}, `{"[1,3)"}`},
		{"macaddr", "net.HardwareAddr", []byte{8, 0, 0x2b, 1, 2, 3}, "08:00:2b:01:02:03"},
		{"hstore", `map[string]*string{"a\"": nil}`, map[string]*string{`a"`: nil}, `"a\""=>NULL`},
		{"hstore", "map of numbers", map[string]int{"a": 1}, ""},
		{"mixed_schema.mood", `"glad"`, "glad", "glad"},
	}
}

// checkEdgeValues offers values at the limits of what columns accept, and returns their part of
// the page.
func checkEdgeValues(t *testing.T, w *sinkwriter.Writer, pool *pgxpool.Pool) string {
	t.Helper()

	sinktest.Execute(t, pool, `create domain short_text as varchar(3); create domain flags as bit(3); create type priced as (price numeric(5,2), at timestamptz);
		create schema mixed_schema; create type mixed_schema.mood as enum ('glad')`)
	values := edgeValues()
	tables := map[string]string{}
	var offers []sinkwriter.Offer
	for i, v := range values {
		if tables[v.column] == "" {
			tables[v.column] = fmt.Sprint("edge_", i)
			sinktest.Execute(t, pool, fmt.Sprintf("create table edge_%d (id text primary key, v %s)", i, v.column))
		}
		offers = append(offers, write(fmt.Sprint("edge ", i), effects(insert(tables[v.column], functions.Row{"id": fmt.Sprint(i), "v": v.value}))))
	}
	var b strings.Builder
	b.WriteString("\n## At the edge\n\n| column | value | outcome |\n|---|---|---|\n")
	for i, o := range w.CommitAll(t.Context(), offers) {
		v := values[i]
		found := verdictOf(t, o)
		outcome := found.outcome
		switch {
		case found.outcome == stored && v.want == "":
			t.Errorf("%s, %s: stored as %s, want it refused", v.column, v.name, sinktest.Query[string](t, pool, "select v::text from "+tables[v.column]+" where id = $1", fmt.Sprint(i)))
		case found.outcome == stored:
			literal := any(v.want)
			switch v.want {
			case "NULL":
				literal, outcome = nil, "NULL"
			case "''":
				literal = ""
			}
			var got, want string
			sql := fmt.Sprintf("select coalesce(v::text, 'NULL'), coalesce($2::text::%s::text, 'NULL') from %s where id = $1", v.column, tables[v.column])
			if err := pool.QueryRow(t.Context(), sql, fmt.Sprint(i), literal).Scan(&got, &want); err != nil || got != want {
				t.Errorf("%s, %s: stored as %s, want %s, %v", v.column, v.name, got, want, err)
			}
		case found.outcome == refusedBefore && v.want == "":
			outcome += ": " + found.reason
		default:
			t.Errorf("%s, %s: %v, want it stored as %q", v.column, v.name, o.Err, v.want)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.column, strings.ReplaceAll(v.name, "|", `\|`), strings.ReplaceAll(outcome, "|", `\|`))
	}
	return b.String()
}
