package sinkwriter

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// split splits fuzzed bytes into elements: each begins with its length, and 255
// is NULL.
func split(data []byte) [][]byte {
	list := [][]byte{}
	for len(data) > 0 {
		n := int(data[0])
		data = data[1:]
		if n == 255 {
			list = append(list, nil)
			continue
		}
		n = min(n, len(data))
		list = append(list, bytes.Clone(data[:n:n]))
		data = data[n:]
	}
	return list
}

// array encodes elements; a nil element is NULL.
func array(elemOID uint32, list [][]byte) []byte {
	return appendArray(nil, elemOID, len(list), func(i int) ([]byte, bool) { return list[i], list[i] == nil })
}

func FuzzArraysAreReadAsTheyWereWritten(f *testing.F) {
	for _, s := range []string{"", "\x00", "\xff", "\x01a\xff\x00\x02bc", "\x05ab", "\xff\xff\xff", "\x04\x00\x01\xff\xfe"} {
		f.Add([]byte(s))
	}
	types := pgtype.NewMap()
	f.Fuzz(func(t *testing.T, data []byte) {
		list := split(data)
		var got [][]byte
		if err := types.Scan(pgtype.ByteaArrayOID, pgtype.BinaryFormatCode, array(pgtype.ByteaOID, list), &got); err != nil {
			t.Fatalf("%q: %v", list, err)
		}
		if len(got) != len(list) {
			t.Fatalf("%d elements, want %d", len(got), len(list))
		}
		for i := range list {
			if (got[i] == nil) != (list[i] == nil) || !bytes.Equal(got[i], list[i]) {
				t.Errorf("element %d is %q, want %q", i, got[i], list[i])
			}
		}
	})
}

// rational returns the exact value of a JSON number, if it has a realistic size.
func rational(s string) (*big.Rat, bool) {
	if !json.Valid([]byte(s)) || len(s) > 100 {
		return nil, false
	}
	if _, exponent, ok := strings.Cut(strings.ToLower(s), "e"); ok && len(exponent) > 4 {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

// builtinColumn returns a column of a type that is sent in binary.
func builtinColumn(oid uint32, kind typeKind) *column {
	c := newColumn("v", &columnType{oid: oid, name: "the type", kind: kind, modifier: -1})
	return &c
}

func FuzzEqualNumericsAreOneKey(f *testing.F) {
	for _, s := range [][2]string{
		{"1", "1.000"}, {"10000", "1e4"}, {"-0", "0.00"}, {"0.0001", "0.00010"}, {"123456789.5", "123456789.50000"}, {"-1", "1"}, {"100000000", "10000"},
	} {
		f.Add(s[0], s[1])
	}
	col := builtinColumn(pgtype.NumericOID, kindNumeric)
	col.spelling = normal
	f.Fuzz(func(t *testing.T, a, b string) {
		x, ok := rational(a)
		y, ok2 := rational(b)
		if !ok || !ok2 {
			return
		}
		var keys [2]string
		for i, s := range []string{a, b} {
			arena, v, err := appendValue(nil, col, s)
			if err != nil {
				return // an exponent, say
			}
			arena, key := appendNormal(arena, col, v)
			keys[i] = string(arena[key.from:key.to])
		}
		if (x.Cmp(y) == 0) != (keys[0] == keys[1]) {
			t.Errorf("keys of %s and %s are %x and %x", a, b, keys[0], keys[1])
		}
	})
}

func FuzzSumsAreThoseOfTheServer(f *testing.F) {
	for _, s := range [][2]int64{{1, 2}, {-1, 1}, {1<<63 - 1, 1}, {-1 << 63, -1}, {-1 << 63, 1<<63 - 1}, {1<<31 - 1, 1}, {-1 << 31, -1}, {0, 0}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, a, b int64) {
		sum := new(big.Int).Add(big.NewInt(a), big.NewInt(b))
		arena := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(a)), uint64(b))
		out, at, ok := add(arena, &column{elemOID: pgtype.Int8OID}, span{0, 8}, span{8, 16})
		if ok != sum.IsInt64() || ok && int64(binary.BigEndian.Uint64(out[at.from:at.to])) != sum.Int64() {
			t.Errorf("%d + %d: %t, %x", a, b, ok, out[16:])
		}

		sum.Add(big.NewInt(int64(int32(a))), big.NewInt(int64(int32(b))))
		arena = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(a)), uint32(b))
		out, at, ok = add(arena, &column{elemOID: pgtype.Int4OID}, span{0, 4}, span{4, 8})
		fits := sum.IsInt64() && sum.Int64() == int64(int32(sum.Int64()))
		if ok != fits || ok && int64(int32(binary.BigEndian.Uint32(out[at.from:at.to]))) != sum.Int64() {
			t.Errorf("%d + %d: %t, %x", int32(a), int32(b), ok, out[8:])
		}
	})
}

