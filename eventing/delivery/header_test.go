package delivery_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

// proxyOf starts a proxy that answers 431 to headers of more than limit bytes.
func proxyOf(t *testing.T, backend string, limit int) string {
	t.Helper()

	u, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	next := httputil.NewSingleHostReverseProxy(u)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := 0
		for name, values := range r.Header {
			for _, value := range values {
				size += len(name) + len(value) + 4
			}
		}
		if size > limit {
			w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
			return
		}
		next.ServeHTTP(w, r)
	}))
	server.Config.MaxHeaderBytes = 1 << 20
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

func TestAnEventWhoseAttributesAreTooLargeForHeadersGetsThrough(t *testing.T) {
	t.Parallel()

	large := func(data []byte, contentType string) event.Event {
		e := eventtest.NewEvent("1")
		for i := range 70 {
			e.SetExtension(fmt.Sprintf("x%d", i), strings.Repeat("é", 512))
		}
		e.DataEncoded = data
		e.SetDataContentType(contentType)
		return e
	}
	small := eventtest.NewEvent("1")
	small.SetExtension("x", strings.Repeat("a", 3000))
	none := large(nil, "")
	for _, tt := range []struct {
		name    string
		limit   int // of the proxy
		event   event.Event
		refuses bool // the function
	}{
		{name: "an event", limit: 60 << 10, event: large([]byte(`{"n":1}`), "application/json")},
		{name: "a dead letter", limit: 60 << 10, event: large([]byte(`{"n":1}`), "application/json"), refuses: true},
		{name: "data that is not JSON as it is said", limit: 60 << 10, event: large([]byte(`{"n`), "application/json"), refuses: true},
		{name: "bytes", limit: 60 << 10, event: large([]byte("\xff\x00"), "application/octet-stream")},
		{name: "no data", limit: 60 << 10, event: none},
		{name: "a proxy that passes less than others", limit: 2 << 10, event: small},
		{name: "a dead letter through a proxy that passes less than others", limit: 2 << 10, event: small, refuses: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var mu sync.Mutex
			got := map[string]event.Event{}
			backend := eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				e, err := cehttp.NewEventFromHTTPRequest(r)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				got[r.URL.Path] = *e
				if r.URL.Path == "/" && tt.refuses {
					w.WriteHeader(http.StatusUnprocessableEntity)
				}
			})
			address := proxyOf(t, backend, tt.limit)
			d := eventtest.NewSender(t, address, address+"/dead-letters")
			e := &delivery.Delivery{Event: tt.event}
			settled := false
			for range 5 {
				steps, _ := d.Deliver(t.Context(), []*delivery.Delivery{e})
				if steps[0].Err != nil {
					t.Fatal(steps[0].Err)
				}
				if settled = steps[0].Settled; settled {
					break
				}
				if steps[0].RetryIn != 0 {
					t.Fatalf("step %+v, want the next request at once", steps[0])
				}
			}
			if !settled {
				t.Fatal("it does not get through")
			}
			mu.Lock()
			defer mu.Unlock()
			paths := []string{"/"}
			if tt.refuses {
				paths = append(paths, "/dead-letters")
			}
			for _, path := range paths {
				e := got[path]
				for name, want := range tt.event.Extensions() {
					if e.Extensions()[name] != want {
						t.Errorf("%s: extension %s is %v", path, name, e.Extensions()[name])
					}
				}
				if diff := cmp.Diff(string(tt.event.Data()), string(e.Data())); diff != "" || e.ID() != "1" || e.DataContentType() != tt.event.DataContentType() {
					t.Errorf("%s: event %v, data (-want +got):\n%s", path, e, diff)
				}
			}
		})
	}
}
