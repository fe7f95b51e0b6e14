package sinkwriter

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

func TestDigestsAreEqualForEqualEffects(t *testing.T) {
	t.Parallel()
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	minus := math.Copysign(0, -1)
	tests := []struct {
		name string
		a, b any
		same bool
	}{
		{"zone of a time", at, at.In(time.FixedZone("x", 3600)), true},
		{"another time", at, at.Add(time.Microsecond), false},
		{"width of an integer", int32(7), int64(7), true},
		{"integer and text", 7, "7", false},
		{"minus zero", 0.0, minus, true},
		{"order of names in JSON", json.RawMessage(`{"a":1,"b":[true,null]}`), json.RawMessage(` {"b":[true,null], "a":1}`), true},
		{"spelling of a number in JSON", json.RawMessage(`[1e2, 0.10]`), json.RawMessage(`[100, 1e-1]`), true},
		{"digits beyond a float in JSON", json.RawMessage(`9007199254740993`), json.RawMessage(`9007199254740992`), false},
		{"value in JSON", json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":2}`), false},
		{"nested map", map[string]any{"a": []any{1, "x"}}, map[string]any{"a": []any{1, "x"}}, true},
		{"null and empty", nil, "", false},
		{"elements do not run together", []string{"ab", "c"}, []string{"a", "bc"}, false},
		{"typed slice", []int{1, 2}, []int64{1, 2}, true},
		{"struct", struct{ A int }{1}, struct{ A int }{1}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var d [2]digest
			for i, v := range []any{tt.a, tt.b} {
				var fx functions.Effects
				fx.Insert("t", functions.Row{"id": 1, "v": v})
				var err error
				if d[i], _, err = digestEffects(nil, fx, nil); err != nil {
					t.Fatal(err)
				}
			}
			if got := d[0] == d[1]; got != tt.same {
				t.Errorf("digests of %v and %v are equal: %t, want %t", tt.a, tt.b, got, tt.same)
			}
		})
	}
}

func TestDigestsTellOperationsAndTablesApart(t *testing.T) {
	t.Parallel()
	row := functions.Row{"id": 1}
	seen := map[digest]string{}
	for name, fx := range map[string]functions.Effects{
		"nothing":     {},
		"insert":      {Writes: []functions.Write{{Op: functions.OpInsert, Table: "t", Row: row}}},
		"other table": {Writes: []functions.Write{{Op: functions.OpInsert, Table: "u", Row: row}}},
		"add":         {Writes: []functions.Write{{Op: functions.OpAdd, Table: "t", Row: row}}},
		"in the key":  {Writes: []functions.Write{{Op: functions.OpInsert, Table: "t", Key: row}}},
		"twice":       {Writes: []functions.Write{{Op: functions.OpInsert, Table: "t", Row: row}, {Op: functions.OpInsert, Table: "t", Row: row}}},
	} {
		d, _, err := digestEffects(nil, fx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[d] = name
	}
}

// canonicalByLibrary is what appendJSON does, by way of encoding/json.
func canonicalByLibrary(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 'n')
	case bool:
		return append(b, map[bool]byte{true: 't', false: 'f'}[v])
	case string:
		return appendPart(append(b, 's'), v)
	case json.Number:
		return appendPart(append(b, 'd'), canonicalNumber(v.String()))
	case []any:
		b = binary.BigEndian.AppendUint32(append(b, 'a'), uint32(len(v)))
		for _, item := range v {
			b = canonicalByLibrary(b, item)
		}
	case map[string]any:
		b = binary.BigEndian.AppendUint32(append(b, 'm'), uint32(len(v)))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			b = canonicalByLibrary(appendPart(b, name), v[name])
		}
	}
	return b
}

func FuzzCanonicalJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2.50,-0,1e400]}`, `""`, `[`, `{"a":1}x`, `1e-99999999999`, `{"b":1,"a":{"d":"\u00e9","c":null}, "b":2}`,
		"\"\xff\"", ` [ true , false,null,10,100,1.0 ] `, `{"":{}}`, `[[],{}]`, `-`, `01`, `{"a" 1}`, `"\ud800"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := appendJSON(nil, text)
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var v any
		want := appendPart([]byte{'b'}, text)
		if json.Valid(text) && d.Decode(&v) == nil {
			want = canonicalByLibrary([]byte{'j'}, v)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("canonical form of %q is %q, want %q", text, got, want)
		}
	})
}
