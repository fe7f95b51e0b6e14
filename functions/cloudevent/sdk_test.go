package cloudevent_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// request returns a request as the server passes it on.
func request(h http.Header, body []byte) *http.Request {
	return &http.Request{Method: http.MethodPost, Header: h, Body: io.NopCloser(bytes.NewReader(body))}
}

// sdk reads an event with the SDK.
func sdk(h http.Header, body []byte) (e event.Event, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	read, err := cehttp.NewEventFromHTTPRequest(request(h, body))
	if err != nil {
		return event.Event{}, err
	}
	return *read, read.Validate()
}

// sdkBatch reads a batch with the SDK.
func sdkBatch(h http.Header, body []byte) (events []event.Event, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("panic: %v", value)
		}
	}()
	return cehttp.NewEventsFromHTTPRequest(request(h, body))
}

// same compares an event that the SDK read with one that we read. The SDK keeps
// the zone of a time and does not set attributes that the JSON format implies;
// whether data was base64 does not matter without an envelope.
func same(theirs, ours event.Event) string {
	v1 := *theirs.Context.AsV1()
	if v1.Time != nil {
		v1.Time.Time = v1.Time.UTC()
	}
	if len(v1.Extensions) == 0 {
		v1.Extensions = nil
	}
	if len(theirs.DataEncoded) > 0 && v1.DataContentType == nil && !ours.DataBase64 && ours.DataContentType() == event.ApplicationJSON {
		v1.DataContentType = ours.Context.(*event.EventContextV1).DataContentType
	}
	theirs.Context = &v1
	theirs.DataBase64 = ours.DataBase64
	if len(theirs.DataEncoded) == 0 {
		theirs.DataEncoded, theirs.DataBase64 = nil, ours.DataBase64
	}
	return cmp.Diff(theirs, ours, cmp.Comparer(func(a, b url.URL) bool { return a.String() == b.String() }))
}

// Messages that we reject and the SDK accepts, by our error, with the reason.
var refusals = []struct{ says, why string }{
	{"it is not UTF-8", "text is Unicode (spec, type system)"},
	{"control character", "no attribute has one (spec, type system)"},
	{"noncharacter", "no attribute has one (spec, type system)"},
	{"half of a surrogate pair", "no attribute has one (spec, type system); the SDK makes one id of two"},
	{"at most 1024 are accepted", "an id, source or type is in indexes and subjects"},
	{"more than 256 attributes", "to find repeated ones must stay cheap"},
	{"it is blank", "a name of white space is none"},
	{"missing", "the SDK takes an event without a type, or with an empty source, from JSON"},
	{"occurs twice", "the SDK takes one of the two, in headers by chance"},
	{"the header occurs 2 times", "likewise"},
	{"cannot be an extension", "data, specversion and an empty name; the SDK drops what follows an empty one"},
	{"lower-case letters and digits only", "names of attributes (spec, naming conventions)"},
	{"want a whole number of 32 bits", "integers (spec, type system); the SDK cuts the fraction off"},
	{"want a string, a number or a boolean", "no attribute is an object (JSON format, 2.2)"},
	{"want a string", "the SDK takes numbers for some attributes"},
	{"data_base64 is present, too", "the two exclude each other (JSON format, 3.1.1)"},
	{"want a media type", "datacontenttype (HTTP binding, 2.1)"},
	{"cannot hold another one", "in binary mode it would be taken for the event inside it"},
	{"it is not JSON", "the SDK stops reading at the end of the object"},
	{"want a URI reference", "source (spec, type system)"},
	{"want an absolute URI", "dataschema (spec, type system)"},
	{"want 0 to 9999", "years (RFC 3339)"},
	{"want a time as in RFC 3339", "the SDK takes an offset of 24 hours and more"},
	{"specversion", "the SDK takes headers of 0.2 and 0.1 for extensions of 1.0"},
	{"charset", "JSON is UTF-8 here; the SDK does not look"},
	{"is not supported", "a format that is not known: the SDK takes the headers beside it"},
	{"it is a batch", "the SDK takes the headers beside it"},
	{"want a JSON object", "the SDK takes null for an event"},
	{"has specversion", "a batch has one version (HTTP binding, 3.3.2)"},
	{"is declared as base64, but is not valid base64", "the SDK leaves line breaks out"},
	{"it is empty", "no JSON is none"},
}

// stricter reports whether err is about something that we reject on purpose
// and the SDK accepts.
func stricter(err error) bool {
	for _, known := range refusals {
		if strings.Contains(err.Error(), known.says) {
			return true
		}
	}
	return false
}

