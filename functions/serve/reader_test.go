package serve_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions/serve"
)

func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

func TestHeaderValuesAreDecodedAsTheBindingSays(t *testing.T) {
	t.Parallel()

	tests := []struct{ name, value, want string }{
		{"plain", "a-b_c~d", "a-b_c~d"},
		{"nothing", "", ""},
		{"the binding's example", "Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"},
		{"lower-case digits", "%e2%82%ac", "€"},
		{"encoded without need", "%61%62", "ab"},
		{"one round only", "100%2525", "100%25"},
		{"percent signs of a sender that does not encode", "100% of 5%", "100% of 5%"},
		{"half an encoding", "a%4", "a%4"},
		{"no encoding", "%zz%4z%z4", "%zz%4z%z4"},
		{"UTF-8 as it is", "grün", "grün"},
		{"quoted string", `"a b"`, "a b"},
		{"escapes in a quoted string", `"say \"hi\" \\ \x"`, `say "hi" \ x`},
		{"encoded in a quoted string", `"a%20b"`, "a b"},
		{"empty quoted string", `""`, ""},
		{"a quote inside", `a"b`, `a"b`},
		{"two quoted strings", `"a" "b"`, `"a" "b"`},
		{"quoted string that does not end", `"a\"`, `"a\"`},
		{"only a quote", `"`, `"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if got, err := serve.HeaderValue(tt.value); err != nil || got != tt.want {
				t.Errorf("value is %q, error %v, want %q", got, err, tt.want)
			}
		})
	}
	for _, value := range []string{"%C0%A0", "%ff", "a%E2%82", "\xff"} {
		if got, err := serve.HeaderValue(value); err == nil {
			t.Errorf("%q was taken as %q, want an error: it is not UTF-8", value, got)
		}
	}
}

func TestEventIsReadFromHeaders(t *testing.T) {
	t.Parallel()

	h := header("ce-specversion: 1.0", "ce-id: a%20b", "ce-source: https://example.com/a?b=c#d", "ce-type: t", "ce-subject: \"s t\"",
		"ce-time: 2024-01-02T03:04:05.678+02:00", "ce-dataschema: https://example.com/schema", "content-type: text/plain; charset=utf-8",
		"ce-tenant: %C3%A4", "ce-empty: ", "accept: */*", "cex: no", "ce: no")
	e, err := serve.ReadBinary(h, []byte("grün"), false)
	if err != nil {
		t.Fatal(err)
	}
	want := event.New()
	want.SetID("a b")
	want.SetSource("https://example.com/a?b=c#d")
	want.SetType("t")
	want.SetSubject("s t")
	want.SetTime(time.Date(2024, 1, 2, 1, 4, 5, 678e6, time.UTC))
	want.SetDataSchema("https://example.com/schema")
	want.SetDataContentType("text/plain; charset=utf-8")
	want.SetExtension("tenant", "ä")
	want.SetExtension("empty", "")
	want.DataEncoded = []byte("grün")
	want.DataBase64 = true
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if e.Time().Location() != time.UTC {
		t.Errorf("time is in %s", e.Time().Location())
	}
}

func TestEventIsReadFromJSON(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, rest, contentType, data string
		base64                        bool
	}{
		{"no data", ``, "", "", false},
		{"object", `,"data":{"a": [1, "}"]}`, "", `{"a": [1, "}"]}`, false},
		{"data before its type", `,"data":"x","datacontenttype":"text/plain"`, "text/plain", "x", false},
		{"string that is JSON", `,"datacontenttype":"application/json","data":"x"`, "application/json", `"x"`, false},
		{"suffix that says JSON", `,"datacontenttype":"application/a+json; v=1","data":[1]`, "application/a+json; v=1", `[1]`, false},
		{"escapes in text", `,"datacontenttype":"text/plain","data":"\u00e4\n\ud83d\ude00"`, "text/plain", "ä\n😀", false},
		{"null is a JSON value", `,"data":null`, "", "null", false},
		{"null is no text", `,"datacontenttype":"text/plain","data":null`, "text/plain", "", false},
		{"base64", `,"datacontenttype":"image/png","data_base64":"AAEC"`, "image/png", "\x00\x01\x02", true},
		{"no base64", `,"data":1,"data_base64":null`, "", "1", false},
		{"base64 with an escape", `,"data_base64":"\u0041AEC"`, "", "\x00\x01\x02", true},
		{"attributes that are null", `,"subject":null,"time":null,"tenant":null`, "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			e, err := serve.ReadStructured([]byte("\n{ \"specversion\" :\t\"1.0\", \"id\":\"1\",\"source\":\"/s\",\"type\":\"t\""+tt.rest+"} "), false)
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

	e, err := serve.ReadStructured([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","a":true,"b":false,"c":-5,"d":1e3,"e":"5"}`), false)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"a": true, "b": false, "c": int32(-5), "d": int32(1000), "e": "5"}
	if diff := cmp.Diff(want, e.Extensions()); diff != "" {
		t.Errorf("extensions (-want +got):\n%s", diff)
	}
}

