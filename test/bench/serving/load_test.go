package serving

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func loadOf(url string, requests int) *load {
	address := strings.TrimPrefix(url, "http://")
	return &load{address: address, connections: 4, requests: requests, patience: 30 * time.Second, now: time.Now, request: distinct(address, 4)}
}

// ways are the ways to run a load.
var ways = map[string]func(*load, context.Context) (outcome, error){"run": (*load).run, "spin": (*load).spin}

func TestEveryRequestIsSentOnceAndIsAnEventOfItsOwn(t *testing.T) {
	t.Parallel()

	var mu sync.Mutex
	seen := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != data || r.Header.Get("Ce-Type") != "com.example.flight.departed" {
			t.Errorf("body is %q, header %v, error %v", body, r.Header, err)
		}
		mu.Lock()
		seen[r.Header.Get("Ce-Id")]++
		mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	const requests = 1000
	for name, run := range ways {
		mu.Lock()
		clear(seen)
		mu.Unlock()
		o, err := run(loadOf(server.URL, requests), t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		mu.Lock()
		if len(seen) != requests || seen["flight-000000000"] != 1 || seen["flight-000000999"] != 1 {
			t.Errorf("%s: %d events were sent", name, len(seen))
		}
		mu.Unlock()
		if o.latencies.max <= 0 || o.latencies.quantile(0.5) > o.latencies.max || o.elapsed <= 0 {
			t.Errorf("%s: outcome is %v, longest %s", name, o.elapsed, o.latencies.max)
		}
	}
}

func TestAnAnswerOtherThan204IsAnError(t *testing.T) {
	t.Parallel()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not now", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	for name, run := range ways {
		if _, err := run(loadOf(server.URL, 100), t.Context()); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable") {
			t.Errorf("%s: error is %v, want it to say 503", name, err)
		}
	}
}

func TestARequestThatHangsIsAnError(t *testing.T) {
	t.Parallel()

	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Id") == "flight-000000050" {
			<-release
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	defer close(release)
	for name, run := range ways {
		l := loadOf(server.URL, 100)
		l.patience = 200 * time.Millisecond
		_, err := run(l, t.Context())
		// On a busy machine another request may be without an answer for that
		// long.
		for err != nil && strings.Contains(err.Error(), "no answer for") && !strings.Contains(err.Error(), "request 50: ") && l.patience < time.Minute {
			patience := 2 * l.patience
			l = loadOf(server.URL, 100)
			l.patience = patience
			_, err = run(l, t.Context())
		}
		if want := "request 50: no answer for " + l.patience.String(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %q", name, err, want)
		}
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	t.Parallel()

	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	for name, run := range ways {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := run(loadOf(server.URL, 100), ctx); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestQuantilesAreTooLargeByAnEighthAtMost(t *testing.T) {
	t.Parallel()

	var l latencies
	for us := range 10_000 {
		l.count(time.Duration(us+1) * time.Microsecond)
	}
	for part, want := range map[float64]time.Duration{0: time.Microsecond, 0.5: 5000 * time.Microsecond, 0.99: 9900 * time.Microsecond, 1: 10 * time.Millisecond} {
		if got := l.quantile(part); got < want || got > want+want/8+time.Microsecond {
			t.Errorf("quantile %v is %s, want %s", part, got, want)
		}
	}
}
