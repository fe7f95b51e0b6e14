package functions_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions"
)

type order struct {
	Customer string         `json:"customer"`
	At       time.Time      `json:"at"`
	From     netip.Addr     `json:"from"`
	Paid     bool           `json:"paid"`
	Discount *float64       `json:"discount"`
	Count    uint8          `json:"count"`
	Number   int64          `json:"number,string"`
	Raw      []byte         `json:"raw"`
	Totals   map[string]int `json:"totals"`
	Lines    []line         `json:"lines"`
	address
}

type address struct {
	City string `json:"city"`
}

type line struct {
	Price int32  `json:"price"`
	Notes []note `json:"notes"`
}

type note struct {
	Text string `json:"text"`
}

// Validate checks constraints that JSON cannot express.
func (o order) Validate() error {
	if o.Customer == "nobody" {
		return errors.New("customer: there is none of this name")
	}
	return nil
}

// reader returns a function that stores the decoded data of an event in got.
func reader[T any](got *T) functions.Func {
	return functions.JSON(func(_ context.Context, e event.Event, data T) (functions.Effects, error) {
		*got = data
		var fx functions.Effects
		fx.Emit(functions.Output{Type: e.ID()})
		return fx, nil
	})
}

func ordered(contentType, data string) event.Event {
	e := event.New()
	e.SetSource("/orders")
	e.SetID("42")
	e.SetType("com.example.ordered")
	if contentType != "" {
		e.SetDataContentType(contentType)
	}
	e.DataEncoded = []byte(data)
	return e
}

func TestDataAreReadAsTheType(t *testing.T) {
	t.Parallel()

	for _, contentType := range []string{"", "application/json", "Application/JSON; charset=utf-8", "text/json", "application/vnd.example+json"} {
		var got order
		e := ordered(contentType, ` {"customer":"Ann","other":{"x":[1]},"paid":true,"discount":null,"lines":[{"price":1},{"price":2}],"number":"7","city":"Ulm","city":"Bonn"} `)
		fx, err := reader(&got)(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		want := order{Customer: "Ann", Paid: true, Number: 7, Lines: []line{{Price: 1}, {Price: 2}}, address: address{City: "Bonn"}}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(order{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("data (-want +got):\n%s", diff)
		}
		if len(fx.Outputs) != 1 || fx.Outputs[0].Type != "42" {
			t.Errorf("the effects are %v", fx)
		}
	}
}

func TestAnyTypeCanBeRead(t *testing.T) {
	t.Parallel()

	var text string
	var list []int
	var raw json.RawMessage
	var pointer *order
	var anything any
	for _, tt := range []struct {
		f    functions.Func
		data string
	}{
		{reader(&text), `"x"`},
		{reader(&list), `[1,2]`},
		{reader(&raw), `{"a" : 1}`},
		{reader(&pointer), `{"customer":"Ann"}`},
		{reader(&anything), `1.5`},
	} {
		if _, err := tt.f(t.Context(), ordered("", tt.data)); err != nil {
			t.Errorf("%s: %v", tt.data, err)
		}
	}
	if text != "x" || len(list) != 2 || string(raw) != `{"a" : 1}` || pointer.Customer != "Ann" || anything != 1.5 {
		t.Errorf("read %q, %v, %s, %v and %v", text, list, raw, pointer, anything)
	}
	if _, err := reader(&pointer)(t.Context(), ordered("", `{"customer":"nobody"}`)); err == nil {
		t.Error("a pointer's Validate was not called")
	}
}

func TestDataThatDoNotFitAreRejected(t *testing.T) {
	t.Parallel()

	tests := []struct{ name, contentType, data, says string }{
		{"other content type", "application/xml", `{}`, `read data: their content type is "application/xml": want application/json`},
		{"content type that is none", "json;;", `{}`, `read data: their content type is "json;;": want application/json`},
		{"no data", "", ``, "read data: there are none"},
		{"blank data", "", " \n", "read data: there are none"},
		{"null", "", ` null `, "read data: they are null"},
		{"not UTF-8", "", "{\"customer\":\"\xff\"}", "read data: they are not UTF-8"},
		{"no JSON", "", `date`, "read data: they are not JSON: invalid character 'd' looking for beginning of value, at byte 1"},
		{"cut off", "", `{"customer":"A`, "read data: they are not JSON: unexpected end of JSON input, at byte 14"},
		{"two values", "", `{} {}`, "read data: they are not JSON: invalid character '{' after top-level value, at byte 4"},
		{"NaN", "", `{"discount":NaN}`, "read data: they are not JSON: invalid character 'N' looking for beginning of value, at byte 13"},
		{"no object", "", `[]`, "read data: it is an array: want an object"},
		{"number for a text", "", `{"customer":5}`, "read data: customer: it is the number 5: want a string"},
		{"object for a text", "", `{"customer":{"secret":1}}`, "read data: customer: it is an object: want a string"},
		{"text for a boolean", "", `{"paid":"yes"}`, "read data: paid: it is a string: want true or false"},
		{"boolean for a number", "", `{"discount":true}`, "read data: discount: it is true: want a number of 64 bits"},
		{"number too large", "", `{"discount":1e400}`, "read data: discount: it is the number 1e400: want a number of 64 bits"},
		{"number below zero", "", `{"count":-1}`, "read data: count: it is the number -1: want a whole number of 8 bits that is not negative"},
		{"long number", "", `{"count":1` + strings.Repeat("0", 1000) + `}`, "count: it is the number 1" + strings.Repeat("0", 31) + "…: want"},
		{"in an array", "", `{"lines":[{"price":1},{"price":"2"}]}`, "read data: lines[1].price: it is a string: want a whole number of 32 bits"},
		{"deep down", "", `{"lines":[{"notes":[{},{"text":[]}]}]}`, "read data: lines[0].notes[1].text: it is an array: want a string"},
		{"in a map", "", `{"totals":{"a":1,"b b":"x"}}`, `read data: totals["b b"]: it is a string: want a whole number of`},
		{"in an embedded struct", "", `{"city":1}`, "read data: city: it is the number 1: want a string"},
		{"the first of two", "", `{"other":1,"paid":1,"customer":1}`, "read data: paid: it is the number 1"},
		{"a name in another case, as encoding/json takes it", "", `{"PAID":1}`, "read data: PAID: it is the number 1"},
		{"no time", "", `{"at":"yesterday"}`, "read data: at: it is a string: want a time like 2006-01-02T15:04:05Z"},
		{"number for a time", "", `{"at":5}`, "read data: at: it is the number 5: "},
		{"number for an address", "", `{"from":5}`, "read data: from: it is the number 5: want a string (netip.Addr)"},
		{"no address", "", `{"from":"here"}`, "read data: from: it is a string: "},
		{"number that should be in quotes", "", `{"number":"seven"}`, "read data: number: it is a string: "},
		{"no base64", "", `{"raw":"!"}`, "read data: raw: it is a string: "},
		{"number for bytes", "", `{"raw":1}`, "read data: raw: it is the number 1: want a string in base64"},
		{"what Validate says", "", `{"customer":"nobody"}`, "read data: customer: there is none of this name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var got order
			fx, err := reader(&got)(t.Context(), ordered(tt.contentType, tt.data))
			var rejected *functions.RejectError
			if !errors.As(err, &rejected) || !strings.Contains(err.Error(), tt.says) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error is %v\nwant a rejection that says\n%s", err, tt.says)
			}
			if len(fx.Outputs) != 0 {
				t.Errorf("it has effects all the same: %v", fx)
			}
		})
	}
}

