package jetstream_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestEncodeWritesTheBinaryContentMode(t *testing.T) {
	t.Parallel()

	e := event.New()
	e.SetID("é 1")
	e.SetSource("/orders")
	e.SetType("com.example.order")
	e.SetSubject(`50% "off"`)
	e.SetTime(time.Date(2001, 1, 2, 3, 4, 5, 600, time.UTC))
	e.SetExtension("attempt", 3)
	if err := e.SetData("application/json; charset=utf-8", json.RawMessage(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}

	header, data, err := jetstream.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	want := nats.Header{
		"ce-specversion": {"1.0"},
		"ce-id":          {"%C3%A9%201"},
		"ce-source":      {"/orders"},
		"ce-type":        {"com.example.order"},
		"ce-subject":     {"50%25%20%22off%22"},
		"ce-time":        {"2001-01-02T03:04:05.0000006Z"},
		"ce-attempt":     {"3"},
		"content-type":   {"application/json; charset=utf-8"},
	}
	if diff := cmp.Diff(want, header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if string(data) != `{"a":1}` {
		t.Errorf("data %s", data)
	}
}

func TestDecodeReadsBothContentModes(t *testing.T) {
	t.Parallel()

	const whole = `{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"ü","datacontenttype":"application/json","data":{"a":1}}`
	tests := []struct {
		name   string
		header nats.Header
		data   string
	}{
		{
			name:   "binary",
			header: nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/s"}, "ce-type": {"t"}, "ce-subject": {"%C3%BC"}, "content-type": {"application/json"}},
			data:   `{"a":1}`,
		},
		{
			name:   "binary, with headers in another case",
			header: nats.Header{"Ce-Specversion": {"1.0"}, "CE-ID": {"1"}, "Ce-Source": {"/s"}, "ce-type": {"t"}, "ce-Subject": {"ü"}, "Content-Type": {"application/json"}},
			data:   `{"a":1}`,
		},
		{
			name:   "binary, with ce-datacontenttype",
			header: nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/s"}, "ce-type": {"t"}, "ce-subject": {"ü"}, "ce-datacontenttype": {"application/json"}},
			data:   `{"a":1}`,
		},
		{name: "structured", header: nats.Header{"content-type": {"application/cloudevents+json; charset=utf-8"}}, data: whole},
		{name: "structured, as without headers", data: "\n " + whole},
		{name: "structured, with headers that do not count", header: nats.Header{"Content-Type": {"application/cloudevents+json"}, "ce-id": {"2"}, "Ce-Id": {"3"}}, data: whole},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			e, err := jetstream.Decode(tt.header, []byte(tt.data))
			if err != nil {
				t.Fatal(err)
			}
			got := []string{e.ID(), e.Source(), e.Type(), e.Subject(), e.DataContentType(), string(e.Data())}
			want := []string{"1", "/s", "t", "ü", "application/json", `{"a":1}`}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeSaysWhatIsNoCloudEvent(t *testing.T) {
	t.Parallel()

	valid := func(more ...string) nats.Header {
		h := nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/s"}, "ce-type": {"t"}}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = append(h[more[i]], more[i+1])
		}
		return h
	}
	tests := []struct {
		name   string
		header nats.Header
		data   string
		want   string
	}{
		{name: "nothing at all", want: "send the headers ce-specversion"},
		{name: "plain JSON", data: `{"a":1}`, want: "send the headers ce-specversion"},
		{name: "JSON with a specversion and no more", data: `{"specversion":"1.0"}`, want: "id, source, type: missing"},
		{name: "an attribute in two cases", header: valid("CE-ID", "2"), want: `"id" occurs twice`},
		{name: "an attribute with two values", header: valid("ce-id", "2"), want: "id: the header occurs 2 times"},
		{name: "two content types", header: valid("content-type", "a/b", "Content-Type", "c/d"), want: "content-type: it occurs more than once"},
		{name: "a batch", header: nats.Header{"content-type": {"application/cloudevents-batch+json"}}, data: "[]", want: "one event per message"},
		{name: "an event in an event", header: nats.Header{"content-type": {"application/cloudevents+json"}}, data: `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/cloudevents+json","data":{}}`, want: "cannot hold another"},
		{name: "a NUL in the id", header: nats.Header{"content-type": {"application/cloudevents+json"}}, data: `{"specversion":"1.0","id":"a\u0000","source":"/s","type":"t"}`, want: "id: control character U+0000"},
		{name: "bytes that are no UTF-8", header: valid("ce-subject", "\xff"), want: "subject: it is not UTF-8"},
		{name: "version 0.3", header: nats.Header{"ce-specversion": {"0.3"}, "ce-id": {"1"}, "ce-source": {"/s"}, "ce-type": {"t"}}, want: `specversion "0.3": want 1.0`},
		{name: "something after the event", header: nats.Header{"content-type": {"application/cloudevents+json"}}, data: `{"specversion":"1.0","id":"1","source":"/s","type":"t"} x`, want: "not a CloudEvent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			for range 10 { // the iteration order of a map varies
				e, err := jetstream.Decode(tt.header, []byte(tt.data))
				if err == nil {
					t.Fatalf("took it as %v", e)
				}
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %q, want %q in it", err, tt.want)
				}
			}
		})
	}
}

