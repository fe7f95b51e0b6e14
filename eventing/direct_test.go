package eventing_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
)

func newClient(t *testing.T, url string) *http.Client {
	t.Helper()

	client, err := eventing.SinkConfig{}.Client(url)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func post(ctx context.Context, client *http.Client, url, body string) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

func TestAnswersOfEveryKindAreRead(t *testing.T) {
	t.Parallel()

	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/short":
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write(body)
		case "/chunks":
			for _, c := range body {
				_, _ = w.Write([]byte{c})
				w.(http.Flusher).Flush()
			}
		case "/close":
			w.Header().Set("Connection", "close")
			_, _ = w.Write(body)
		case "/early":
			w.Header().Set("Link", "</x>")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = w.Write(body)
		case "/long":
			_, _ = w.Write([]byte(strings.Repeat(string(body), 10_000)))
		}
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	client := newClient(t, server.URL)

	for _, tt := range []struct {
		path, body, want string
		status           int
	}{
		{path: "/none", status: http.StatusNoContent},
		{path: "/none", body: "abc", status: http.StatusNoContent},
		{path: "/short", body: "abc", status: http.StatusServiceUnavailable, want: "abc"},
		{path: "/chunks", body: "abc", status: http.StatusOK, want: "abc"},
		{path: "/close", body: "abc", status: http.StatusOK, want: "abc"},
		{path: "/early", body: "abc", status: http.StatusOK, want: "abc"},
		{path: "/long", body: "abc", status: http.StatusOK, want: strings.Repeat("abc", 10_000)},
		{path: "/short", body: strings.Repeat("x", 100_000), status: http.StatusServiceUnavailable, want: strings.Repeat("x", 100_000)},
	} {
		for range 2 {
			status, answer, err := post(t.Context(), client, server.URL+tt.path, tt.body)
			if err != nil || status != tt.status || answer != tt.want {
				t.Errorf("%s with %d bytes: %d with %d bytes, %v; want %d with %d bytes",
					tt.path, len(tt.body), status, len(answer), err, tt.status, len(tt.want))
			}
		}
	}
	if n := connections.Load(); n > 9 {
		t.Errorf("%d connections for 16 requests, of which 8 let theirs be used again", n)
	}
}

func TestAConnectionThatWasClosedWhileIdleIsReplaced(t *testing.T) {
	t.Parallel()

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var requests atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // each connection for one request, though it does not say so
				defer func() { _ = conn.Close() }()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				if body, err := io.ReadAll(req.Body); err != nil || string(body) != "abc" {
					t.Errorf("body %q, %v", body, err)
				}
				requests.Add(1)
				_, _ = fmt.Fprint(conn, "HTTP/1.1 204 No Content\r\n\r\n")
			}()
		}
	}()
	url := "http://" + listener.Addr().String()
	client := newClient(t, url)
	for n := range int64(20) {
		if status, _, err := post(t.Context(), client, url, "abc"); err != nil || status != http.StatusNoContent {
			t.Fatalf("request %d: %d, %v", n, status, err)
		}
		if got := requests.Load(); got != n+1 {
			t.Fatalf("%d requests came, want %d", got, n+1)
		}
	}
}

func TestAConnectionThatIsClosedWithoutAnyAnswerIsAnError(t *testing.T) {
	t.Parallel()

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	url := "http://" + listener.Addr().String()
	if _, _, err := post(t.Context(), newClient(t, url), url, "abc"); err == nil {
		t.Error("no error")
	}
}

func TestARequestEndsWithItsContext(t *testing.T) {
	t.Parallel()

	var came sync.WaitGroup
	came.Add(1)
	end := make(chan struct{})
	var hang atomic.Bool
	hang.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if hang.Load() {
			came.Done()
			<-end
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(end) })
	client := newClient(t, server.URL)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	go func() {
		came.Wait()
		hang.Store(false)
		cancel()
	}()
	if _, _, err := post(ctx, client, server.URL, "abc"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if status, _, err := post(t.Context(), client, server.URL, "abc"); err != nil || status != http.StatusNoContent {
		t.Errorf("the next request: %d, %v", status, err)
	}
}
