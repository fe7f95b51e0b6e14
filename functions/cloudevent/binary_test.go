package cloudevent_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// The rules of Tandem's own programs.
var (
	relay    = cloudevent.Rules{}
	function = cloudevent.Rules{Old: true, MaxName: 1024}
	lenient  = cloudevent.Rules{Old: true, MaxName: 1024, Lenient: true}
)

// header returns headers as net/http represents them.
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

// good returns the headers of a valid event, and more.
func good(more ...string) []string {
	return append([]string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: t"}, more...)
}

func TestEventIsReadFromHeaders(t *testing.T) {
	t.Parallel()

	lines := []string{
		"ce-specversion: 1.0", "ce-id: a%20b", "ce-source: https://example.com/a?b=c#d", "ce-type: t", "ce-subject: \"s t\"",
		"ce-time: 2024-01-02T03:04:05.678+02:00", "ce-dataschema: https://example.com/schema", "content-type: text/plain; charset=utf-8",
		"ce-tenant: %C3%A4", "ce-empty: ", "accept: */*", "cex: no", "ce: no",
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

	upper, own := map[string][]string{}, map[string][]string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		upper[strings.ToUpper(name)], own[name] = []string{value}, []string{value}
	}
	for name, h := range map[string]map[string][]string{"HTTP": header(lines...), "NATS": own, "in upper case": upper} {
		e, err := cloudevent.ReadBinary(h, []byte("grün"), relay)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, e); diff != "" {
			t.Errorf("%s: event (-want +got):\n%s", name, diff)
		}
		if e.Time().Location() != time.UTC {
			t.Errorf("%s: time is in %s", name, e.Time().Location())
		}
	}
}

func TestContentTypeMayBeAnAttributeLikeOthers(t *testing.T) {
	t.Parallel()

	e, err := cloudevent.ReadBinary(header(good("ce-datacontenttype: text/plain;%20a=b")...), []byte("x"), relay)
	if err != nil || e.DataContentType() != "text/plain; a=b" {
		t.Errorf("content type is %q, error %v", e.DataContentType(), err)
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

	inHeaders := header("ce-specversion: 0.3", "ce-id: 1", "ce-source: /s", "ce-type: t",
		"ce-schemaurl: https://example.com/schema", "ce-datacontentencoding: base64", "content-type: text/plain")
	inJSON := []byte(`{"specversion":"0.3","id":"1","source":"/s","type":"t","schemaurl":"https://example.com/schema",
		"datacontentencoding":"base64","datacontenttype":"text/plain","data":"aGVsbG8="}`)
	binary, err := cloudevent.ReadBinary(inHeaders, []byte("aGVsbG8="), function)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, binary); diff != "" {
		t.Errorf("binary mode (-want +got):\n%s", diff)
	}
	structured, err := cloudevent.ReadJSON(inJSON, function)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, structured); diff != "" {
		t.Errorf("structured mode (-want +got):\n%s", diff)
	}

	const says = `specversion "0.3": want 1.0`
	if _, err := cloudevent.ReadBinary(inHeaders, nil, relay); err == nil || err.Error() != says {
		t.Errorf("where 0.3 is not taken the error is %v, want %q", err, says)
	}
	if _, err := cloudevent.ReadJSON(inJSON, relay); err == nil || err.Error() != says {
		t.Errorf("where 0.3 is not taken the error is %v, want %q", err, says)
	}
}

