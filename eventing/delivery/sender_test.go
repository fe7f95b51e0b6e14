package delivery_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/outcome"
)

func TestDeliverySendsTheBinaryContentMode(t *testing.T) {
	t.Parallel()

	got := make(chan *http.Request, 1)
	body := make(chan []byte, 1)
	address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r
		body <- b
		w.Header().Set("Tandem-Receipt", "lost")
		w.WriteHeader(http.StatusNoContent)
	})
	e := eventtest.NewEvent("ü 1")
	e.SetExtension("myext", "100%")
	e.SetTime(time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC))

	out, err := eventtest.NewSender(t, address, address).DeliverUntilSettled(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if !out.Settled || out.Rejected || out.Receipt != outcome.ReceiptLost {
		t.Errorf("step %+v, want it lost", out)
	}
	r := <-got
	want := http.Header{
		"Ce-Specversion": {"1.0"},
		"Ce-Id":          {"%C3%BC%201"},
		"Ce-Source":      {"/test"},
		"Ce-Type":        {"com.example.test"},
		"Ce-Time":        {"2001-01-02T03:04:05Z"},
		"Ce-Myext":       {"100%25"},
		"Content-Type":   {"application/json"},
		"Content-Length": {"7"},
		"User-Agent":     {"Go-http-client/1.1"},
	}
	if diff := cmp.Diff(want, r.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if r.Method != http.MethodPost || string(<-body) != `{"n":1}` {
		t.Errorf("method %s or body wrong", r.Method)
	}
}

func TestWhatAnAnswerMeans(t *testing.T) {
	t.Parallel()

	const (
		done       = "done"
		deadLetter = "dead letter"
		Retry      = "again"
	)
	for code, want := range map[int]string{
		200: done, 202: done, 204: done,
		301: Retry, 302: Retry, 307: Retry, 304: Retry,
		400: deadLetter, 413: deadLetter, 422: deadLetter, 402: deadLetter, 405: deadLetter, 410: deadLetter, 418: deadLetter, 451: deadLetter,
		401: Retry, 403: Retry, 404: Retry, 408: Retry, 409: Retry, 415: Retry, 429: Retry,
		500: Retry, 501: Retry, 502: Retry, 503: Retry, 504: Retry, 599: Retry,
	} {
		t.Run(http.StatusText(code), func(t *testing.T) {
			t.Parallel()

			var tries, letters atomic.Int32
			address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				if tries.Add(1) > 2 {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				if code == http.StatusFound {
					w.Header().Set("Location", "/elsewhere")
				}
				w.WriteHeader(code)
			})
			deadLetters := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				letters.Add(1)
				w.WriteHeader(http.StatusNoContent)
			})
			out, err := eventtest.NewSender(t, address, deadLetters).DeliverUntilSettled(t.Context(), eventtest.NewEvent("1"))
			if err != nil {
				t.Fatal(err)
			}
			got := done
			switch {
			case out.Rejected && tries.Load() == 1 && letters.Load() == 1:
				got = deadLetter
			case !out.Rejected && tries.Load() == 3 && letters.Load() == 0:
				got = Retry
			case out.Rejected || tries.Load() != 1 || letters.Load() != 0:
				got = "neither"
			}
			if got != want {
				t.Errorf("%d: %s, want %s (%d tries, %d dead letters)", code, got, want, tries.Load(), letters.Load())
			}
		})
	}
}

