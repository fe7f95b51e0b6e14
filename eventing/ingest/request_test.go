package ingest_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/ingest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestBodiesAreDecodedOrRefused(t *testing.T) {
	t.Parallel()

	const limit = 100_000
	zip := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.String()
	}
	var deflated bytes.Buffer
	deflater, err := flate.NewWriter(&deflated, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = deflater.Write([]byte("hello"))
	_ = deflater.Close()
	bomb := zip(strings.Repeat("\x00", 300<<20))
	server := natstest.Start(t)
	address, _ := startIngest(t, server, ingest.Config{MaxEventBytes: limit})

	for _, tt := range []struct {
		name        string
		encodings   []string
		contentType string
		body        string
		code        int
		want        string // in the answer, or the event's data
	}{
		{name: "identity", encodings: []string{"identity"}, body: "hello", code: 202, want: "hello"},
		{name: "gzip", encodings: []string{"gzip"}, body: zip("hello"), code: 202, want: "hello"},
		{name: "in capitals", encodings: []string{" GZIP "}, body: zip("hello"), code: 202, want: "hello"},
		{name: "x-gzip", encodings: []string{"x-gzip"}, body: zip("hello"), code: 202, want: "hello"},
		{name: "identity and gzip", encodings: []string{"identity, gzip"}, body: zip("hello"), code: 202, want: "hello"},
		{name: "in two parts", encodings: []string{"gzip"}, body: zip("hel") + zip("lo"), code: 202, want: "hello"},
		{name: "as large as is allowed", encodings: []string{"gzip"}, body: zip(strings.Repeat("x", limit)), code: 202, want: strings.Repeat("x", limit)},
		{name: "larger when it is decoded", encodings: []string{"gzip"}, body: zip(strings.Repeat("x", limit+1)), code: 413, want: "at most 100000 bytes"},
		{name: "a bomb", encodings: []string{"gzip"}, body: bomb, code: 413, want: "at most 100000 bytes"},
		{name: "many empty parts", encodings: []string{"gzip"}, body: strings.Repeat(zip(""), 20_000), code: 413, want: "at most 100000 bytes"},
		{name: "structured", encodings: []string{"gzip"}, contentType: "application/cloudevents+json", body: zip(`{"specversion":"1.0","id":"structured","source":"/s","type":"t","data":"hello"}`), code: 202, want: `"hello"`},
		{name: "twice", encodings: []string{"gzip", "gzip"}, body: zip(zip("hello")), code: 415, want: `content-encoding "gzip, gzip" is not supported`},
		{name: "two", encodings: []string{"gzip, br"}, body: "x", code: 415, want: "send the body as it is, or with gzip"},
		{name: "deflate", encodings: []string{"deflate"}, body: deflated.String(), code: 415, want: `"deflate"`},
		{name: "br", encodings: []string{"br"}, body: "x", code: 415, want: `"br"`},
		{name: "zstd", encodings: []string{"zstd"}, body: "x", code: 415, want: `"zstd"`},
		{name: "not said to be gzip", body: zip("hello"), code: 202, want: zip("hello")},
		{name: "no gzip", encodings: []string{"gzip"}, body: "hello", code: 400, want: "the body is not valid gzip"},
		{name: "nothing", encodings: []string{"gzip"}, body: "", code: 400, want: "the body is not valid gzip"},
		{name: "cut", encodings: []string{"gzip"}, body: zip("hello")[:20], code: 400, want: "the body is not valid gzip"},
		{name: "with more behind it", encodings: []string{"gzip"}, body: zip("hello") + "hello", code: 400, want: "the body is not valid gzip"},
		{name: "another character set", contentType: "application/cloudevents+json; charset=utf-16", body: "{}", code: 415, want: `charset "utf-16" is not supported`},
		{name: "another format", contentType: "application/cloudevents+protobuf", body: "x", code: 415, want: "is not supported"},
		{name: "data in another character set", contentType: "text/plain; charset=latin1", body: "\xe4", code: 202, want: "\xe4"},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %t", tt.name, chunked), func(t *testing.T) {
				t.Parallel()

				id := strings.ReplaceAll(t.Name(), " ", "-")
				var code int
				var answer string
				eventtest.Eventually(t, "the stream answers in time", func() bool {
					var body io.Reader = strings.NewReader(tt.body)
					if chunked {
						body = io.MultiReader(body)
					}
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, body)
					if err != nil {
						t.Fatal(err)
					}
					req.Header = header(id, "t")
					if tt.encodings != nil {
						req.Header["Content-Encoding"] = tt.encodings
					}
					if tt.contentType != "" {
						req.Header.Set("Content-Type", tt.contentType)
					}
					code, answer = do(t, req)
					return !late(code, answer)
				})
				if code != tt.code {
					t.Fatalf("answered %d %.300q, want %d", code, answer, tt.code)
				}
				if tt.code != http.StatusAccepted {
					if !strings.Contains(answer, tt.want) {
						t.Errorf("answered %.300q, want %q", answer, tt.want)
					}
					return
				}
				if tt.contentType == "application/cloudevents+json" {
					id = "structured"
				}
				if data := dataOf(t, server, id); data != tt.want {
					t.Errorf("stored %.100q, want %.100q", data, tt.want)
				}
			})
		}
	}
}

