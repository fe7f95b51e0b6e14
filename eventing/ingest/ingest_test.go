package ingest_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/ingest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestIngestStoresWhatItAnswers202To(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	address, _ := startIngest(t, server, ingest.Config{})
	binary := http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"},
		"Ce-Subject": {"%C3%BC"}, "Content-Type": {"application/json"},
	}
	structured := http.Header{"Content-Type": {"application/cloudevents+json; charset=utf-8"}}
	for _, send := range []struct {
		header http.Header
		body   string
	}{
		{header: binary, body: `{"a":1}`},
		{header: structured, body: `{"specversion":"1.0","id":"2","source":"/s","type":"t","subject":"ü","datacontenttype":"application/json","data":{"a":1}}`},
		{header: structured, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`}, // a duplicate
	} {
		if code, body := settled(t, http.MethodPost, address, send.header, send.body); code != http.StatusAccepted {
			t.Fatalf("%d %s", code, body)
		}
	}

	for _, e := range stored(t, server, 2) {
		if e.Subject() != "ü" || e.DataContentType() != "application/json" || string(e.Data()) != `{"a":1}` {
			t.Errorf("stored %v", e)
		}
	}
}

// stored reads n events of the stream, and fails if there are more.
func stored(t *testing.T, server *natstest.Server, n uint64) (events []event.Event) {
	t.Helper()

	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "reader", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := stream.Open(t.Context(), eventing.OpenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	position, err := reader.Position(t.Context())
	if err != nil || position.Pending != n {
		t.Fatalf("%d events are stored, %v, want %d", position.Pending, err, n)
	}
	if err := reader.Pull(t.Context(), int(n), 1<<20, func(m eventing.Message) { events = append(events, m.Event()) }); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestIngestSaysWhatIsWrong(t *testing.T) {
	t.Parallel()

	address, _ := startIngest(t, natstest.Start(t), ingest.Config{MaxEventBytes: 1000})
	valid := func(more ...string) http.Header {
		h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = []string{more[i+1]}
		}
		return h
	}
	structured := http.Header{"Content-Type": {"application/cloudevents+json"}}
	tests := []struct {
		name   string
		method string
		path   string
		header http.Header
		body   string
		code   int
		want   string
	}{
		{name: "no event at all", body: `{"a":1}`, header: http.Header{"Content-Type": {"application/json"}}, code: 400, want: "not a CloudEvent: send the headers ce-specversion"},
		{name: "an attribute is missing", header: valid("Ce-Id", ""), code: 400, want: "id: missing"},
		{name: "an attribute is not of its type", header: valid("Ce-Time", "now"), code: 400, want: `time "now": want a time as in RFC 3339`},
		{name: "a character that no attribute has", header: valid("Ce-Id", "a%00"), code: 400, want: "id: control character U+0000"},
		{name: "an id that functions refuse", header: valid("Ce-Id", strings.Repeat("x", 1025)), code: 400, want: "id: it has 1025 bytes, at most 1024 are accepted"},
		{name: "the longest id", header: valid("Ce-Id", strings.Repeat("x", 1024)), code: 202},
		{name: "another version", header: valid("Ce-Specversion", "0.3"), code: 400, want: `specversion "0.3": want 1.0`},
		{name: "broken JSON", header: structured, body: `{"specversion":"1.0",`, code: 400, want: "it is not JSON: at byte 21"},
		{name: "no JSON", header: structured, body: "", code: 400, want: "it is empty, want JSON"},
		{name: "what makes other readers panic", header: structured, body: `{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":0}`, code: 400, want: "data_base64"},
		{name: "a batch", header: http.Header{"Content-Type": {"application/cloudevents-batch+json"}}, body: "[]", code: 202},
		{name: "too large", header: valid(), body: strings.Repeat("x", 1001), code: 413, want: "at most 1000 bytes"},
		{name: "the wrong method", method: http.MethodPut, header: valid(), code: 405, want: "Method Not Allowed"},
		{name: "the wrong path", path: "/events", header: valid(), code: 404, want: "not found"},
		{name: "just right", header: valid(), body: strings.Repeat("x", 1000), code: 202},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			method := tt.method
			if method == "" {
				method = http.MethodPost
			}
			code, body := settled(t, method, address+tt.path, tt.header, tt.body)
			if code != tt.code || !strings.Contains(body, tt.want) || strings.Count(body, "\n") > 1 {
				t.Errorf("%d %q, want %d and %q", code, body, tt.code, tt.want)
			}
		})
	}

	t.Run("too large without saying so first", func(t *testing.T) {
		t.Parallel()

		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, io.MultiReader(strings.NewReader(strings.Repeat("x", 1001))))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = valid()
		if code, body := do(t, req); code != http.StatusRequestEntityTooLarge {
			t.Errorf("%d %s", code, body)
		}
	})
}