// Messages that we accept and the SDK rejects or reads differently, with the
// reason.
var readings = []struct {
	why string
	in  func(h http.Header, body []byte) bool
}{
	{"percent-encoding (HTTP binding, 3.1.3.2), which the SDK does not decode", inAttributes("%")},
	{"quoted strings (HTTP binding, 3.1.3.2), which the SDK leaves as they are", inAttributes(`"`)},
	{"data of 0.3 in base64, which the SDK leaves as they are", func(h http.Header, _ []byte) bool { return h["Ce-Datacontentencoding"] != nil }},
	{"escapes and line breaks in data_base64; a number for it, at which the SDK panics", inBody("data_base64")},
	{"data of 0.3 in base64, likewise", inBody("datacontentencoding")},
	{"null for data or for an attribute", inBody("null")},
	{"an empty dataschema, or a relative schemaurl of 0.3", inBody("schema")},
	{"escapes in names and values, which the SDK's reader of JSON takes otherwise", inBody(`\`)},
	{"an attribute that is empty, which is none to us", inBody(`""`)},
	{"the content type as an attribute among others, as NATS has it", func(h http.Header, _ []byte) bool { return h["Ce-Datacontenttype"] != nil }},
	{"the content type in another case or with white space, which the SDK does not know", func(h http.Header, _ []byte) bool {
		t := h.Get("Content-Type")
		return strings.ToLower(t) != t || strings.ContainsAny(t, " \t")
	}},
	{"an attribute that is empty, in a header", func(h http.Header, _ []byte) bool {
		for name, values := range h {
			if values[0] == "" && (strings.HasPrefix(name, "Ce-") || name == "Content-Type") {
				return true
			}
		}
		return false
	}},
}

func inAttributes(text string) func(http.Header, []byte) bool {
	return func(h http.Header, _ []byte) bool {
		for name, values := range h {
			if strings.HasPrefix(name, "Ce-") && strings.Contains(strings.Join(values, ""), text) {
				return true
			}
		}
		return false
	}
}

func inBody(text string) func(http.Header, []byte) bool {
	return func(_ http.Header, body []byte) bool { return bytes.Contains(body, []byte(text)) }
}

// readOtherwise reports whether a message contains something that the SDK reads
// differently.
func readOtherwise(h http.Header, body []byte) bool {
	for _, known := range readings {
		if known.in(h, body) {
			return true
		}
	}
	return false
}

func FuzzRequestIsReadAsTheSDKDoes(f *testing.F) {
	for _, seed := range []string{
		"ce-specversion: 1.0\nce-id: 1\nce-source: /s\nce-type: t\nce-tenant: a\ncontent-type: application/json\n\n{}",
		"CE-SPECVERSION: 1.0\nCe-Id: 1\nce-SOURCE: /s\nce-type: t\nce-time: 2018-04-05T17:31:00Z\n\n",
		"ce-specversion: 0.3\nce-id: 1\nce-source: /s\nce-type: t\nce-schemaurl: https://a/b\n\nx",
		"ce-specversion: 1.0\nce-id: a%20b\nce-source: \"/s\"\nce-type: t\n\n",
		"content-type: application/cloudevents+json; charset=utf-8\nce-id: 5\n\n" + `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}`,
		"content-type: application/cloudevents+xml\n\n<event/>",
		"content-type: application/cloudevents-batch+json\n\n[]",
		"content-type: text/plain\n\nx",
	} {
		head, body, _ := strings.Cut(seed, "\n\n")
		f.Add([]byte("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: " + fmt.Sprint(len(body)) + "\r\n" + strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			t.Skip()
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Skip()
		}
		ours, err := cloudevent.Read(r.Header.Get("Content-Type"), r.Header, body, function)
		theirs, sdkErr := sdk(r.Header, body)
		switch {
		case err == nil && sdkErr != nil && !readOtherwise(r.Header, body):
			t.Fatalf("%q: the SDK refuses it: %v", raw, sdkErr)
		case err == nil && sdkErr == nil:
			if diff := same(theirs, ours); diff != "" && !readOtherwise(r.Header, body) {
				t.Fatalf("%q (-SDK +ours):\n%s", raw, diff)
			}
		case err != nil && sdkErr == nil && !stricter(err):
			t.Fatalf("%q: refused, and not by the SDK: %v", raw, err)
		}
	})
}

func FuzzBatchIsReadAsTheSDKDoes(f *testing.F) {
	const one = `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":["]"]}}`
	for _, seed := range []string{"[]", " [ " + one + " , " + one + " ] ", "[" + one + ",{}]", "[" + one + ",5]", "[" + one, "{}", "[null]"} {
		f.Add([]byte(seed))
	}
	h := http.Header{"Content-Type": {event.ApplicationCloudEventsBatchJSON}}
	f.Fuzz(func(t *testing.T, body []byte) {
		ours, err := cloudevent.ReadBatch(body, function)
		theirs, sdkErr := sdkBatch(h, body)
		if err != nil {
			if sdkErr == nil && !stricter(err) && !strings.Contains(err.Error(), "want a JSON array") && !strings.Contains(err.Error(), "is not an object") {
				t.Fatalf("%s: refused, and not by the SDK: %v", body, err)
			}
			return
		}
		if !json.Valid(body) || !utf8.Valid(body) {
			t.Fatalf("%q was taken", body)
		}
		if sdkErr != nil {
			// The SDK rejects all events because of one, which must be one that
			// we reject, too.
			for _, m := range ours {
				if m.Err != nil {
					return
				}
			}
			if !readOtherwise(h, body) {
				t.Fatalf("%s: the SDK refuses it: %v", body, sdkErr)
			}
			return
		}
		if len(ours) != len(theirs) {
			t.Fatalf("%s: %d events, the SDK has %d", body, len(ours), len(theirs))
		}
		for i, m := range ours {
			switch {
			case m.Err == nil:
				if diff := same(theirs[i], m.Event); diff != "" && !readOtherwise(h, body) {
					t.Fatalf("%s, event %d (-SDK +ours):\n%s", body, i, diff)
				}
			case theirs[i].Validate() == nil && !stricter(m.Err):
				t.Fatalf("%s, event %d: refused, and not by the SDK: %v", body, i, m.Err)
			}
		}
	})
}
