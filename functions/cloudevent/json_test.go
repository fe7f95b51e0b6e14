package cloudevent_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

func TestEventIsReadFromJSON(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, rest, contentType, data string
		base64                        bool
	}{
		{"no data", ``, "", "", false},
		{"object", `,"data":{"a": [1, "}"]}`, "application/json", `{"a": [1, "}"]}`, false},
		{"JSON byte for byte", `,"data":{ "b":1.50, "a":"\u00e9" }`, "application/json", `{ "b":1.50, "a":"\u00e9" }`, false},
		{"data before its type", `,"data":"x","datacontenttype":"text/plain"`, "text/plain", "x", false},
		{"string that is JSON", `,"datacontenttype":"application/json","data":"x"`, "application/json", `"x"`, false},
		{"suffix that says JSON", `,"datacontenttype":"application/a+json; v=1","data":[1]`, "application/a+json; v=1", `[1]`, false},
		{"subtype that says JSON", `,"datacontenttype":"Image/JSON","data":"x"`, "Image/JSON", `"x"`, false},
		{"escapes in text", `,"datacontenttype":"text/plain","data":"\u00e4\n\ud83d\ude00"`, "text/plain", "ä\n😀", false},
		{"object of a type that is not JSON", `,"datacontenttype":"application/xml","data":{"a": 1}`, "application/xml", `{"a": 1}`, false},
		{"null is a JSON value", `,"data":null`, "application/json", "null", false},
		{"null is no text", `,"datacontenttype":"text/plain","data":null`, "text/plain", "", false},
		{"base64", `,"datacontenttype":"image/png","data_base64":"AAEC"`, "image/png", "\x00\x01\x02", true},
		{"no base64", `,"data":1,"data_base64":null`, "application/json", "1", false},
		{"base64 with an escape", `,"data_base64":"\u0041AEC"`, "", "\x00\x01\x02", true},
		{"attributes that are null", `,"subject":null,"time":null,"tenant":null`, "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			e, err := cloudevent.ReadJSON([]byte("\n{ \"specversion\" :\t\"1.0\", \"id\":\"1\",\"source\":\"/s\",\"type\":\"t\""+tt.rest+"} "), relay)
			if err != nil {
				t.Fatal(err)
			}
			if e.DataContentType() != tt.contentType || string(e.Data()) != tt.data || e.DataBase64 != tt.base64 {
				t.Errorf("data is %q of type %q, base64 %t", e.Data(), e.DataContentType(), e.DataBase64)
			}
			if len(e.Extensions()) != 0 {
				t.Errorf("extensions are %v, want none", e.Extensions())
			}
		})
	}
}

