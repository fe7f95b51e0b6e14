package program

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

type (
	cents int64
	point struct{ X, Y int }
)

// TestEffectsKeepTheirCanonicalForm compares the JSON form with the canonical form, by
// which clusters are compared.
func TestEffectsKeepTheirCanonicalForm(t *testing.T) {
	t.Parallel()

	n := 7
	var none *int
	at := time.Date(2001, 2, 3, 4, 5, 6, 789012345, time.FixedZone("x", 3600))
	var fx functions.Effects
	fx.Insert("t", functions.Row{
		"null": nil, "true": true, "false": false, "int": 1, "int8": int8(-8), "cents": cents(5), "big": int64(math.MinInt64),
		"uint": uint16(9), "huge": uint64(math.MaxUint64), "float": 1.5, "float32": float32(0.1), "nan": math.NaN(), "inf": math.Inf(-1), "zero": math.Copysign(0, -1),
		"text": "a<b>&\u2028\"", "empty": "", "bytes": []byte{0, 255}, "nobytes": []byte{}, "nilbytes": []byte(nil),
		"json": json.RawMessage(`{"b": 1.50, "a": "<"}`), "nojson": json.RawMessage(`{`), "uuid": [16]byte{1, 2, 3}, "time": at,
		"map": map[string]any{"z": 1, "a": []any{"x", nil}}, "emptymap": map[string]any{}, "row": functions.Row{"q": 1},
		"pointer": &n, "nil": none, "list": []string{"a", "b"}, "emptylist": []int{}, "nillist": []int(nil), "struct": point{1, 2}, "points": []point{{3, 4}},
		"duration": time.Second,
	})
	fx.Add("s.c", functions.Row{"k": "v"}, functions.Row{"n": 1})
	fx.Upsert("t", functions.Row{"id": 1, "at": at}, functions.NewestWins("at"))
	fx.Upsert("t", functions.Row{"id": 1}, functions.Replace())
	fx.Delete("t", functions.Row{"id": 2})
	fx.Delete("t", functions.Row{"id": 2}, functions.Version{Column: "at", Value: at})
	fx.Exec(functions.Statement{Name: "move", SQL: "update t set a = $1"}, "x", 2, nil)
	fx.Emit(functions.Output{Type: "a", Subject: "s", Data: point{1, 2}, Time: at, Extensions: map[string]string{"tenant": "x"}})
	fx.Emit(functions.Output{Type: "b", Data: []byte{0, 1}, DataContentType: "application/octet-stream"})
	fx.Emit(functions.Output{Type: "c", Data: json.RawMessage(`{"a": 1}`)})
	fx.Emit(functions.Output{Type: "d"})

	encoded, err := encodeEffects(fx)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(encoded)
	if err != nil {
		t.Fatal(err)
	}
	var read effects
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	got, err := read.decode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range fx.Writes {
		want, err := fx.Writes[i].AppendCanonical(nil)
		if err != nil {
			t.Fatal(err)
		}
		if form, err := got.Writes[i].AppendCanonical(nil); err != nil || !bytes.Equal(form, want) {
			t.Errorf("write %d: %v\n%q, want\n%q", i, err, form, want)
		}
	}
	want, outputs, err := fx.AppendCanonical(nil)
	if err != nil {
		t.Fatal(err)
	}
	form, gotOutputs, err := got.AppendCanonical(nil)
	if err != nil || !bytes.Equal(form, want) {
		t.Errorf("%v\n%q, want\n%q", err, form, want)
	}
	for i := range outputs {
		if string(gotOutputs[i].Bytes) != string(outputs[i].Bytes) || gotOutputs[i].ContentType != outputs[i].ContentType {
			t.Errorf("output %d: %+v, want %+v", i, gotOutputs[i], outputs[i])
		}
	}
	if _, ok := got.Writes[0].Row["time"].(time.Time); !ok {
		t.Errorf("a time is read as %T", got.Writes[0].Row["time"])
	}
}
