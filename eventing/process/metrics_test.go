package process_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
)

// metricsOf reads Tandem's metrics of a process, over HTTP.
func metricsOf(t *testing.T, address string) []string {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "tandem_") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	slices.Sort(lines)
	return lines
}

// coin is a function whose outputs differ between calls.
func coin() functions.Function {
	var calls atomic.Int64
	return functions.Function{
		Name: "coin", Version: "1", Types: []string{"com.example.flight.departed"},
		Handle: func(_ context.Context, e event.Event) (functions.Effects, error) {
			var fx functions.Effects
			if e.ID() == "bad" {
				fx.Emit(functions.Output{})
			}
			if e.ID() == "rejected" {
				return fx, functions.Reject(fmt.Errorf("no"))
			}
			fx.Emit(functions.Output{Type: "com.example.coin", Data: calls.Add(1)})
			return fx, nil
		},
	}
}

func TestMetricsSayWhatHappened(t *testing.T) {
	t.Parallel()

	stalls := eventtest.Stalls(t)
	var pushed atomic.Pointer[[]byte]
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil && r.URL.Path == "/v1/metrics" {
			pushed.Store(&body)
		}
	}))
	t.Cleanup(collector.Close)
	port, err := devcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	i := process.New(coin())
	if err := i.Start(t.Context(), map[string]string{
		"TANDEM_CLUSTER": "east", "DATABASE_URL": database(t), "LOG_LEVEL": "warn",
		"METRICS_ADDRESS": address, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL,
	}); err != nil {
		t.Fatal(err)
	}
	stop(t, i)
	awaitReady(t, i)
	s := serve(t, i)

	// All metrics exist from the start.
	want := map[string]int{
		`tandem_function_requests_total{cluster="east",function="coin",status="204"}`:      0,
		`tandem_function_requests_total{cluster="east",function="coin",status="400"}`:      0,
		`tandem_function_requests_total{cluster="east",function="coin",status="422"}`:      0,
		`tandem_function_requests_total{cluster="east",function="coin",status="500"}`:      0,
		`tandem_function_requests_total{cluster="east",function="coin",status="503"}`:      0,
		`tandem_writer_batches_total{cluster="east"}`:                                      0,
		`tandem_writer_divergence_total{cluster="east",function="coin"}`:                   0,
		`tandem_writer_other_version_total{cluster="east",function="coin"}`:                0,
		`tandem_writer_outbox_bytes{cluster="east"}`:                                       0,
		`tandem_writer_published_total{cluster="east"}`:                                    0,
		`tandem_writer_receipts_total{cluster="east",function="coin",receipt="lost"}`:      0,
		`tandem_writer_receipts_total{cluster="east",function="coin",receipt="won"}`:       0,
		`tandem_writer_refused_total{cluster="east",fault="deployment",function="coin"}`:   0,
		`tandem_writer_refused_total{cluster="east",fault="event",function="coin"}`:        0,
		`tandem_writer_refused_total{cluster="east",fault="function",function="coin"}`:     0,
		`tandem_writer_refused_total{cluster="east",fault="order",function="coin"}`:        0,
		`tandem_writer_refused_total{cluster="east",fault="surroundings",function="coin"}`: 0,
		`tandem_writer_rejected_outputs{cluster="east"}`:                                   0,
		`tandem_writer_retries_total{cluster="east"}`:                                      0,
	}
	check := func() {
		t.Helper()
		var lines []string
		for name, value := range want {
			lines = append(lines, name+" "+strconv.Itoa(value))
		}
		slices.Sort(lines)
		links, diff := 0, ""
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%d directions in which bytes are counted, want 2; metrics (-want +got):\n%s", links, diff)
			}
		})
		// Metrics that are counted after the answer, or read from the database, may be
		// late.
		eventtest.Eventually(t, "the metrics are as they must be", func() bool {
			got := metricsOf(t, address)
			links = len(got)
			got = slices.DeleteFunc(got, func(line string) bool {
				return strings.HasPrefix(line, `tandem_link_bytes_total{cluster="east",`) && !strings.HasSuffix(line, " 0")
			})
			links -= len(got)
			for i, line := range got { // a process that stalled in a transaction
				if name, count, _ := strings.Cut(line, " "); name == `tandem_writer_retries_total{cluster="east"}` && count != "0" && stalls() > 100*time.Millisecond {
					got[i] = name + " 0"
				}
			}
			diff = cmp.Diff(lines, got)
			return links == 2 && diff == ""
		})
	}
	check()

	for range 3 {
		mustPost(t, s.URL, "flight-1", departure(1))
	}
	mustPost(t, s.URL, "flight-2", departure(1))
	mustPost(t, s.URL, "bad", departure(1))
	mustPost(t, s.URL, "rejected", departure(1))
	mustPost(t, s.URL, "", departure(1))
	want[`tandem_function_requests_total{cluster="east",function="coin",status="204"}`] = 4
	want[`tandem_function_requests_total{cluster="east",function="coin",status="400"}`] = 1
	want[`tandem_function_requests_total{cluster="east",function="coin",status="422"}`] = 1
	want[`tandem_function_requests_total{cluster="east",function="coin",status="500"}`] = 1
	want[`tandem_writer_receipts_total{cluster="east",function="coin",receipt="won"}`] = 2
	want[`tandem_writer_receipts_total{cluster="east",function="coin",receipt="lost"}`] = 2
	want[`tandem_writer_divergence_total{cluster="east",function="coin"}`] = 2
	want[`tandem_writer_refused_total{cluster="east",fault="function",function="coin"}`] = 1
	want[`tandem_writer_batches_total{cluster="east"}`] = 2
	var size []string
	eventtest.Eventually(t, "two outputs are in the outbox", func() bool {
		lines := strings.Join(metricsOf(t, address), "\n")
		size = regexp.MustCompile(`tandem_writer_outbox_bytes\{cluster="east"\} (\d+)`).FindStringSubmatch(lines)
		return len(size) == 2 && len(size[1]) >= 3
	})
	want[`tandem_writer_outbox_bytes{cluster="east"}`], _ = strconv.Atoi(size[1])
	check()

	if err := i.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	// The last push has a timeout of 2 s.
	if body := pushed.Load(); body == nil && stalls() < time.Second || body != nil && (!bytes.Contains(*body, []byte("tandem_writer_divergence")) || !bytes.Contains(*body, []byte("tandem_function_requests"))) {
		t.Error("the last metrics were not pushed")
	}
}