// selfish unmarshals itself, and needs more than one of its fields.
type selfish struct{ a, b int }

func (s *selfish) UnmarshalJSON(text []byte) error {
	var parts struct{ A, B *int }
	if err := json.Unmarshal(text, &parts); err != nil {
		return err
	}
	if parts.A == nil || parts.B == nil {
		return errors.New("want a and b")
	}
	s.a, s.b = *parts.A, *parts.B
	return nil
}

func TestTypesThatReadThemselvesAreBlamedAsAWhole(t *testing.T) {
	t.Parallel()

	type pair struct {
		Left, Right selfish
	}
	var got pair
	_, err := reader(&got)(t.Context(), ordered("", `{"Left":{"a":1,"b":2},"Right":{"a":1}}`))
	if err == nil || err.Error() != "read data: Right: it is an object: want a and b" {
		t.Errorf("error is %v", err)
	}
}

func TestAbsurdDataAreRefusedSoon(t *testing.T) {
	t.Parallel()

	// Without a budget each of the elements would be tried behind the long name.
	type tree struct{ Children map[string][]tree }
	name := strings.Repeat("n", 50_000)
	many := strings.Repeat(`{},`, 50_000)
	var got tree
	begin := time.Now()
	_, err := reader(&got)(t.Context(), ordered("", `{"Children":{"`+name+`":[`+many+`5]}}`))
	var rejected *functions.RejectError
	if !errors.As(err, &rejected) || len(err.Error()) > 1000 {
		t.Errorf("error is %.200v", err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}

func FuzzReasonsAreShortAndOnOneLine(f *testing.F) {
	f.Add(`{"lines":[{"price":1},{"price":"2"}]}`)
	f.Add(`{"totals":{"a\nb":"x"}}`)
	f.Add(`{"at":"yesterday"}`)
	f.Add(`[[[[]]]]`)
	f.Fuzz(func(t *testing.T, data string) {
		var got order
		_, err := reader(&got)(t.Context(), ordered("", data))
		if (err == nil) != (json.Unmarshal([]byte(data), new(order)) == nil && got.Customer != "nobody") && strings.ToValidUTF8(data, "") == data && strings.TrimSpace(data) != "null" {
			t.Errorf("error is %v", err)
		}
		if err != nil && (len(err.Error()) > 2000+len(data) || strings.ContainsAny(err.Error(), "\n\r")) {
			t.Errorf("error is %q", err)
		}
	})
}

func BenchmarkJSON(b *testing.B) {
	var got order
	handle := reader(&got)
	e := ordered("application/json", `{"customer":"Ann","paid":true,"lines":[{"price":1},{"price":2}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := handle(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
}