func TestABodyThatEndsEarlyIsNotStored(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	address, _ := startIngest(t, server, ingest.Config{})
	for name, text := range map[string]string{
		"with a length":       "Content-Length: 10\r\n\r\nhello",
		"in chunks":           "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"in a chunk":          "Transfer-Encoding: chunked\r\n\r\na\r\nhello",
		"in no chunk":         "Transfer-Encoding: chunked\r\n\r\nhello",
		"gzip with a length":  "Content-Encoding: gzip\r\nContent-Length: 100\r\n\r\n\x1f\x8b\x08",
		"more than its limit": "Content-Length: 100000000\r\n\r\nhello",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://")) //nolint:noctx // on this machine
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nCe-Specversion: 1.0\r\nCe-Id: %s\r\nCe-Source: /s\r\nCe-Type: t\r\n%s", strings.ReplaceAll(name, " ", "-"), text)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode/100 != 4 {
			t.Errorf("%s: answered %d", name, res.StatusCode)
		}
	}
	if code, body := settled(t, http.MethodPost, address, header("last", "t"), "x"); code != http.StatusAccepted {
		t.Fatalf("%d %s", code, body)
	}
	if n := storedMessages(t, server); n != 1 {
		t.Errorf("%d events are stored, want the last", n)
	}
}

func TestEventsArriveOverHTTP2(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := ingest.New(publisher, ingest.Config{Ready: publisher.Ready, MaxEventBytes: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	https := httptest.NewUnstartedServer(handler)
	https.EnableHTTP2 = true
	https.StartTLS()
	t.Cleanup(https.Close)
	for size, want := range map[int]int{0: 202, 100_000: 202, 100_001: 413, 5_000_000: 413} {
		for _, chunked := range []bool{false, true} {
			var res *http.Response
			eventtest.Eventually(t, "the stream answers in time", func() bool {
				var body io.Reader = bytes.NewReader(make([]byte, size))
				if chunked {
					body = io.MultiReader(body)
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, https.URL, body)
				if err != nil {
					t.Fatal(err)
				}
				// After a 413 the server closes the connection; the client may have to send
				// again.
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(make([]byte, size))), nil }
				req.Header = header(fmt.Sprint(size, chunked), "t")
				if res, err = https.Client().Do(req); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = res.Body.Close() }()
				answer, err := io.ReadAll(res.Body)
				return err == nil && !late(res.StatusCode, string(answer))
			})
			if res.ProtoMajor != 2 || res.StatusCode != want {
				t.Errorf("%d bytes: answered %d over %s, want %d", size, res.StatusCode, res.Proto, want)
			}
		}
	}
	if n := storedMessages(t, server); n != 4 {
		t.Errorf("%d events are stored, want 4", n)
	}
}

// dataOf returns the data of the stored event with this id.
func dataOf(t *testing.T, server *natstest.Server, id string) string {
	t.Helper()

	stream, err := natstest.JetStream(t, server.URL()).Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for sequence := state.FirstSeq; sequence <= state.LastSeq; sequence++ {
		m, err := stream.GetMsg(t.Context(), sequence)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get("ce-id") == id {
			return string(m.Data)
		}
	}
	t.Fatalf("event %s is not stored", id)
	return ""
}