func TestVersion03IsLiftedTo10(t *testing.T) {
	t.Parallel()

	want := event.New()
	want.SetID("1")
	want.SetSource("/s")
	want.SetType("t")
	want.SetDataSchema("https://example.com/schema")
	want.SetDataContentType("text/plain")
	want.DataEncoded = []byte("hello")
	want.DataBase64 = true

	binary, err := serve.ReadBinary(header("ce-specversion: 0.3", "ce-id: 1", "ce-source: /s", "ce-type: t",
		"ce-schemaurl: https://example.com/schema", "ce-datacontentencoding: base64", "content-type: text/plain"), []byte("aGVsbG8="), false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, binary); diff != "" {
		t.Errorf("binary mode (-want +got):\n%s", diff)
	}
	structured, err := serve.ReadStructured([]byte(`{"specversion":"0.3","id":"1","source":"/s","type":"t","schemaurl":"https://example.com/schema",
		"datacontentencoding":"base64","datacontenttype":"text/plain","data":"aGVsbG8="}`), false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, structured); diff != "" {
		t.Errorf("structured mode (-want +got):\n%s", diff)
	}
}

func TestWhatIsNotAsTheSpecificationSaysIsRefused(t *testing.T) {
	t.Parallel()

	good := []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: t"}
	for _, tt := range []struct{ header, says string }{
		{"ce-datacontenttype: text/plain", "header ce-datacontenttype: it does not exist"},
		{"content-type: nonsense/", `datacontenttype "nonsense/": want a media type`},
		{"ce-my-name: x", `attribute name "my-name": want lower-case letters and digits only`},
		{"ce-data: x", `"data" cannot be an extension`},
		{"ce-subject: %20", "subject: it is blank"},
		{"ce-subject: %C0%A0", "header Ce-Subject: it is not UTF-8"},
		{"ce-dataschema: schema", `dataschema "schema": want an absolute URI`},
		{"ce-tenant: %00", "tenant: byte 0 is NUL"},
	} {
		_, err := serve.ReadBinary(header(append(good, tt.header)...), nil, false)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("header %s: error is %v, want it to say %q", tt.header, err, tt.says)
		}
	}
	for _, tt := range []struct{ header, says string }{
		{"ce-source: http://a b/", "want a URI reference"},
		{"ce-source: %23", "source: missing"},
		{"ce-source: /" + strings.Repeat("x", 1024), "source: it has 1025 bytes"},
	} {
		_, err := serve.ReadBinary(header("ce-specversion: 1.0", "ce-id: 1", "ce-type: t", tt.header), nil, false)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("header %.40s: error is %v, want it to say %q", tt.header, err, tt.says)
		}
	}
	for _, tt := range []struct{ rest, says string }{
		{`"id":"2"`, `"id" is there twice`},
		{`"\u0069d":"2"`, `"id" is there twice`},
		{`"":1`, `"" cannot be an extension`},
		{`"Tenant":"x"`, `attribute name "Tenant": want lower-case`},
		{`"ID":"x"`, `attribute name "ID": want lower-case`},
		{`"subject":5`, "subject: want a string"},
		{`"tenant":{}`, "tenant: want a string, a number or a boolean"},
		{`"tenant":1.5`, "tenant is 1.5: want a whole number of 32 bits"},
		{`"tenant":2147483648`, "tenant is 2147483648: want a whole number"},
		{`"tenant":"\u0000"`, "tenant: byte 0 is NUL"},
		{`"tenant":"\ud800"`, "tenant: it has half of a surrogate pair"},
		{`"data":1,"data_base64":"AAEC"`, "data: it is there, and data_base64 too"},
		{`"data_base64":"!"`, "data: it is said to be base64, but is not"},
		{`"datacontenttype":"text/plain","data":5`, `data: want a string, since datacontenttype is "text/plain"`},
		{"\"tenant\":\"\xff\"", "the body is not UTF-8"},
	} {
		_, err := serve.ReadStructured([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t",`+tt.rest+`}`), false)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("member %s: error is %v, want it to say %q", tt.rest, err, tt.says)
		}
	}
	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, `"a%d":1,`, i)
	}
	if _, err := serve.ReadStructured([]byte("{"+many.String()+`"id":"1"}`), false); err == nil || !strings.Contains(err.Error(), "more than 256 attributes") {
		t.Errorf("300 attributes: error is %v", err)
	}
}