func TestExtensionsKeepTheirTypes(t *testing.T) {
	t.Parallel()

	e, err := cloudevent.ReadJSON([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","a":true,"b":false,"c":-2147483648,"d":1e3,"e":"5"}`), relay)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"a": true, "b": false, "c": int32(-2147483648), "d": int32(1000), "e": "5"}
	if diff := cmp.Diff(want, e.Extensions()); diff != "" {
		t.Errorf("extensions (-want +got):\n%s", diff)
	}
}

func TestJSONThatIsNoEventIsRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ rest, says string }{
		{`"id":"2"`, `"id" occurs twice`},
		{`"\u0069d":"2"`, `"id" occurs twice`},
		{`"":1`, `"" cannot be an extension`},
		{`"Tenant":"x"`, `attribute name "Tenant": want lower-case`},
		{`"ID":"x"`, `attribute name "ID": want lower-case`},
		{`"\ud800":"x"`, `attribute name`},
		{`"subject":5`, "subject: want a string"},
		{`"tenant":{}`, "tenant: want a string, a number or a boolean"},
		{`"tenant":1.5`, "tenant is 1.5: want a whole number of 32 bits"},
		{`"tenant":2147483648`, "tenant is 2147483648: want a whole number"},
		{`"tenant":"a\u0000"`, "tenant: control character U+0000 at byte 1"},
		{`"tenant":"\ud800"`, "tenant: it has half of a surrogate pair"},
		{`"data":1,"data_base64":"AAEC"`, "data: data_base64 is present, too"},
		{`"data":1,"data_base64":""`, "data: data_base64 is present, too"},
		{`"data_base64":"!"`, "data: it is declared as base64, but is not valid base64"},
		{`"data_base64":0`, "data_base64: want a string"},
		{`"datacontenttype":"application/cloudevents+json","data":{}`, "an event cannot hold another one"},
		{`"time":"0000-01-01T00:00:00+01:00"`, "time: year -1"},
		{"\"tenant\":\"\xff\"", "it is not UTF-8"},
	} {
		object := `{"specversion":"1.0","id":"1","source":"/s","type":"t",` + tt.rest + `}`
		for _, rules := range []cloudevent.Rules{relay, function} {
			refusesJSON(t, object, tt.says, rules)
		}
	}
	for _, tt := range []struct{ text, says string }{
		{``, "it is empty"},
		{`[]`, "want a JSON object"},
		{`{"specversion":"1.0",`, "it is not JSON: at byte 21: unexpected end of JSON input"},
		{`{"specversion":"1.0"} x`, "it is not JSON: at byte 23"},
		{`{"id":"1","source":"/s","type":"t"}`, "specversion: missing"},
		{`{"specversion":1}`, "specversion: want a string"},
		{`{"specversion":"2.0"}`, `specversion "2.0": want 1.0`},
		{`{"specversion":"1.0"}`, "id, source, type: missing"},
		{`{"specversion":"1.0","id":1}`, "id: want a string"},
	} {
		refusesJSON(t, tt.text, tt.says, relay)
	}
	refusesJSON(t, `{"specversion":"0.3","data_base64":""}`, "version 0.3 has datacontentencoding instead", function)
	refusesJSON(t, `{"specversion":"0.3","datacontentencoding":"base64","data":5}`, "data: want a string", function)

	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, `"a%d":1,`, i)
	}
	refusesJSON(t, "{"+many.String()+`"id":"1"}`, "more than 256 attributes", relay)
}

func refusesJSON(t *testing.T, text, says string, rules cloudevent.Rules) {
	t.Helper()

	e, err := cloudevent.ReadJSON([]byte(text), rules)
	if err == nil {
		t.Errorf("%.80s was taken as %v", text, e)
		return
	}
	if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%.80s: error is %q, want one line that says %q", text, err, says)
	}
}

func TestBatchHasAnErrorForEachElementThatIsNoEvent(t *testing.T) {
	t.Parallel()

	const one = `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":["]"]}`
	members, err := cloudevent.ReadBatch([]byte(" [ "+one+" , {} ,\n"+one+"]"), relay)
	if err != nil {
		t.Fatal(err)
	}
	if len(members) != 3 || members[0].Err != nil || members[2].Err != nil || string(members[2].Event.Data()) != `["]"]` {
		t.Errorf("members are %v", members)
	}
	if err := members[1].Err; err == nil || err.Error() != "specversion: missing" {
		t.Errorf("second element: error is %v", err)
	}
	if members, err := cloudevent.ReadBatch([]byte("[]"), relay); err != nil || len(members) != 0 {
		t.Errorf("empty batch is %v, error %v", members, err)
	}
	for text, says := range map[string]string{one: "want a JSON array", "[" + one: "it is not JSON", "[" + one + ",5]": "element 1 is not an object", "[{}," + one + "," + strings.Replace(one, "1.0", "0.3", 1) + "]": "element 2 has specversion 0.3, others have 1.0: want the same in all"} {
		if _, err := cloudevent.ReadBatch([]byte(text), function); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error is %v, want it to say %q", text, err, says)
		}
	}
}

func TestMembersOfABatchAreReadOneByOne(t *testing.T) {
	t.Parallel()

	const one = `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":["]"]}`
	members, err := cloudevent.Members([]byte(" [ "+one+" , {} ,\n5,[],"+one+"]"), relay)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the sequence can be read again, and partially
		var texts []string
		for m := range members {
			if m.Err != nil {
				texts = append(texts, m.Err.Error())
			} else {
				texts = append(texts, string(m.Event.Data()))
			}
			if len(texts) == 4 {
				break
			}
		}
		if diff := cmp.Diff([]string{`["]"]`, "specversion: missing", "want a JSON object", "want a JSON object"}, texts); diff != "" {
			t.Errorf("members (-want +got):\n%s", diff)
		}
	}
	for text, says := range map[string]string{one: "want a JSON array", "[" + one: "it is not JSON", "": "it is empty"} {
		if _, err := cloudevent.Members([]byte(text), relay); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error is %v, want it to say %q", text, err, says)
		}
	}
}