func TestWhatIsEncodedDecodesToTheSame(t *testing.T) {
	t.Parallel()

	random := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		alphabet := []rune(`ab09 %"\+/.:?#é€😀~` + "\u00a0")
		runes := []rune{'x'}
		for range random.IntN(12) {
			runes = append(runes, alphabet[random.IntN(len(alphabet))])
		}
		return string(runes)
	}
	for range 2000 {
		e := event.New()
		e.SetID(text())
		e.SetSource("/s" + strings.NewReplacer("%", "", `"`, "").Replace(text()))
		e.SetType(text())
		if random.IntN(2) == 0 {
			e.SetSubject(text())
		}
		if random.IntN(2) == 0 {
			e.SetTime(time.Unix(random.Int64N(4e9), random.Int64N(1e9)).UTC())
		}
		for range random.IntN(3) {
			e.SetExtension("ext"+string(rune('a'+random.IntN(26))), text())
		}
		if random.IntN(4) > 0 {
			data := make([]byte, 1+random.IntN(40))
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			e.SetDataContentType("application/octet-stream; a=\"b c%41\"")
			e.DataEncoded = data
		}
		if e.Validate() != nil {
			continue
		}

		header, data, err := jetstream.Encode(e)
		if err != nil {
			t.Fatalf("%v: %v", e, err)
		}
		got, err := jetstream.Decode(header, data)
		if err != nil {
			t.Fatalf("%v: %v", header, err)
		}
		if diff := cmp.Diff(comparable(t, e), comparable(t, got)); diff != "" {
			t.Fatalf("event (-want +got):\n%s", diff)
		}
	}
}

// comparable returns everything in an event, as text.
func comparable(t *testing.T, e event.Event) string {
	t.Helper()

	e.DataBase64 = true
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func FuzzDecode(f *testing.F) {
	f.Add("ce-id", "1", "ce-subject", "%C3%BC", "content-type", "application/json", []byte(`{}`))
	f.Add("x", "", "y", "", "content-type", "application/cloudevents+json", []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AA==","x":1.5}`))
	f.Add("x", "", "y", "", "z", "", []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2001-01-01T00:00:00+01:00","data":"x","datacontenttype":"text/plain"}`))
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2, n3, v3 string, data []byte) {
		header := nats.Header{"ce-specversion": {"1.0"}, "ce-type": {"t"}, "ce-source": {"/s"}}
		if n1 == "x" {
			clear(header)
		}
		header[n1], header[n2], header[n3] = []string{v1}, []string{v2}, []string{v3}
		e, err := jetstream.Decode(header, data)
		again, errAgain := jetstream.Decode(header, data)
		if (err == nil) != (errAgain == nil) {
			t.Fatalf("once %v, once %v", err, errAgain)
		}
		if err != nil {
			return
		}
		if comparable(t, e) != comparable(t, again) {
			t.Fatalf("once %v, once %v", e, again)
		}
		// A decoded event can be encoded again without a change.
		header, encoded, err := jetstream.Encode(e)
		if err != nil {
			t.Fatalf("%v: %v", e, err)
		}
		back, err := jetstream.Decode(header, encoded)
		if err != nil {
			t.Fatalf("%v: %v", header, err)
		}
		if e.ID() != back.ID() || e.Source() != back.Source() || e.Type() != back.Type() || !bytes.Equal(e.Data(), back.Data()) {
			t.Fatalf("%v came back as %v", e, back)
		}
	})
}

func TestSubjectHasNothingThatNATSForbids(t *testing.T) {
	t.Parallel()

	tests := []struct{ name, eventType, want string }{
		{name: "a usual type", eventType: "com.example.order", want: "events.com.example.order"},
		{name: "empty tokens", eventType: ".a..b.", want: "events._.a._.b._"},
		{name: "wildcards", eventType: "a.*.>", want: "events.a._._"},
		{name: "white space", eventType: "a b\tc\r\n", want: "events.a_b_c__"},
		{name: "letters of other alphabets", eventType: "größe.€", want: "events.größe.€"},
		{name: "no UTF-8", eventType: "a\xffb", want: "events.a_b"},
		{name: "nothing", eventType: "", want: "events._"},
		{name: "a very long type", eventType: strings.Repeat("abcdefghi.", 1000), want: "events." + strings.Repeat("abcdefghi.", 20) + "_"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if got := jetstream.Subject("events", tt.eventType); got != tt.want {
				t.Errorf("Subject = %q, want %q", got, tt.want)
			}
		})
	}
}

func BenchmarkCodec(b *testing.B) {
	e := event.New()
	e.SetID("flight-2001-000001")
	e.SetSource("/tandem/flights-2001")
	e.SetType("com.example.flight.departed")
	e.SetSubject("DTW")
	e.SetTime(time.Date(2001, 1, 1, 0, 47, 0, 0, time.UTC))
	e.SetDataContentType("application/json")
	e.DataEncoded = []byte(`{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`)
	header, data, err := jetstream.Encode(e)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := jetstream.Encode(e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := jetstream.Decode(header, data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