func TestHealthIsThatOfTheInstance(t *testing.T) {
	t.Parallel()

	port, err := devcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	i := process.New(coin())
	if err := i.Start(t.Context(), map[string]string{
		"TANDEM_CLUSTER": "east", "DATABASE_URL": "postgres://none@127.0.0.1:1/none", "LOG_LEVEL": "error", "METRICS_ADDRESS": address,
	}); err != nil {
		t.Fatal(err)
	}
	stop(t, i)
	s := serve(t, i)
	if a := mustPost(t, s.URL, "flight-1", departure(1)); a.status != 503 {
		t.Errorf("answer is %d", a.status)
	}
	// Without a database the metric of the outbox is missing, and the others exist.
	var lines string
	eventtest.Eventually(t, "the answer is counted", func() bool {
		lines = strings.Join(metricsOf(t, address), "\n")
		return strings.Contains(lines, `tandem_function_requests_total{cluster="east",function="coin",status="503"} 1`)
	})
	if strings.Contains(lines, "tandem_writer_outbox_bytes") {
		t.Errorf("metrics:\n%s", lines)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/health", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is in it that counts
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("GET /health: %s", resp.Status)
	}
	// The address is in use.
	err = process.New(coin()).Start(t.Context(), map[string]string{
		"TANDEM_CLUSTER": "west", "DATABASE_URL": "postgres://none@127.0.0.1:1/none", "METRICS_ADDRESS": address,
	})
	if err == nil || !strings.Contains(err.Error(), "METRICS_ADDRESS: listen tcp") {
		t.Errorf("error %v", err)
	}
}