// written returns events with every case that the writer distinguishes.
func written(tb testing.TB) map[string]event.Event {
	tb.Helper()

	events := map[string]event.Event{}
	add := func(name, contentType string, data []byte, base64 bool, change func(*event.Event)) {
		e := event.New()
		e.SetSource("/orders?a=b#c")
		e.SetID("o-1")
		e.SetType("com.example.placed")
		e.SetTime(time.Date(2001, 1, 2, 3, 4, 5, 600, time.FixedZone("x", 3600)).UTC())
		if contentType != "" {
			e.SetDataContentType(contentType)
		}
		e.DataEncoded, e.DataBase64 = data, base64
		if change != nil {
			change(&e)
		}
		events[name] = e
	}
	add("no data", "", nil, false, nil)
	add("JSON", "application/json", []byte(`{"a": 1.50, "b": "<&>"}`), false, nil)
	add("JSON suffix", "application/vnd.x+json", []byte(`["a"]`), false, nil)
	add("JSON string of a type with JSON suffix", "application/vnd.x+json", []byte(`"a"`), false, nil)
	add("parameter", "application/json; charset=utf-8", []byte(`[1]`), false, nil)
	add("text", "text/plain; charset=utf-8", []byte("a\n\"b\" ü"), false, nil)
	add("bytes", "image/png", []byte{0, 1, 0xff}, true, nil)
	add("bytes without a type", "", []byte{0, 1, 0xff}, true, nil)
	add("attributes", "", nil, false, func(e *event.Event) {
		e.SetSubject(`sub "ject" ü <&>`)
		e.SetDataSchema("https://example.com/a?b=%20")
		e.SetTime(time.Date(1999, 12, 31, 23, 59, 59, 123456789, time.UTC))
		e.SetExtension("b", "2")
		e.SetExtension("a", "\u2028")
		e.SetExtension("c", 5)
		e.SetExtension("d", true)
	})
	return events
}

func TestWhatIsWrittenAsABatchIsReadTheSame(t *testing.T) {
	t.Parallel()

	for name, e := range written(t) {
		text, err := cloudevent.AppendBatch([]byte("x"), []event.Event{e, e})
		if err != nil {
			t.Fatal(err)
		}
		members, err := cloudevent.ReadBatch(text[1:], relay)
		if err != nil {
			t.Fatalf("%s: %s: %v", name, text, err)
		}
		if len(members) != 2 {
			t.Fatalf("%s: %d events came back", name, len(members))
		}
		for _, m := range members {
			if m.Err != nil {
				t.Fatalf("%s: %s: %v", name, text, m.Err)
			}
			if diff := cmp.Diff(e, m.Event); diff != "" {
				t.Errorf("%s (-written +read):\n%s", name, diff)
			}
		}
	}
}

func TestJSONIsWrittenAsTheSDKDoes(t *testing.T) {
	t.Parallel()

	for name, e := range written(t) {
		if strings.Contains(name, "suffix") {
			continue // the SDK does not follow the format here
		}
		ours, err := cloudevent.AppendJSON(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal(ours, &got); err != nil {
			t.Fatalf("%s: %s: %v", name, ours, err)
		}
		if err := json.Unmarshal(theirs, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-SDK +ours):\n%s", name, diff)
		}
	}
}

func TestBytesThatAreNoTextAreWrittenInBase64WhoeverForgotToSaySo(t *testing.T) {
	t.Parallel()

	e := event.New()
	e.SetDataContentType("text/plain")
	e.DataEncoded = []byte("gr\xfcn")
	text, err := cloudevent.AppendJSON(nil, e)
	if err != nil || !strings.Contains(string(text), `"data_base64":"Z3L8bg=="`) {
		t.Errorf("written as %s, error %v", text, err)
	}
}
