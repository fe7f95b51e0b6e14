package functions_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions"
)

func flight(tb testing.TB) event.Event {
	tb.Helper()

	e := event.New()
	e.SetID("flight-2001-000001")
	e.SetSource("/tandem/flights-2001")
	e.SetType("com.example.flight.departed")
	e.SetSubject("DTW")
	e.SetTime(time.Date(2001, 1, 1, 0, 47, 0, 0, time.UTC))
	e.SetExtension("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	e.SetExtension("tracestate", "vendor=1")
	e.SetExtension("tenant", "stays behind")
	if err := e.SetData(event.ApplicationJSON, map[string]any{"delay": 66}); err != nil {
		tb.Fatal(err)
	}
	return e
}

func TestOutputEventIsBuiltFromTheInput(t *testing.T) {
	t.Parallel()

	type result struct {
		Type, Subject, ContentType, Data string
		Base64                           bool
		Time                             time.Time
		Extensions                       map[string]any
	}
	trace := map[string]any{
		"causationid": "flight-2001-000001",
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"tracestate":  "vendor=1",
	}
	departed := time.Date(2001, 1, 1, 0, 47, 0, 0, time.UTC)
	with := func(name, value string) map[string]any {
		all := map[string]any{name: value}
		for k, v := range trace {
			if k != name {
				all[k] = v
			}
		}
		return all
	}

	tests := []struct {
		name   string
		output functions.Output
		want   result
	}{
		{
			name:   "a type is all it needs",
			output: functions.Output{Type: "t"},
			want:   result{Type: "t", Time: departed, Extensions: trace},
		},
		{
			name:   "a struct becomes JSON",
			output: functions.Output{Type: "t", Subject: "DTW", Data: struct{ Delay int }{66}},
			want:   result{Type: "t", Subject: "DTW", ContentType: "application/json", Data: `{"Delay":66}`, Time: departed, Extensions: trace},
		},
		{
			name:   "the keys of a map are in order",
			output: functions.Output{Type: "t", Data: map[string]int{"b": 1, "c": 2, "a": 3}},
			want:   result{Type: "t", ContentType: "application/json", Data: `{"a":3,"b":1,"c":2}`, Time: departed, Extensions: trace},
		},
		{
			name:   "raw JSON stays as it is",
			output: functions.Output{Type: "t", Data: json.RawMessage(`{ "b" :1}`)},
			want:   result{Type: "t", ContentType: "application/json", Data: `{ "b" :1}`, Time: departed, Extensions: trace},
		},
		{
			name:   "no bytes are no data",
			output: functions.Output{Type: "t", Data: []byte{}},
			want:   result{Type: "t", Time: departed, Extensions: trace},
		},
		{
			name:   "text stays text",
			output: functions.Output{Type: "t", Data: []byte("grün"), DataContentType: "text/plain; charset=utf-8"},
			want:   result{Type: "t", ContentType: "text/plain; charset=utf-8", Data: "grün", Time: departed, Extensions: trace},
		},
		{
			name:   "bytes that are no text are base64 in an envelope",
			output: functions.Output{Type: "t", Data: []byte{0xff, 0x00}, DataContentType: "application/octet-stream"},
			want:   result{Type: "t", ContentType: "application/octet-stream", Data: "\xff\x00", Base64: true, Time: departed, Extensions: trace},
		},
		{
			name:   "a suffix says JSON",
			output: functions.Output{Type: "t", Data: []string{"x"}, DataContentType: "application/vnd.acme+json"},
			want:   result{Type: "t", ContentType: "application/vnd.acme+json", Data: `["x"]`, Time: departed, Extensions: trace},
		},
		{
			name:   "a time is given in UTC",
			output: functions.Output{Type: "t", Time: time.Date(2024, 5, 6, 7, 8, 9, 10, time.FixedZone("", 2*60*60))},
			want:   result{Type: "t", Time: time.Date(2024, 5, 6, 5, 8, 9, 10, time.UTC), Extensions: trace},
		},
		{
			name:   "an extension is added",
			output: functions.Output{Type: "t", Extensions: map[string]string{"region": "eu", "empty": ""}},
			want:   result{Type: "t", Time: departed, Extensions: with("region", "eu")},
		},
		{
			name:   "an extension of the function's own wins",
			output: functions.Output{Type: "t", Extensions: map[string]string{"causationid": "other"}},
			want:   result{Type: "t", Time: departed, Extensions: with("causationid", "other")},
		},
		{
			name:   "a trace of the function's own leaves the input's state behind",
			output: functions.Output{Type: "t", Extensions: map[string]string{"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}},
			want: result{Type: "t", Time: departed, Extensions: map[string]any{
				"causationid": "flight-2001-000001",
				"traceparent": "00-11111111111111111111111111111111-2222222222222222-01",
			}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			e, err := tt.output.Event("flights", flight(t), 1)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Validate(); err != nil {
				t.Errorf("the event is not valid: %v", err)
			}
			got := result{
				Type: e.Type(), Subject: e.Subject(), ContentType: e.DataContentType(), Data: string(e.Data()),
				Base64: e.DataBase64, Time: e.Time(), Extensions: e.Extensions(),
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
			source, id := functions.OutputIdentity("flights", "/tandem/flights-2001", "flight-2001-000001", 1)
			if e.Source() != source || e.ID() != id {
				t.Errorf("identity is %s %s, want %s %s", e.Source(), e.ID(), source, id)
			}
		})
	}
}

func TestOutputEventSurvivesAnEnvelope(t *testing.T) {
	t.Parallel()

	outputs := []functions.Output{
		{Type: "t"},
		{Type: "t", Subject: "s", Data: map[string]any{"html": "<b>&</b>", "n": 1.5}},
		{Type: "t", Data: []byte(" [1] ")},
		{Type: "t", Data: []byte("text \"quoted\" \u2028"), DataContentType: "text/plain"},
		{Type: "t", Data: []byte("latin \xe9"), DataContentType: "text/plain"},
		{Type: "t", Data: []byte("bytes"), DataContentType: "application/octet-stream"},
	}
	for position, o := range outputs {
		e, err := o.Event("flights", flight(t), position)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("encode output %d: %v", position, err)
		}
		var back event.Event
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("decode %s: %v", text, err)
		}
		want := string(e.Data())
		if e.DataContentType() == event.ApplicationJSON {
			want = strings.TrimSpace(want)
		}
		if got := strings.TrimSpace(string(back.Data())); got != strings.TrimSpace(want) {
			t.Errorf("data came back from %s as %q, want %q", text, got, want)
		}
		if diff := cmp.Diff(e.Context, back.Context); diff != "" {
			t.Errorf("attributes (-sent +back):\n%s", diff)
		}
	}
}

func TestOutputEventTakesAnOldInput(t *testing.T) {
	t.Parallel()

	old := event.New(event.CloudEventsVersionV03)
	old.SetID("flight-2001-000001")
	old.SetSource("/tandem/flights-2001")
	old.SetType("com.example.flight.departed")
	old.SetExtension("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	e, err := functions.Output{Type: "t"}.Event("flights", old, 0)
	if err != nil {
		t.Fatal(err)
	}
	if e.SpecVersion() != event.CloudEventsVersionV1 || e.Extensions()["traceparent"] == nil || !e.Time().IsZero() {
		t.Errorf("got %s", e)
	}
}

func TestOutputEventHasTheTimeInTheInputsID(t *testing.T) {
	t.Parallel()

	e, err := functions.Output{Type: "t"}.Event("flights", happened(t, "/x", "0190163d-8694-739b-aea5-966c26f8ad91", ""), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Time().Format(time.RFC3339Nano); got != "2024-06-14T10:14:09.3Z" {
		t.Errorf("the time is %s", got)
	}
}

func TestOutputEventRefusesWhatNoConsumerCouldRead(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name   string
		output functions.Output
		says   string
	}{
		{"no type", functions.Output{}, "type: missing"},
		{"line break in the type", functions.Output{Type: "a\nb"}, "type: control character U+000A at byte 1"},
		{"type that is not UTF-8", functions.Output{Type: "a\xff"}, "type: byte 1 is not UTF-8"},
		{"noncharacter in the subject", functions.Output{Type: "t", Subject: "\ufdd0"}, "subject: noncharacter"},
		{"blank type", functions.Output{Type: " "}, "type: it is blank"},
		{"blank subject", functions.Output{Type: "t", Subject: "\u00a0"}, "subject: it is blank"},
		{"event in an event", functions.Output{Type: "t", DataContentType: "Application/CloudEvents+JSON"}, "cannot hold another one"},
		{"year 10000", functions.Output{Type: "t", Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, "time: year 10000"},
		{"data that JSON cannot hold", functions.Output{Type: "t", Data: math.NaN()}, "data: json: unsupported value"},
		{"bytes that are not JSON", functions.Output{Type: "t", Data: []byte("hello")}, "data: the content type is JSON, but"},
		{"struct under another content type", functions.Output{Type: "t", Data: struct{}{}, DataContentType: "text/csv"}, "data: struct {} is encoded as JSON"},
		{"content type that is none", functions.Output{Type: "t", DataContentType: "application/"}, "data content type"},
		{"upper case in an extension", functions.Output{Type: "t", Extensions: map[string]string{"Region": "eu"}}, `extension "Region": want lower-case`},
		{"extension without a name", functions.Output{Type: "t", Extensions: map[string]string{"": "eu"}}, `extension "": a name is missing`},
		{"extension over an attribute", functions.Output{Type: "t", Extensions: map[string]string{"id": "1"}}, `extension "id": the name is reserved`},
		{"line break in an extension", functions.Output{Type: "t", Extensions: map[string]string{"region": "e\r\nu"}}, `extension "region": control character`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			_, err := tt.output.Event("flights", flight(t), 3)
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), "create output 3 of function flights") {
				t.Errorf("error is %v, want %q in it", err, tt.says)
			}
		})
	}

	if _, err := (functions.Output{Type: "t"}).Event("flights", event.Event{}, 0); err == nil {
		t.Error("an input without attributes was taken")
	}
}

func BenchmarkOutputEvent(b *testing.B) {
	input := flight(b)
	o := functions.Output{Type: "com.example.flight.delayed", Subject: "DTW", Data: struct {
		Origin, Destination string
		Delay               int
	}{"DTW", "LAS", 66}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Event("flights", input, 0); err != nil {
			b.Fatal(err)
		}
	}
}