func FuzzVersionsCompareAsTheirValues(f *testing.F) {
	f.Add(int64(0), int64(1))
	f.Add(int64(-1), int64(1))
	f.Add(int64(-1<<40), int64(1<<40))
	f.Fuzz(func(t *testing.T, a, b int64) {
		const most = int64(1e16) // microseconds: some 300 years
		x, y := time.UnixMicro(a%most), time.UnixMicro(b%most)
		xDay, yDay := x.UTC().Truncate(24*time.Hour), y.UTC().Truncate(24*time.Hour)
		tests := []struct {
			oid  uint32
			kind typeKind
			a, b any
			want int
		}{
			{pgtype.Int8OID, kindInt8, a, b, big.NewInt(a).Cmp(big.NewInt(b))},
			{pgtype.Int4OID, kindInt4, int32(a), int32(b), big.NewInt(int64(int32(a))).Cmp(big.NewInt(int64(int32(b))))},
			{pgtype.TimestamptzOID, kindTimestamptz, x, y, x.Compare(y)},
			{pgtype.TimestampOID, kindTimestamp, x, y, x.Compare(y)},
			{pgtype.DateOID, kindDate, xDay, yDay, xDay.Compare(yDay)},
		}
		for _, tt := range tests {
			col := builtinColumn(tt.oid, tt.kind)
			arena, v, err := appendValue(nil, col, tt.a)
			if err != nil {
				t.Fatal(err)
			}
			arena, w, err := appendValue(arena, col, tt.b)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := compareBinary(col, arena[v.from:v.to], arena[w.from:w.to]); !ok || got != tt.want {
				t.Errorf("type %d: %v and %v compare as %d (%t), want %d", tt.oid, tt.a, tt.b, got, ok, tt.want)
			}
		}
	})
}

func FuzzQuotedNamesAreOneName(f *testing.F) {
	for _, s := range []string{"", "a", `a"b`, `"`, `""`, `"; drop table x; --`, "a.b", "ü", "A", "\\", "select", " "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		quoted := quoteIdent(name)
		inner := quoted[1 : len(quoted)-1]
		if quoted[0] != '"' || quoted[len(quoted)-1] != '"' || strings.Contains(strings.ReplaceAll(inner, `""`, ""), `"`) {
			t.Errorf("%q is quoted as %s, which is more than a name", name, quoted)
		}
		if back := strings.ReplaceAll(inner, `""`, `"`); back != name {
			t.Errorf("%q is quoted as %s", name, quoted)
		}
		if name != "" && !strings.ContainsRune(name, 0) {
			if want := (pgx.Identifier{name}).Sanitize(); quoted != want {
				t.Errorf("%q is quoted as %s, pgx does it as %s", name, quoted, want)
			}
		}
	})
}

