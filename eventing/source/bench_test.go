package source_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source"
)

// BenchmarkSource measures events from the stream over HTTP to a function that does
// nothing, one event a request and up to a hundred, everything in one process.
func BenchmarkSource(b *testing.B) {
	b.Run("single", func(b *testing.B) { benchmarkSource(b, 1) })
	b.Run("batch", func(b *testing.B) { benchmarkSource(b, 100) })
}

func benchmarkSource(b *testing.B, batch int) {
	b.Helper()

	const n = 100_000
	for b.Loop() {
		b.StopTimer()
		server := natstest.Start(b)
		eventtest.Publish(b, server, "EVENTS", 1, n)
		var count atomic.Int64
		done := make(chan struct{})
		function := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(outcome.MaxBatchHeader, strconv.Itoa(batch))
			events := 1
			if strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents-batch+json") {
				body, _ := io.ReadAll(r.Body)
				events = bytes.Count(body, []byte(`{"specversion"`))
				w.Header().Set("Content-Type", outcome.OutcomesType)
				_, _ = w.Write(outcome.Append(nil, slices.Repeat([]outcome.Outcome{{Kind: outcome.Committed, Won: true, Status: http.StatusNoContent}}, events)))
			} else {
				w.Header().Set("Tandem-Receipt", "won")
				w.WriteHeader(http.StatusNoContent)
			}
			if count.Add(int64(events)) == n {
				close(done)
			}
		}))
		conn, err := jetstream.Connect(b.Context(), server.URL(), jetstream.Config{})
		if err != nil {
			b.Fatal(err)
		}
		stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			b.Fatal(err)
		}
		delivery, err := delivery.New(function.URL, function.URL, delivery.Config{Function: "flights"})
		if err != nil {
			b.Fatal(err)
		}
		source, err := source.New(eventing.StreamList{stream}, delivery, &progress{}, source.Config{Function: "flights", Batch: batch})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		begun, used := time.Now(), cpuTime(b)
		stop := run(b, source)
		<-done
		b.StopTimer()
		b.ReportMetric(n/time.Since(begun).Seconds(), "events/s")
		b.ReportMetric(float64((cpuTime(b)-used).Nanoseconds())/n/1000, "cpu-µs/event")
		stop()
		_ = conn.Close(b.Context())
		function.Close()
		server.Stop()
		b.StartTimer()
	}
}

// cpuTime returns the CPU time of the process, which is more meaningful than events per
// second on a busy machine.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()

	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
