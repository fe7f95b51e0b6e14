package telemetry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/metric"

	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/telemetry"
)

func TestServerShowsMetricsAndHealth(t *testing.T) {
	t.Parallel()

	address := eventtest.FreeAddress(t)
	var mu sync.Mutex
	reason := errors.New("one reason\nand another")
	server, err := telemetry.Listen(t.Context(), telemetry.Config{Address: address, Ready: func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return reason
	}})
	if err != nil {
		t.Fatal(err)
	}
	counter, err := server.Meters().Meter("test").Int64Counter("tandem_test")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 3, metric.WithAttributes())
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()

	if code, body := get(t, "http://"+address+"/health"); code != http.StatusServiceUnavailable || body != "one reason; and another\n" {
		t.Errorf("GET /health: %d %q", code, body)
	}
	mu.Lock()
	reason = nil
	mu.Unlock()
	if code, _ := get(t, "http://"+address+"/health"); code != http.StatusOK {
		t.Errorf("GET /health: %d", code)
	}
	if _, body := get(t, "http://"+address+"/metrics"); !strings.Contains(body, "\ntandem_test_total 3\n") || !strings.Contains(body, "process_resident_memory_bytes") {
		t.Errorf("GET /metrics: %s", body)
	}
	if err := server.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestMetricsArePushedToo(t *testing.T) {
	t.Parallel()

	pushed := make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		pushed <- r.URL.Path + " " + string(body)
	}))
	defer collector.Close()
	server, err := telemetry.Listen(t.Context(), telemetry.Config{OTLPEndpoint: collector.URL, Ready: func(context.Context) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	counter, err := server.Meters().Meter("test").Int64Counter("tandem_test")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 3)
	if err := server.Close(t.Context()); err != nil { // pushes the remaining metrics
		t.Fatal(err)
	}
	if got := <-pushed; !strings.HasPrefix(got, "/v1/metrics ") || !strings.Contains(got, "tandem_test") {
		t.Errorf("pushed %q", got)
	}

	_, err = telemetry.Listen(t.Context(), telemetry.Config{OTLPEndpoint: collector.URL, OTLPProtocol: "carrier pigeon"})
	if err == nil || !strings.Contains(err.Error(), `OTEL_EXPORTER_OTLP_PROTOCOL "carrier pigeon": want`) {
		t.Errorf("error %v", err)
	}
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}