// sdk reads an event as the SDK does.
func sdk(h http.Header, body []byte) (e event.Event, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	read, err := binding.ToEvent(nil, cehttp.NewMessage(h, io.NopCloser(bytes.NewReader(body)))) //nolint:staticcheck // it does not look at the context
	if err != nil {
		return event.Event{}, err
	}
	return *read, read.Validate()
}

// same compares an event of the SDK's reading with one of ours. The SDK keeps the
// zone of a time, and whether data was base64 does not matter without an envelope.
func same(theirs, ours event.Event) string {
	v1 := *theirs.Context.AsV1()
	if v1.Time != nil {
		v1.Time.Time = v1.Time.UTC()
	}
	if len(v1.Extensions) == 0 {
		v1.Extensions = nil
	}
	theirs.Context = &v1
	theirs.DataBase64 = ours.DataBase64
	if len(theirs.DataEncoded) == 0 {
		theirs.DataEncoded, theirs.DataBase64 = nil, ours.DataBase64
	}
	return cmp.Diff(theirs, ours, cmp.Comparer(func(a, b url.URL) bool { return a.String() == b.String() }))
}

func FuzzBinaryModeIsReadAsTheSDKDoes(f *testing.F) {
	f.Add("1.0", "1", "/s", "t", "DTW", "2024-01-02T03:04:05Z", "application/json", "tenant", "acme", []byte(`{}`))
	f.Add("0.3", "1", "https://example.com/a%20b?c#d", "t", "", "2024-01-02T03:04:05.678+02:00", "text/plain; a=b", "a1", "", []byte("x"))
	f.Add("1.0", "a b", "urn:x:y", "t", " ", "never", "text", "a-b", "x", []byte(nil))
	f.Add("1.0", "100%25", "//host/a", "grün", "\"q\"", "2024-02-30T03:04:05Z", "", "data", "\x00", []byte(nil))
	f.Fuzz(func(t *testing.T, version, id, source, eventType, subject, at, contentType, name, value string, body []byte) {
		h := http.Header{}
		set := func(name, value string) {
			if value == "" {
				return
			}
			for _, c := range []byte(value) {
				// What net/http lets through, and neither encoded nor quoted: the
				// SDK does not decode. It trims, which the server has done here.
				if c < ' ' || c == 0x7f || c == '%' || c == '"' {
					t.Skip()
				}
			}
			if strings.TrimSpace(value) != value || strings.ContainsFunc(name, func(r rune) bool {
				return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
			}) {
				t.Skip()
			}
			h[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
		}
		set("ce-specversion", version)
		set("ce-id", id)
		set("ce-source", source)
		set("ce-type", eventType)
		set("ce-subject", subject)
		set("ce-time", at)
		set("content-type", contentType)
		set("ce-"+name, value)
		if len(h["Ce-"]) > 0 || strings.HasPrefix(strings.ToLower(contentType), "application/cloudevents") || h.Get("ce-datacontentencoding") != "" {
			t.Skip()
		}

		ours, err := serve.ReadBinary(h, body, false)
		theirs, sdkErr := sdk(h, body)
		switch {
		case err == nil && sdkErr != nil:
			t.Fatalf("%v: the SDK refuses it: %v", h, sdkErr)
		case err == nil:
			if diff := same(theirs, ours); diff != "" {
				t.Fatalf("%v (-SDK +ours):\n%s", h, diff)
			}
		case sdkErr == nil && !stricter(err):
			t.Fatalf("%v: refused, and not by the SDK: %v", h, err)
		}
	})
}

// stricter says whether err is one of the things that we refuse on purpose and
// the SDK takes.
func stricter(err error) bool {
	for _, known := range []string{
		"not UTF-8", "is NUL", "at most 1024 are taken", "it is blank", "cannot be an extension", "does not exist",
		"is there twice", "lower-case letters and digits only", "want a whole number", "half of a surrogate pair",
		"data_base64 too", "want a string", "want a media type", "the body is not JSON", "more than 256", "want a URI reference",
		"want an absolute URI", "id: missing", "type: missing", "source: missing", "specversion",
	} {
		if strings.Contains(err.Error(), known) {
			return true
		}
	}
	return false
}

func FuzzStructuredModeIsReadAsTheSDKDoes(f *testing.F) {
	for _, rest := range []string{
		``, `,"data":{"a":[1,"}"]}`, `,"data":"x","datacontenttype":"text/plain"`, `,"data_base64":"AAEC"`, `,"data_base64":5`, `,"data":null`,
		`,"subject":"\u00e4\n","time":"2024-01-02T03:04:05+02:00"`, `,"a":true,"b":-5,"c":"\ud800"`, `,"":1,"id":"2"`, `,"dataschema":"https://a/b"`, `,"tenant":{"a":1}`,
	} {
		f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t"` + rest + `}`))
	}
	f.Add([]byte(`{"specversion":"0.3","id":"1","source":"/s","type":"t","data":{}}`))
	f.Add([]byte("[]"))
	f.Fuzz(func(t *testing.T, body []byte) {
		ours, err := serve.ReadStructured(body, false)
		h := http.Header{"Content-Type": {event.ApplicationCloudEventsJSON}}
		theirs, sdkErr := sdk(h, body)
		switch {
		case err == nil && !json.Valid(body), err == nil && !utf8.Valid(body):
			t.Fatalf("%q was taken", body)
		case err == nil && sdkErr == nil:
			if diff := same(theirs, ours); diff != "" && !knownDifference(body) {
				t.Fatalf("%s (-SDK +ours):\n%s", body, diff)
			}
		case err == nil && !knownDifference(body):
			t.Fatalf("%s: the SDK refuses it: %v", body, sdkErr)
		case err != nil && sdkErr == nil && !stricter(err):
			t.Fatalf("%s: refused, and not by the SDK: %v", body, err)
		}
	})
}

// knownDifference says whether body has something that the SDK reads otherwise:
// escapes and line breaks in base64, 0.3 with an encoding, null for data, and ""
// for an attribute, which is none to us.
func knownDifference(body []byte) bool {
	for _, known := range []string{"data_base64", "datacontentencoding", "null", "schemaurl", "dataschema", `\`, `""`} {
		if bytes.Contains(body, []byte(known)) {
			return true
		}
	}
	return false
}

func FuzzLenientReadingTakesWhateverCanBeRead(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"http://bad host\u0000","type":"t","time":"never","subject":" "}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		strict, err := serve.ReadStructured(body, false)
		lenient, lenientErr := serve.ReadStructured(body, true)
		if err != nil {
			return
		}
		if lenientErr != nil {
			t.Fatalf("%s: strict reading takes it, lenient says %v", body, lenientErr)
		}
		if diff := same(strict, lenient); diff != "" {
			t.Fatalf("%s (-strict +lenient):\n%s", body, diff)
		}
	})
}

func BenchmarkReadBinary(b *testing.B) {
	h := header("ce-specversion: 1.0", "ce-id: flight-2001-000001", "ce-source: /tandem/flights-2001", "ce-type: com.example.flight.departed",
		"ce-subject: DTW", "ce-time: 2001-01-01T00:47:00Z", "content-type: application/json", "user-agent: x", "accept-encoding: gzip", "content-length: 90")
	body := []byte(`{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := serve.ReadBinary(h, body, false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sdk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := sdk(h, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReadStructured(b *testing.B) {
	body := []byte(`{"specversion":"1.0","id":"flight-2001-000001","source":"/tandem/flights-2001","type":"com.example.flight.departed","subject":"DTW","time":"2001-01-01T00:47:00Z","datacontenttype":"application/json","data":{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}}`)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := serve.ReadStructured(body, false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sdk", func(b *testing.B) {
		h := http.Header{"Content-Type": {event.ApplicationCloudEventsJSON}}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := sdk(h, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
