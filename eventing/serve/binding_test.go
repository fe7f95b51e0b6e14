package serve_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
)

// rule is a rule for receivers of events over HTTP, and a request to which it applies.
type rule struct {
	section string // of the document that the table is for
	name    string
	request string // head lines, an empty line, the body
	status  int    // 204 if zero
	says    string // part of the answer's body, or of a header line
	events  []string
}

// bindingRules are the rules of the HTTP Protocol Binding for CloudEvents 1.0.2.
var bindingRules = []rule{
	// Section 1.2 leaves methods and targets to the server.
	{"1.3", "binary mode", "ce-specversion: 1.0\nce-id: 1\nce-source: /s\nce-type: t\ncontent-type: text/plain\n\nx", 0, "", []string{"id=1 source=/s type=t datacontenttype=text/plain data=x"}},
	{"1.3", "structured mode", "content-type: application/cloudevents+json\n\n" + `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":[1]}`, 0, "", []string{"id=1 source=/s type=t datacontenttype=application/json data=[1]"}},
	{"1.3", "batched mode", "content-type: application/cloudevents-batch+json\n\n" + `[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"specversion":"1.0","id":"2","source":"/s","type":"t"}]`, 0, "", []string{"id=1 source=/s type=t", "id=2 source=/s type=t"}},
	{"2.1", "datacontenttype is a media type with its parameters", good("content-type: application/json;charset=utf-8; a=\"b c\"") + "{}", 0, "", []string{`id=1 source=/s type=t datacontenttype=application/json;charset=utf-8; a="b c" data={}`}},
	{"2.1", "datacontenttype that is no media type", good("content-type: no media type"), 400, "want a media type", nil},
	{"2.2", "data are opaque bytes, kept as they are", good("content-type: application/json") + "{ \"a\":1.50 }\r\n\x00\xff", 0, "", []string{"id=1 source=/s type=t datacontenttype=application/json data={ \"a\":1.50 }\r\n\x00\xff"}},
	{"3", "the content type tells the mode, in any case", "content-type: APPLICATION/CloudEvents+JSON\n\n" + `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`, 0, "", []string{"id=1 source=/s type=t"}},
	{"3", "and with parameters", "content-type: application/cloudevents+json; charset=UTF-8\n\n" + `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`, 0, "", []string{"id=1 source=/s type=t"}},
	{"3", "format that is not known", good("content-type: application/cloudevents+avro") + "x", 415, "send application/cloudevents+json or application/cloudevents-batch+json, or the event in headers", nil},
	{"3", "batch in a format that is not known", good("content-type: application/cloudevents-batch+avro") + "x", 415, "is not supported", nil},
	{"3", "otherwise it is binary mode", good("content-type: application/x-cloudevents+json") + "x", 0, "", []string{"id=1 source=/s type=t datacontenttype=application/x-cloudevents+json data=x"}},
	{"3", "message that is no event", "content-type: application/json\n\n{}", 415, "send the headers ce-specversion, ce-id, ce-source and ce-type", nil},
	{"3", "message with some headers of an event", "ce-specversion: 1.0\nce-id: 1\nce-type: t\ncontent-type: application/json\n\n{}", 400, "source: missing", nil},
	{"3.1.1", "no content type, no datacontenttype", good() + "x", 0, "", []string{"id=1 source=/s type=t data=x"}},
	{"3.1.1", "a header ce-datacontenttype must not be there", good("ce-datacontenttype: text/plain"), 400, "not an attribute of the HTTP binding, send content-type", nil},
	{"3.1.1", "nor beside content-type", good("ce-datacontenttype: text/plain", "content-type: text/plain"), 400, "not an attribute of the HTTP binding, send content-type", nil},
	{"3.1.2", "the body is the data", good("content-type: application/octet-stream") + "\x00\x01", 0, "", []string{"id=1 source=/s type=t datacontenttype=application/octet-stream data=\x00\x01"}},
	{"3.1.2", "the body is the data, in pieces too", good("transfer-encoding: chunked") + "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", 0, "", []string{"id=1 source=/s type=t data=abc"}},
	{"3.1.2", "no body, no data", good("content-type: application/json"), 0, "", []string{"id=1 source=/s type=t datacontenttype=application/json"}},
	{"3.1.3", "every attribute has a header", good("ce-subject: sub", "ce-time: 2018-04-05T17:31:00Z", "ce-dataschema: https://example.com/s"), 0, "", []string{"id=1 source=/s type=t subject=sub time=2018-04-05T17:31:00Z dataschema=https://example.com/s"}},
	{"3.1.3", "extensions too", good("ce-comexampleextension1: value", "ce-comexampleothervalue: 5"), 0, "", []string{"id=1 source=/s type=t comexampleextension1=value comexampleothervalue=5"}},
	{"3.1.3", "headers are distinct", good("ce-id: 2"), 400, "id: the header occurs 2 times", nil},
	{"3.1.3.1", "the prefix tells attributes from other headers", good("tenant: x", "cex: y", "x-ce-tenant: z"), 0, "", []string{"id=1 source=/s type=t"}},
	{"3.1.3.1", "names of headers are case-insensitive", "CE-SPECVERSION: 1.0\nCe-Id: 1\ncE-sOURCE: /s\nce-TYPE: t\nCE-Tenant: x\n\n", 0, "", []string{"id=1 source=/s type=t tenant=x"}},
	{"3.1.3.1", "names of attributes are lower-case letters and digits", good("ce-my-tenant: x"), 400, `attribute name "my-tenant"`, nil},
	{"3.1.3.2", "white space around a value is none of it", good("ce-subject:   a \t"), 0, "", []string{"id=1 source=/s type=t subject=a"}},
	{"3.1.3.2", "percent-encoding, the example", good("ce-subject: Euro%20%E2%82%AC%20%F0%9F%98%80"), 0, "", []string{"id=1 source=/s type=t subject=Euro € 😀"}},
	{"3.1.3.2", "lower-case digits", good("ce-subject: %e2%82%ac"), 0, "", []string{"id=1 source=/s type=t subject=€"}},
	{"3.1.3.2", "encoded without need", good("ce-subject: %41%42c"), 0, "", []string{"id=1 source=/s type=t subject=ABc"}},
	{"3.1.3.2", "a single round", good("ce-subject: 100%2525"), 0, "", []string{"id=1 source=/s type=t subject=100%25"}},
	{"3.1.3.2", "identities too", "ce-specversion: %31.0\nce-id: a%20b\nce-source: /%2573\nce-type: %74\n\n", 0, "", []string{"id=a b source=/%73 type=t"}},
	{"3.1.3.2", "quoted string", good(`ce-subject: "a b"`), 0, "", []string{"id=1 source=/s type=t subject=a b"}},
	{"3.1.3.2", "backslashes in a quoted string", good(`ce-subject: "say \"hi\" \\ \x"`), 0, "", []string{`id=1 source=/s type=t subject=say "hi" \ x`}},
	{"3.1.3.2", "first unquoted, then decoded", good(`ce-subject: "%22a%20b%22"`), 0, "", []string{`id=1 source=/s type=t subject="a b"`}},
	{"3.1.3.2", "no comments in parentheses", good("ce-subject: a (b)"), 0, "", []string{"id=1 source=/s type=t subject=a (b)"}},
	{"3.1.3.2", "overlong encoding, the example", good("ce-subject: %C0%A0"), 400, "subject: it is not UTF-8", nil},
	{"3.1.3.2", "half a character", good("ce-subject: a%E2%82"), 400, "subject: it is not UTF-8", nil},
	{"3.1.3.2", "half of a surrogate pair", good("ce-subject: %ED%A0%BD"), 400, "subject: it is not UTF-8", nil},
	{"3.1.3.2", "control characters, which no attribute has", good("ce-subject: a%07"), 400, "subject: control character U+0007", nil},
	{"3.2.1", "structured mode, the example", "content-type: application/cloudevents+json; charset=UTF-8\n\n" + `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`, 0, "", []string{"id=1 source=/s type=t"}},
	{"3.2.2", "the format says what it means", "content-type: application/cloudevents+json\n\n" + `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/xml","data":"<a/>","time":null,"n":5,"b":true}`, 0, "", []string{"id=1 source=/s type=t datacontenttype=text/xml b=true n=5 data=<a/>"}},
	{"3.2.2", "body that is not in that format", "content-type: application/cloudevents+json\n\n{", 400, "it is not JSON", nil},
	{"3.2.3", "headers may be there, the payload counts", "ce-specversion: 0.3\nce-id: 2\nce-source: /other\nce-tenant: x\nce-datacontenttype: y\ncontent-type: application/cloudevents+json\n\n" + `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`, 0, "", []string{"id=1 source=/s type=t"}},
	{"3.2.3", "all attributes are in the payload", "ce-id: 1\ncontent-type: application/cloudevents+json\n\n" + `{"specversion":"1.0","source":"/s","type":"t"}`, 400, "id: missing", nil},
	{"3.3", "a batch is none of a single event", "content-type: application/cloudevents-batch+json\n\n" + `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`, 400, "want a JSON array", nil},
	{"3.3", "a single event is no batch", "content-type: application/cloudevents+json\n\n" + `[{"specversion":"1.0","id":"1","source":"/s","type":"t"}]`, 400, "want a JSON object", nil},
	{"3.3.1", "batched mode, the example", "content-type: application/cloudevents-batch+json; charset=UTF-8\n\n" + `[{"specversion":"1.0","id":"1","source":"/s","type":"t"}]`, 0, "", []string{"id=1 source=/s type=t"}},
	{"3.3.2", "the batch may be empty", "content-type: application/cloudevents-batch+json\n\n[]", 0, "", nil},
	{"3.3.2", "specversion is the same in all", "content-type: application/cloudevents-batch+json\n\n" + `[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"specversion":"0.3","id":"2","source":"/s","type":"t"}]`, 400, "element 1 has specversion 0.3, others have 1.0", nil},
	{"3.3.2", "other attributes may differ", "content-type: application/cloudevents-batch+json\n\n" + `[{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{}},{"specversion":"1.0","id":"2","source":"/x","type":"t","datacontenttype":"text/plain","data":"x"}]`, 0, "", []string{"id=1 source=/s type=t datacontenttype=application/json data={}", "id=2 source=/x type=t datacontenttype=text/plain data=x"}},
}