func TestNoAnswerIsTriedAgain(t *testing.T) {
	t.Parallel()

	var tries atomic.Int32
	address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch tries.Add(1) {
		case 1:
			panic(http.ErrAbortHandler) // the process of the function ends
		case 2:
			_, _ = io.Copy(io.Discard, r.Body) // until then the server does not detect that the client disconnects
			select {                           // the function hangs
			case <-r.Context().Done():
			case <-time.After(10 * time.Second):
			}
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	d, err := delivery.New(address, address, delivery.Config{
		Function: "flights", Timeout: 200 * time.Millisecond, BackoffBase: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.DeliverUntilSettled(t.Context(), eventtest.NewEvent("1")); err != nil {
		t.Fatal(err)
	}
	if got := tries.Load(); got < 3 { // more if an answer takes longer than 200 ms
		t.Errorf("%d tries, want 3", got)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, header string
		atLeast      time.Duration
	}{
		{name: "seconds", header: "1", atLeast: time.Second},
		{name: "a date", header: "date", atLeast: time.Second},
		{name: "nonsense", header: "soon"},
		{name: "longer than the cap", header: "100000", atLeast: 1500 * time.Millisecond},
		{name: "a date in the past", header: "Mon, 01 Jan 2001 00:00:00 GMT"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			stalls := eventtest.Stalls(t)
			var first atomic.Int64
			var waited atomic.Int64
			address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				now := time.Now()
				if first.CompareAndSwap(0, now.UnixNano()) {
					header := tt.header
					if header == "date" { // has whole seconds only
						header = now.Add(2100 * time.Millisecond).UTC().Format(http.TimeFormat)
					}
					w.Header().Set("Retry-After", header)
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				waited.Store(now.UnixNano() - first.Load())
			})
			d, err := delivery.New(address, address, delivery.Config{
				Function: "flights", BackoffBase: time.Millisecond, RetryAfterCap: 1500 * time.Millisecond,
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.DeliverUntilSettled(t.Context(), eventtest.NewEvent("1")); err != nil {
				t.Fatal(err)
			}
			if got := time.Duration(waited.Load()); got < tt.atLeast || got > tt.atLeast+5*time.Second && stalls() < time.Second {
				t.Errorf("waited %s, want about %s", got, tt.atLeast)
			}
		})
	}
}

func TestARefusedEventBecomesADeadLetterWithItsReason(t *testing.T) {
	t.Parallel()

	address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "departed_at: no time", http.StatusUnprocessableEntity)
	})
	letters := make(chan *event.Event, 10)
	var tries atomic.Int32
	deadLetters := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if code := []int{503, 400, 404, 204}[tries.Add(1)-1]; code != 204 {
			w.WriteHeader(code) // only a 2xx ends the delivery
			return
		}
		e, err := cehttp.NewEventFromHTTPRequest(r)
		if err != nil {
			t.Error(err)
		}
		letters <- e
	})
	withPassword := strings.Replace(address, "http://", "http://user:secret@", 1)
	out, err := eventtest.NewSender(t, withPassword, deadLetters).DeliverUntilSettled(t.Context(), eventtest.NewEvent("1"))
	if err != nil {
		t.Fatal(err)
	}
	if !out.Settled || !out.Rejected {
		t.Errorf("step %+v, want it rejected", out)
	}
	letter := <-letters
	want := map[string]any{
		"knativeerrordest": address,
		"knativeerrorcode": "422",
		"knativeerrordata": base64.StdEncoding.EncodeToString([]byte("departed_at: no time\n")),
		"tandemfunction":   "flights",
		"tandemattempts":   "1",
	}
	if diff := cmp.Diff(want, letter.Extensions()); diff != "" {
		t.Errorf("extensions (-want +got):\n%s", diff)
	}
	if letter.ID() != "1" || letter.Source() != "/test" || string(letter.Data()) != `{"n":1}` {
		t.Errorf("dead letter is %v", letter)
	}
}

// A reason is cut at a number of bytes, possibly within a character.
func TestTheReasonOfADeadLetterIsText(t *testing.T) {
	t.Parallel()

	address := eventtest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "x"+strings.Repeat("ä", 2000), http.StatusUnprocessableEntity)
	})
	letters := make(chan *event.Event, 10)
	deadLetters := eventtest.Serve(t, func(_ http.ResponseWriter, r *http.Request) {
		e, err := cehttp.NewEventFromHTTPRequest(r)
		if err != nil {
			t.Error(err)
		}
		letters <- e
	})
	if _, err := eventtest.NewSender(t, address, deadLetters).DeliverUntilSettled(t.Context(), eventtest.NewEvent("1")); err != nil {
		t.Fatal(err)
	}
	encoded, _ := (<-letters).Extensions()["knativeerrordata"].(string)
	reason, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || !utf8.Valid(reason) || !strings.HasPrefix(string(reason), "xää") {
		t.Errorf("the reason is %q, %v; want text", reason, err)
	}
}