func TestHeadersThatAreNoEventAreRefused(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ header, says string }{
		{"content-type: nonsense/", `datacontenttype "nonsense/": want a media type`},
		{"content-type: application/cloudevents+json", "an event cannot hold another one"},
		{"ce-my-name: x", `attribute name "my-name": want lower-case letters and digits only`},
		{"ce-to\u212Aen: x", "want lower-case letters and digits only"}, // its lower case is k
		{"ce-: x", `"" cannot be an extension`},
		{"ce-data: x", `"data" cannot be an extension`},
		{"ce-id: 2", "id: the header occurs 2 times"},
		{"CE-ID: 2", "id: the header occurs 2 times"},
		{"ce-subject: %20", "subject: it is blank"},
		{"ce-subject: %C0%A0", "subject: it is not UTF-8"},
		{"ce-subject: \xff", "subject: it is not UTF-8"},
		{"ce-subject: a%E2%82", "subject: it is not UTF-8"},
		{"ce-subject: %EF%BF%BF", "subject: noncharacter U+FFFF at byte 0"},
		{"ce-dataschema: schema", `dataschema "schema": want an absolute URI`},
		{"ce-time: yesterday", `time "yesterday": want a time as in RFC 3339`},
		{"ce-time: 0000-01-01T00:00:00+01:00", "time: year -1: want 0 to 9999"},
		{"ce-tenant: a%00", "tenant: control character U+0000 at byte 1"},
		{"ce-tenant: a%0A", "tenant: control character U+000A at byte 1"},
		{"ce-tenant: %C2%85", "tenant: control character U+0085 at byte 0"},
	} {
		refuses(t, function, tt.says, good(tt.header)...)
		refuses(t, relay, tt.says, good(tt.header)...)
	}
	for _, tt := range []struct{ header, says string }{
		{"ce-source: http://a b/", "want a URI reference"},
		{"ce-source: %23", "source: missing"},
		{"ce-source: ", "source: missing"},
	} {
		refuses(t, function, tt.says, "ce-specversion: 1.0", "ce-id: 1", "ce-type: t", tt.header)
	}
	refuses(t, function, "specversion: missing", "ce-id: 1", "ce-source: /s", "ce-type: t")
	refuses(t, function, `specversion "9": want 1.0 or 0.3`, "ce-specversion: 9", "ce-id: 1")
	refuses(t, function, "id, source, type: missing", "ce-specversion: 1.0")
	refuses(t, function, "id, type: missing", "ce-specversion: 1.0", "ce-source: /s")
}

func refuses(t *testing.T, rules cloudevent.Rules, says string, lines ...string) {
	t.Helper()

	e, err := cloudevent.ReadBinary(header(lines...), nil, rules)
	if err == nil {
		t.Errorf("headers %.60q were taken as %v", lines, e)
		return
	}
	if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") || errors.Is(err, cloudevent.ErrNone) {
		t.Errorf("headers %.60q: error is %q, want one line that says %q", lines, err, says)
	}
}

func TestWhatHasNothingOfAnEventIsToldApart(t *testing.T) {
	t.Parallel()

	for _, h := range []http.Header{nil, header("content-type: application/json"), header("ce-tenant: x")} {
		if _, err := cloudevent.ReadBinary(h, nil, function); !errors.Is(err, cloudevent.ErrNone) {
			t.Errorf("headers %v: error is %v, want ErrNone", h, err)
		}
	}
}

func TestAnAttributeInTwoSpellingsIsRefusedWhicheverComesFirst(t *testing.T) {
	t.Parallel()

	for _, names := range [][2]string{
		{"ce-id", "CE-ID"},
		{"ce-specversion", "Ce-Specversion"},
		{"Ce-SpecVersion", "CE-SPECVERSION"},
		{"ce-tenant", "ce-Tenant"},
		{"ce-datacontenttype", "content-type"},
		{"content-type", "Content-Type"},
	} {
		for range 20 { // the order of a map varies
			h := map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/s"}, "ce-type": {"t"}}
			if strings.EqualFold(names[0], "ce-specversion") {
				delete(h, "ce-specversion")
			}
			value := "1.0"
			if strings.HasSuffix(names[0], "type") {
				value = "text/plain"
			}
			h[names[0]], h[names[1]] = []string{value}, []string{value}
			if _, err := cloudevent.ReadBinary(h, nil, relay); err == nil || !strings.Contains(err.Error(), "occurs twice") {
				t.Fatalf("%v: error is %v", names, err)
			}
		}
	}
}