// oldRules are the rules of version 0.3, which is accepted as well.
var oldRules = []rule{
	{"3.1", "binary mode", "ce-specversion: 0.3\nce-id: 1\nce-source: /s\nce-type: t\nce-schemaurl: https://example.com/s\ncontent-type: text/plain\n\nx", 0, "", []string{"id=1 source=/s type=t datacontenttype=text/plain dataschema=https://example.com/s data=x"}},
	{"3.1", "binary mode with data in base64", "ce-specversion: 0.3\nce-id: 1\nce-source: /s\nce-type: t\nce-datacontentencoding: base64\ncontent-type: text/plain\n\neA==", 0, "", []string{"id=1 source=/s type=t datacontenttype=text/plain data=x"}},
	{"3.1.3.2", "values are percent-encoded", "ce-specversion: 0.3\nce-id: a%20b\nce-source: /s\nce-type: t\n\n", 0, "", []string{"id=a b source=/s type=t"}},
	{"3.2", "structured mode", "content-type: application/cloudevents+json\n\n" + `{"specversion":"0.3","id":"1","source":"/s","type":"t","schemaurl":"https://example.com/s","datacontenttype":"text/plain","datacontentencoding":"base64","data":"eA=="}`, 0, "", []string{"id=1 source=/s type=t datacontenttype=text/plain dataschema=https://example.com/s data=x"}},
	{"3.2", "what only 1.0 has", "content-type: application/cloudevents+json\n\n" + `{"specversion":"0.3","id":"1","source":"/s","type":"t","data_base64":"eA=="}`, 400, "version 0.3 has datacontentencoding instead", nil},
	{"3.3", "batched mode", "content-type: application/cloudevents-batch+json\n\n" + `[{"specversion":"0.3","id":"1","source":"/s","type":"t"}]`, 0, "", []string{"id=1 source=/s type=t"}},
}