func TestIngestAnswers413WhenTheStreamTakesNothingSoLarge(t *testing.T) {
	t.Parallel()

	address, _ := startIngest(t, natstest.Start(t), ingest.Config{MaxEventBytes: 4 << 20})
	header := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}}
	if code, body := settled(t, http.MethodPost, address, header, strings.Repeat("x", 2<<20)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", code, body)
	}
}

func TestIngestAnswers503WhileTheStreamStoresNothing(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	address, lines := startIngest(t, server, ingest.Config{Timeout: 2 * time.Second})
	header := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}}
	health := func() int {
		code, _ := Request(t, http.MethodGet, address+"/health", nil, "")
		return code
	}
	eventtest.Eventually(t, "it is healthy", func() bool { return health() == http.StatusOK })

	server.Stop()
	eventtest.Eventually(t, "the loss is noticed", func() bool { return strings.Contains(strings.Join(lines(), ""), "connection to NATS lost") })
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" || !bytes.Contains(body, []byte("not stored, send it again")) {
			t.Errorf("%d %s, Retry-After %q", res.StatusCode, body, res.Header.Get("Retry-After"))
		}
	}
	if health() != http.StatusServiceUnavailable {
		t.Error("healthy without a stream")
	}

	server.Restart(t)
	eventtest.Eventually(t, "it stores again", func() bool {
		code, _ := Request(t, http.MethodPost, address, header, "")
		return code == http.StatusAccepted
	})
	eventtest.Eventually(t, "it is healthy", func() bool { return health() == http.StatusOK })
	warnings := 0
	for _, line := range lines() {
		if strings.Contains(line, "level=WARN") && !late(http.StatusServiceUnavailable, line) {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("log, want one warning:\n%s", strings.Join(lines(), ""))
	}
}

// late reports whether an answer means that the stream did not answer in time, for
// example on a busy machine. The request should be repeated then.
func late(code int, answer string) bool {
	return code == http.StatusServiceUnavailable && (strings.Contains(answer, "no answer from the stream within") ||
		strings.Contains(answer, "context deadline exceeded") || strings.Contains(answer, "timeout"))
}

// settled repeats a request until the answer is not late, and returns it.
func settled(t *testing.T, method, address string, header http.Header, body string) (code int, text string) {
	t.Helper()

	eventtest.Eventually(t, "the stream answers in time", func() bool {
		code, text = Request(t, method, address, header, body)
		return !late(code, text)
	})
	return code, text
}

func startIngest(t *testing.T, server *natstest.Server, cfg ingest.Config) (address string, lines func() []string) {
	t.Helper()

	cfg.Logger, lines = eventtest.Logger()
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, cfg.Logger), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Ready, cfg.TakesType = publisher.Ready, publisher.TakesType
	return serve(t, publisher, cfg), lines
}

// serve serves a handler over HTTP until the test ends.
func serve(t *testing.T, publisher eventing.Publisher, cfg ingest.Config) (url string) {
	t.Helper()

	handler, err := ingest.New(publisher, cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func Request(t *testing.T, method, address string, header http.Header, body string) (code int, text string) {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	return do(t, req)
}

func do(t *testing.T, req *http.Request) (code int, text string) {
	t.Helper()

	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}
