package functions

import (
	"bytes"
	"database/sql/driver"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

type (
	hidden    struct{ n int }
	marshaler struct{ n int }
	named     time.Time
)

func (h hidden) Value() (driver.Value, error) { return strconv.Itoa(h.n), nil }

func (m *marshaler) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(m.n), 10), nil }

func TestCanonicalFormsAreEqualForEqualEffects(t *testing.T) {
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
		{"nil and empty bytes", []byte(nil), []byte{}, false},
		{"nil and empty map", map[string]any(nil), map[string]any{}, false},
		{"nil JSON and nil", json.RawMessage(nil), nil, true},
		{"nil pointer and nil", (*big.Int)(nil), nil, true},
		{"integers with methods", big.NewInt(1), big.NewInt(2), false},
		{"integers with methods, beyond an int64", new(big.Int).Lsh(big.NewInt(1), 100), *new(big.Int).Lsh(big.NewInt(1), 100), true},
		{"json.Number and text", json.Number("1"), "1", false},
		{"duration and integer", time.Second, int64(time.Second), false},
		{"valuers", hidden{1}, hidden{2}, false},
		{"valuer and pointer to it", hidden{1}, &hidden{1}, true},
		{"text marshalers", &marshaler{1}, &marshaler{2}, false},
		{"text marshaler and a value of it", &marshaler{1}, marshaler{1}, true},
		{"valuer and its value", hidden{1}, "1", true},
		{"type whose kind is a time", named(at), at, true},
		{"pointer to a time", &at, at, true},
		{"pointer to JSON", new(json.RawMessage), nil, true},
		{"nanoseconds", at, at.Add(time.Nanosecond), true},
		{"map of another type", map[string]int{"a": 1}, map[string]any{"a": 1}, true},
		{"bytes and an array of them", []byte{1, 2}, [2]byte{1, 2}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var d [2][]byte
			for i, v := range []any{tt.a, tt.b} {
				var fx Effects
				fx.Insert("t", Row{"id": 1, "v": v})
				var err error
				if d[i], _, err = fx.AppendCanonical(nil); err != nil {
					t.Fatal(err)
				}
			}
			if got := bytes.Equal(d[0], d[1]); got != tt.same {
				t.Errorf("canonical forms of %v and %v are equal: %t, want %t", tt.a, tt.b, got, tt.same)
			}
		})
	}
}

func TestCanonicalFormsTellOperationsAndTablesApart(t *testing.T) {
	t.Parallel()
	row := Row{"id": 1}
	seen := map[string]string{}
	for name, fx := range map[string]Effects{
		"nothing":     {},
		"insert":      {Writes: []Write{{Op: OpInsert, Table: "t", Row: row}}},
		"other table": {Writes: []Write{{Op: OpInsert, Table: "u", Row: row}}},
		"add":         {Writes: []Write{{Op: OpAdd, Table: "t", Row: row}}},
		"in the key":  {Writes: []Write{{Op: OpInsert, Table: "t", Key: row}}},
		"twice":       {Writes: []Write{{Op: OpInsert, Table: "t", Row: row}, {Op: OpInsert, Table: "t", Row: row}}},
	} {
		d, _, err := fx.AppendCanonical(nil)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(d)]; ok {
			t.Errorf("%s and %s have the same canonical form", name, other)
		}
		seen[string(d)] = name
	}
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

func FuzzNumbersHaveOneCanonicalFormEach(f *testing.F) {
	for _, s := range [][2]string{
		{"1", "1.0"},
		{"100", "1e2"},
		{"-0", "0"},
		{"0.0e9", "0"},
		{"1E+2", "1e02"},
		{"-1.50", "-15e-1"},
		{"9007199254740993", "9007199254740992"},
		{"0.1", "1e-1"},
		{"10", "01"},
		{"1e-9999", "1e9999"},
		{"123.456000e3", "123456"},
		{"0.00", "-0.0e-5"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, ok := rational(a)
		y, ok2 := rational(b)
		if !ok || !ok2 {
			return
		}
		one, other := canonicalNumber(a), canonicalNumber(b)
		if (x.Cmp(y) == 0) != (one == other) {
			t.Errorf("canonical forms of %s and %s are %s and %s", a, b, one, other)
		}
		if back, ok := new(big.Rat).SetString(one); !ok || back.Cmp(x) != 0 {
			t.Errorf("canonical form of %s is %s", a, one)
		}
		for _, s := range []string{a, " " + b + "\n"} { // and as it may occur in JSON
			if got := appendJSONOrBytes(nil, []byte(s)); !bytes.Equal(got, appendPart([]byte("jd"), canonicalNumber(strings.TrimSpace(s)))) {
				t.Errorf("canonical form of %q is %q", s, got)
			}
		}
	})
}

// canonicalByLibrary does the same as appendJSON with encoding/json.
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
		got := appendJSONOrBytes(nil, text)
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

type broken struct{}

func (broken) Value() (driver.Value, error) { panic("sprung") }

func TestPlainRefusesWhatHasNoForm(t *testing.T) {
	t.Parallel()
	circle := new(any)
	*circle = circle
	for name, v := range map[string]any{
		"function": func() {}, "channel": make(chan int), "complex number": 1i, "no exported field": struct{ a int }{1}, "panic": broken{}, "circle": circle,
	} {
		if plain, err := Plain(v); err == nil {
			t.Errorf("%s: %#v, want an error", name, plain)
		}
	}
}
