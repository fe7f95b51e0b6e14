package serve_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// nothing is a committer that does nothing.
type nothing struct{}

func (nothing) Commit(context.Context, sinkwriter.Offer) (sinkwriter.Receipt, error) {
	return sinkwriter.Receipt{Won: true, Key: ledger.Key{}}, nil
}

func (nothing) CommitAll(_ context.Context, offers []sinkwriter.Offer) []sinkwriter.Outcome {
	outcomes := make([]sinkwriter.Outcome, len(offers))
	for i := range outcomes {
		outcomes[i].Receipt.Won = true
	}
	return outcomes
}

// sink is a ResponseWriter that does not allocate.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

// BenchmarkBinaryMode measures serving an event, compared with net/http alone.
func BenchmarkBinaryMode(b *testing.B) {
	h := newHandler(b, nothing{}, serve.Config{})
	body := []byte(`{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		reader := bytes.NewReader(body)
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/", http.NoBody)
		if err != nil {
			b.Error(err)
			return
		}
		for _, line := range binary("fine", "flight-2001-000001") {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		req.Header.Set("Ce-Subject", "DTW")
		req.Header.Set("Ce-Time", "2001-01-01T00:47:00Z")
		req.ContentLength = int64(len(body))
		w := &sink{header: http.Header{}}
		for pb.Next() {
			reader.Reset(body)
			req.Body = io.NopCloser(reader)
			clear(w.header)
			h.ServeHTTP(w, req)
			if w.status != http.StatusNoContent {
				b.Errorf("status %d", w.status)
				return
			}
		}
	})
}

// BenchmarkBatch measures serving a batch of 64 events, compared with net/http alone.
func BenchmarkBatch(b *testing.B) {
	for _, accept := range []string{"", outcome.OutcomesType} {
		b.Run("accept="+accept, func(b *testing.B) {
			h := newHandler(b, nothing{}, serve.Config{})
			members := make([]string, 64)
			for i := range members {
				members[i] = member("fine", i)
			}
			body := []byte("[" + strings.Join(members, ",") + "]")
			reader := bytes.NewReader(body)
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/", http.NoBody)
			if err != nil {
				b.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/cloudevents-batch+json")
			if accept != "" {
				req.Header.Set("Accept", accept)
			}
			req.ContentLength = int64(len(body))
			w := &sink{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				req.Body = io.NopCloser(reader)
				clear(w.header)
				h.ServeHTTP(w, req)
				if w.status/100 != 2 {
					b.Fatalf("status %d", w.status)
				}
			}
		})
	}
}