func TestBoundsAreForWhoAsksForThem(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"id", "source", "type"} {
		tooLong := header(good()...)
		tooLong.Set("ce-"+name, strings.Repeat("x", 1025))
		_, err := cloudevent.ReadBinary(tooLong, nil, function)
		if want := name + ": it has 1025 bytes, at most 1024 are accepted"; err == nil || err.Error() != want {
			t.Errorf("error is %v, want %q", err, want)
		}
		if _, err := cloudevent.ReadBinary(tooLong, nil, relay); err != nil {
			t.Errorf("without a bound: %v", err)
		}
		longest := header(good()...)
		longest.Set("ce-"+name, strings.Repeat("x", 1024))
		if _, err := cloudevent.ReadBinary(longest, nil, function); err != nil {
			t.Error(err)
		}
	}

	many := header(good()...)
	for i := range 252 {
		many.Set(fmt.Sprintf("ce-a%d", i), "x")
	}
	if _, err := cloudevent.ReadBinary(many, nil, relay); err != nil {
		t.Errorf("256 attributes: %v", err)
	}
	for _, more := range []string{"knativeerrordest", "knativeerrorcode", "knativeerrordata", "tandemfunction"} {
		many.Set("ce-"+more, "x")
	}
	if _, err := cloudevent.ReadBinary(many, nil, relay); err == nil || err.Error() != "it has more than 256 attributes" {
		t.Errorf("260 attributes: error is %v", err)
	}
	if _, err := cloudevent.ReadBinary(many, nil, lenient); err != nil {
		t.Errorf("an accepted event cannot become a dead letter: %v", err)
	}
}

func TestLenientReadingTakesWhatItCan(t *testing.T) {
	t.Parallel()

	e, err := cloudevent.ReadBinary(header("ce-specversion: 1.0", "ce-source: http://bad host%00/", "ce-id: "+strings.Repeat("x", 2000),
		"ce-id: 2", "ce-type: a\xff", "ce-time: never", "ce-an-other: y", "ce-dataschema: z", "content-type: application/json"), []byte("{no JSON"), lenient)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{e.Source(), e.ID(), e.Type(), e.Time().String(), e.DataSchema(), string(e.Data())}
	want := []string{"http://bad host\ufffd/", strings.Repeat("x", 1021) + "…", "a\ufffd", time.Time{}.String(), "", "{no JSON"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if !e.DataBase64 {
		t.Error("data would be written into an envelope as if it were JSON")
	}
}

func TestBinaryModeIsWrittenUnderTheNamesAsked(t *testing.T) {
	t.Parallel()

	e := event.New()
	e.SetID("é 1")
	e.SetSource("/orders")
	e.SetType("com.example.order")
	e.SetSubject(`50% "off"`)
	e.SetTime(time.Date(2001, 1, 2, 3, 4, 5, 600, time.UTC))
	e.SetDataSchema("https://example.com/schema")
	e.SetExtension("attempt", 3)
	e.SetExtension("empty", "")
	e.SetDataContentType(`text/plain; a="b c%41"`)
	e.DataEncoded = []byte("x")

	got, body, err := cloudevent.WriteBinary(e, func(attribute string) string { return "x-" + attribute })
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"x-specversion":     {"1.0"},
		"x-id":              {"%C3%A9%201"},
		"x-source":          {"/orders"},
		"x-type":            {"com.example.order"},
		"x-subject":         {"50%25%20%22off%22"},
		"x-time":            {"2001-01-02T03:04:05.0000006Z"},
		"x-dataschema":      {"https://example.com/schema"},
		"x-attempt":         {"3"},
		"x-empty":           {""},
		"x-datacontenttype": {`text/plain; a="b c%41"`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if string(body) != "x" {
		t.Errorf("body is %q", body)
	}
}