func FuzzOutputsAreReadAsTheyWereWritten(f *testing.F) {
	f.Add("t", "", "", []byte(nil), "", "")
	f.Add("com.example.t", "sub \"ject\" ü", "text/plain; charset=utf-8", []byte("a\n\"b\" <&>"), "name", "value")
	f.Add("t", "s", "application/json", []byte(`{"a": [1.50, null]}`), "a1", "<\\>")
	f.Add("t", "s", "application/vnd.x+json", []byte(`[1]`), "", "")
	f.Add("t", "s", "image/png", []byte{0, 1, 0xff}, "b", "2")
	f.Fuzz(func(t *testing.T, kind, subject, contentType string, data []byte, extension, value string) {
		input := event.New()
		input.SetSource("/fuzz")
		input.SetID("1")
		input.SetType("in")
		o := functions.Output{Type: kind, Subject: subject, DataContentType: contentType, Data: data}
		if extension != "" {
			o.Extensions = map[string]string{extension: value}
		}
		e, err := o.Event("f", input, 0)
		if err != nil {
			return // not a valid event
		}
		if err := cloudevent.Check(e); err != nil {
			t.Fatalf("%v could not be published: %v", e, err)
		}
		text, err := cloudevent.AppendBatch(nil, []event.Event{e})
		if err != nil {
			t.Fatalf("%v: %v", e, err)
		}
		if !json.Valid(text) || !utf8.Valid(text) {
			t.Fatalf("no JSON: %q", text)
		}
		read, err := cloudevent.ReadBatch(text, cloudevent.Rules{})
		if err != nil || len(read) != 1 || read[0].Err != nil {
			t.Fatalf("%s is read as %v, error %v", text, read, err)
		}
		back := read[0].Event
		if json.Valid(data) {
			// White space around JSON does not count.
			e.DataEncoded, back.DataEncoded = bytes.TrimSpace(e.DataEncoded), bytes.TrimSpace(back.DataEncoded)
		}
		if diff := cmp.Diff(e, back); diff != "" {
			t.Errorf("%s (-written +read):\n%s", text, diff)
		}
	})
}

// Checks the seeds of the fuzz targets against a server.
func TestTheServerReadsNamesAndArraysAsWeWriteThem(t *testing.T) {
	t.Parallel()
	conn := connect(t, pgtest.URL(t))
	for _, name := range []string{"a", `a"b`, `"`, `""`, `"; drop table x; --`, "ü", "A", "\\", "select", " ", "a b", "$1", "'"} {
		var got []string
		if err := conn.QueryRow(t.Context(), `select parse_ident($1)`, quoteIdent(name)).Scan(&got); err != nil || len(got) != 1 || got[0] != name {
			t.Errorf("the server reads %s as %q, %v", quoteIdent(name), got, err)
		}
		if err := conn.QueryRow(t.Context(), `select parse_ident($1)`, quoteName("my schema."+name)).Scan(&got); err != nil || len(got) != 2 || got[1] != name {
			t.Errorf("the server reads %s as %q, %v", quoteName("my schema."+name), got, err)
		}
	}
	for _, list := range [][][]byte{{}, {nil}, {{}}, {[]byte("a"), nil, []byte("{,}\"\\")}, {nil, nil}, {bytes.Repeat([]byte("x"), 100_000)}} {
		result := conn.PgConn().ExecParams(t.Context(), `select format('%s %s', coalesce(cardinality($1), 0), $1::text)`,
			[][]byte{array(pgtype.TextOID, list)}, []uint32{pgtype.TextArrayOID}, []int16{pgtype.BinaryFormatCode}, nil).Read()
		if result.Err != nil {
			t.Errorf("%q: %v", list, result.Err)
			continue
		}
		var strs []*string
		for _, e := range list {
			if e == nil {
				strs = append(strs, nil)
				continue
			}
			s := string(e)
			strs = append(strs, &s)
		}
		var want string
		if err := conn.QueryRow(t.Context(), `select format('%s %s', $2::int, $1::text[]::text)`, strs, len(list)).Scan(&want); err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			want = "0 {}"
		}
		if got := string(result.Rows[0][0]); got != want {
			t.Errorf("the server reads %q as %s, want %s", list, got, want)
		}
	}
}
