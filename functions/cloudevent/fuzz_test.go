package cloudevent_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

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
				// Characters that net/http accepts and that are neither encoded nor quoted:
				// the SDK does not decode. It trims, which the server has done here.
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

		ours, err := cloudevent.ReadBinary(h, body, function)
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
		ours, err := cloudevent.ReadJSON(body, function)
		h := http.Header{"Content-Type": {event.ApplicationCloudEventsJSON}}
		theirs, sdkErr := sdk(h, body)
		switch {
		case err == nil && !json.Valid(body), err == nil && !utf8.Valid(body):
			t.Fatalf("%q was taken", body)
		case err == nil && sdkErr == nil:
			if diff := same(theirs, ours); diff != "" && !readOtherwise(h, body) {
				t.Fatalf("%s (-SDK +ours):\n%s", body, diff)
			}
		case err == nil && !readOtherwise(h, body):
			t.Fatalf("%s: the SDK refuses it: %v", body, sdkErr)
		case err != nil && sdkErr == nil && !stricter(err):
			t.Fatalf("%s: refused, and not by the SDK: %v", body, err)
		}
	})
}

func FuzzBatchIsReadAsItsElementsAre(f *testing.F) {
	const one = `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":["]",{"a":"}"}]}`
	for _, text := range []string{
		``, ` `, `{}`, `[]`, ` [ ` + one + ` , ` + one + ` ] `, `[` + one + `,{},` + one + `]`, `[` + one + `,{"specversion":1,"id":[{}]},` + one + `]`,
		`[` + one + `,5]`, `[` + one + `,{"a":1,"a":[2]},` + one, `[` + one + `,{"id":"` + "\xff" + `"}]`, `[` + one + `,,` + one + `]`, `[` + one + `] x`, `[` + one + `,{"a"}]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		members, err := cloudevent.ReadBatch(body, relay)
		each, eachErr := cloudevent.Members(body, relay)
		var elements []json.RawMessage
		if json.Unmarshal(body, &elements) != nil || !utf8.Valid(body) || elements == nil {
			if err == nil || eachErr == nil {
				t.Fatalf("%q was taken as a batch: %v, %v", body, err, eachErr)
			}
			return
		}
		if eachErr != nil {
			t.Fatalf("%q: %v", body, eachErr)
		}
		i := 0
		for m := range each {
			e, want := cloudevent.ReadJSON(elements[i], relay)
			if fmt.Sprint(m.Err) != fmt.Sprint(want) {
				t.Fatalf("element %d of %q: error is %v, want %v", i, body, m.Err, want)
			}
			if diff := cmp.Diff(e, m.Event); diff != "" {
				t.Fatalf("element %d of %q (-want +got):\n%s", i, body, diff)
			}
			if err == nil && (fmt.Sprint(members[i].Err) != fmt.Sprint(want) || !cmp.Equal(e, members[i].Event)) {
				t.Fatalf("element %d of %q is %v, want %v", i, body, members[i], e)
			}
			i++
		}
		if i != len(elements) || err == nil && len(members) != i {
			t.Fatalf("%q has %d elements, %d were read, and %d by ReadBatch", body, len(elements), i, len(members))
		}
	})
}

func FuzzLenientReadingTakesWhateverCanBeRead(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"http://bad host\u0000","type":"t","time":"never","subject":" "}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		strict, err := cloudevent.ReadJSON(body, function)
		lenient, lenientErr := cloudevent.ReadJSON(body, lenient)
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

func FuzzWhatIsTakenCanBePassedOnInEveryMode(f *testing.F) {
	for _, rest := range []string{
		`,"data":{"a":[1,"}"]}`, `,"data":"x","datacontenttype":"text/plain"`, `,"data_base64":"AAEC"`, `,"datacontenttype":"a/b+json","data":null`,
		`,"subject":"\u00e4 %41\"","time":"2024-01-02T03:04:05+02:00"`, `,"a":true,"b":-5,"c":"","d":"%"`, `,"dataschema":"https://a/b#c"`,
		`,"datacontenttype":"text/plain","data":{"a":"\ufffe"}`,
	} {
		f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s?%20","type":"t"` + rest + `}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := cloudevent.ReadJSON(body, relay)
		if err != nil {
			return
		}
		if err := cloudevent.Check(e); err != nil {
			t.Fatalf("%s was taken: %v", body, err)
		}
		text, err := cloudevent.AppendJSON(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		back, err := cloudevent.ReadJSON(text, relay)
		if err != nil {
			t.Fatalf("%s, written as %s: %v", body, text, err)
		}
		if diff := cmp.Diff(asText(e), asText(back)); diff != "" {
			t.Fatalf("%s, written as %s (-read +back):\n%s", body, text, diff)
		}
		header, data, err := cloudevent.WriteBinary(e, func(attribute string) string { return "ce-" + attribute })
		if err != nil {
			t.Fatal(err)
		}
		if back, err = cloudevent.ReadBinary(header, data, relay); err != nil {
			t.Fatalf("%s, written as %v: %v", body, header, err)
		}
		if diff := cmp.Diff(asText(e), asText(back)); diff != "" {
			t.Fatalf("%s, written as %v (-read +back):\n%s", body, header, diff)
		}
	})
}

// asText returns all of an event as binary mode represents it: values without
// types.
func asText(e event.Event) map[string]string {
	all := map[string]string{
		"id": e.ID(), "source": e.Source(), "type": e.Type(), "subject": e.Subject(), "dataschema": e.DataSchema(),
		"datacontenttype": e.DataContentType(), "time": e.Time().String(), "": string(e.Data()),
	}
	for name, value := range e.Extensions() {
		all[name] = fmt.Sprint(value)
	}
	return all
}