// hookRules are the rules of HTTP 1.1 Web Hooks for Event Delivery 1.0.2.
var hookRules = []rule{
	{"2.2", "processed, and no payload: 204", good(), 204, "", []string{"id=1 source=/s type=t"}},
	{"2.2", "format not understood: 415", "content-type: text/html\n\n<html>", 415, "this is not a CloudEvent", nil},
	{"4.2", "the handshake allows", "OPTIONS\nWebHook-Request-Origin: sender.example.com\nWebHook-Request-Rate: 120\n\n", 200, "Webhook-Allowed-Origin: *", nil},
	{"4.2", "at any rate", "OPTIONS\nWebHook-Request-Origin: sender.example.com\n\n", 200, "Webhook-Allowed-Rate: *", nil},
	{"4.2", "and says by which method", "OPTIONS\nWebHook-Request-Origin: sender.example.com\n\n", 200, "Allow: OPTIONS, POST", nil},
	{"2.1", "the method is POST", "PUT\n" + good(), 405, "Allow: OPTIONS, POST", nil},
}

// good returns the head of an event's request, with more lines.
func good(more ...string) string {
	return strings.Join(append([]string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: t"}, more...), "\n") + "\n\n"
}

func TestEveryRuleOfTheHTTPBinding(t *testing.T) {
	t.Parallel()

	for _, table := range []struct {
		document string
		rules    []rule
	}{{"HTTP binding 1.0.2", bindingRules}, {"HTTP binding 0.3", oldRules}, {"web hooks 1.0.2", hookRules}} {
		for _, r := range table.rules {
			t.Run(fmt.Sprintf("%s, %s: %s", table.document, r.section, r.name), func(t *testing.T) {
				t.Parallel()

				m := &memory{}
				h, err := serve.New([]functions.Function{function("t", func(context.Context, event.Event) (functions.Effects, error) { return functions.Effects{}, nil })}, m, serve.Config{})
				if err != nil {
					t.Fatal(err)
				}
				status, answer := sendRaw(t, strings.TrimPrefix(newServer(t, h).URL, "http://"), r.request)
				want := r.status
				if want == 0 {
					want = http.StatusNoContent
				}
				if status != want || !strings.Contains(answer, r.says) {
					t.Errorf("answer is %d\n%s\nwant %d with %q", status, answer, want, r.says)
				}
				var events []string
				for _, id := range []string{"1", "2", "a b"} {
					for _, source := range []string{"/s", "/x", "/%73"} {
						if e, ok := m.events[[2]string{source, id}]; ok {
							events = append(events, describe(e))
						}
					}
				}
				if len(events) != m.committed() {
					t.Errorf("%d events are committed: %v", m.committed(), m.events)
				}
				if diff := cmp.Diff(r.events, events); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// describe formats an event in one line. Its specversion is always 1.0.
func describe(e event.Event) string {
	line := fmt.Sprintf("id=%s source=%s type=%s", e.ID(), e.Source(), e.Type())
	add := func(name, value string) {
		if value != "" {
			line += " " + name + "=" + value
		}
	}
	add("subject", e.Subject())
	if !e.Time().IsZero() {
		add("time", e.Time().Format("2006-01-02T15:04:05Z07:00"))
	}
	add("datacontenttype", e.DataContentType())
	add("dataschema", e.DataSchema())
	for _, name := range []string{"b", "n", "tenant", "comexampleextension1", "comexampleothervalue"} {
		if value, ok := e.Extensions()[name]; ok {
			add(name, fmt.Sprint(value))
		}
	}
	if known := e.Extensions(); len(known) > 2 {
		line += fmt.Sprint(" and more: ", known)
	}
	add("data", string(e.Data()))
	return line
}

// sendRaw sends the bytes of a request, which an HTTP client would not send, and
// returns the status, and the header and body of the answer.
func sendRaw(tb testing.TB, address, request string) (status int, answer string) {
	tb.Helper()

	head, body, ok := strings.Cut(request, "\n\n")
	if !ok {
		tb.Fatalf("%q has no empty line", request)
	}
	method := http.MethodPost
	if first, rest, _ := strings.Cut(head, "\n"); !strings.Contains(first, ":") {
		method, head = first, rest
	}
	if !strings.Contains(head, "transfer-encoding") {
		head += fmt.Sprintf("\ncontent-length: %d", len(body))
	}
	conn, err := (&net.Dialer{}).DialContext(tb.Context(), "tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is to be saved
	raw := method + " / HTTP/1.1\r\nhost: example.com\r\n" + strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body
	if _, err := conn.Write([]byte(raw)); err != nil {
		tb.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	var all strings.Builder
	if err := resp.Header.Write(&all); err != nil {
		tb.Fatal(err)
	}
	return resp.StatusCode, strings.ReplaceAll(all.String(), "\r", "") + "\n" + string(text)
}