func TestDeliverEndsWithItsContext(t *testing.T) {
	t.Parallel()

	t.Run("while it waits for the next try", func(t *testing.T) {
		t.Parallel()

		tried := make(chan struct{}, 100)
		address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			tried <- struct{}{}
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-tried; cancel() }()
		if _, err := eventtest.NewSender(t, address, address).DeliverUntilSettled(ctx, eventtest.NewEvent("1")); !errors.Is(err, context.Canceled) {
			t.Errorf("Deliver: %v", err)
		}
	})
	t.Run("but lets the try under way finish", func(t *testing.T) {
		t.Parallel()

		tried, goOn := make(chan struct{}), make(chan struct{})
		address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			close(tried)
			<-goOn
			w.WriteHeader(http.StatusNoContent)
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-tried; cancel(); close(goOn) }()
		d, err := delivery.New(address, address, delivery.Config{Function: "flights", Grace: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.DeliverUntilSettled(ctx, eventtest.NewEvent("1")); err != nil {
			t.Errorf("Deliver: %v", err)
		}
	})
	t.Run("and not much longer", func(t *testing.T) {
		t.Parallel()

		tried := make(chan struct{})
		address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // until then the server does not detect that the client disconnects
			close(tried)
			<-r.Context().Done()
		})
		d, err := delivery.New(address, address, delivery.Config{Function: "flights", Grace: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-tried; cancel() }()
		if _, err := d.DeliverUntilSettled(ctx, eventtest.NewEvent("1")); !errors.Is(err, context.Canceled) {
			t.Errorf("Deliver: %v", err)
		}
	})
}

func TestATroubledFunctionIsReportedOnceAndWhenItIsWell(t *testing.T) {
	t.Parallel()

	logger, lines := eventtest.Logger()
	var well atomic.Bool
	address := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	d, err := delivery.New(address, address, delivery.Config{
		Function: "flights", BackoffBase: time.Millisecond, BackoffCap: 5 * time.Millisecond, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := d.DeliverUntilSettled(t.Context(), eventtest.NewEvent("1")); err != nil {
				t.Error(err)
			}
		})
	}
	eventtest.Eventually(t, "it is not ready", func() bool { return d.Ready() != nil })
	if err := d.Ready(); !strings.Contains(err.Error(), "answered 401 Unauthorized: this source may not call it") {
		t.Errorf("Ready: %v", err)
	}
	time.Sleep(50 * time.Millisecond) // for more attempts, which must not be logged
	well.Store(true)
	wg.Wait()
	if err := d.Ready(); err != nil {
		t.Errorf("Ready: %v", err)
	}
	if got := lines(); len(got) != 2 || !strings.Contains(got[0], "failing; retrying") || !strings.Contains(got[0], address) || !strings.Contains(got[1], "recovered") {
		t.Errorf("log:\n%s", strings.Join(got, ""))
	}
}

func TestProbeFindsOutWhetherTheFunctionIsThere(t *testing.T) {
	t.Parallel()

	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	d := eventtest.NewSender(t, server.URL, server.URL)
	if err := d.Probe(t.Context()); err != nil {
		t.Errorf("Probe: %v", err)
	}
	server.Close()
	if err := d.Probe(t.Context()); err == nil {
		t.Error("Probe found a function that is gone")
	}
	if requests.Load() != 0 {
		t.Error("Probe sent a request")
	}

	logger, lines := eventtest.Logger()
	d, err := delivery.New(server.URL, server.URL, delivery.Config{Function: "flights", Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_ = d.Probe(t.Context())
	}
	if d.Ready() == nil {
		t.Error("ready without a function")
	}
	if got := lines(); len(got) != 1 {
		t.Errorf("log:\n%s", strings.Join(got, ""))
	}
}

func TestNewDeliverySaysWhatIsWrong(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, address string
		cfg           delivery.Config
		want          string
	}{
		{name: "no URL", address: "", cfg: delivery.Config{Function: "f"}, want: "URL of the function: want http://"},
		{name: "no host", address: "http:///x", cfg: delivery.Config{Function: "f"}, want: "URL of the function: want http://"},
		{name: "another scheme", address: "ftp://user:secret@x", cfg: delivery.Config{Function: "f"}, want: "URL of the function: want http://"},
		{name: "a broken URL", address: "http://user:secret@x:y", cfg: delivery.Config{Function: "f"}, want: "URL of the function: want http://"},
		{name: "no function", address: "http://x", want: "function: missing"},
		{name: "a negative time", address: "http://x", cfg: delivery.Config{Function: "f", Timeout: -1}, want: "negative"},
		{name: "backoff upside down", address: "http://x", cfg: delivery.Config{Function: "f", BackoffBase: time.Minute}, want: "backoff cap"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			_, err := delivery.New(tt.address, "http://x", tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}
