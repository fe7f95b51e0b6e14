package process_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/process"
	outputsink "github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/functions/flights"
)

func TestOutputsGoToTheSinkInsteadOfTheStream(t *testing.T) {
	t.Parallel()

	const events = 20
	var want []string
	for n := range events {
		_, id := functions.OutputIdentity("flights", "/tests", fmt.Sprintf("flight-%d", n), 0)
		want = append(want, id)
	}
	slices.Sort(want)
	for name, env := range map[string]func(sink string) map[string]string{
		"bound by Knative": func(sink string) map[string]string {
			return map[string]string{"K_SINK": sink, "K_CE_OVERRIDES": `{"extensions":{"tenant":"acme"}}`}
		},
		"named, in batches": func(sink string) map[string]string {
			return map[string]string{"TANDEM_OUTPUT_SINK": sink, "TANDEM_OUTPUT_BATCH": "10", "K_SINK": "http://127.0.0.1:1", "NATS_URL": "nats://127.0.0.1:1"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			stalls := eventtest.Stalls(t)
			sink := &outputSink{}
			server := httptest.NewServer(sink)
			t.Cleanup(server.Close)
			url := database(t)
			i, s := startComponents(t, "east", url, env(server.URL))
			for n := range events {
				if a := mustPost(t, s.URL, fmt.Sprintf("flight-%d", n), departure(60)); a.status != 204 {
					t.Fatalf("answer is %d %q", a.status, a.body)
				}
			}
			if err := i.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			tenant := sink.tenant
			if stalls() > time.Second {
				publisher, err := outputsink.NewPublisher(server.URL, outputsink.PublisherConfig{})
				if err != nil {
					t.Fatal(err)
				}
				relayRest(t, url, publisher)
			}
			if diff := cmp.Diff(want, sink.taken()); diff != "" {
				t.Errorf("outputs (-want +got):\n%s", diff)
			}
			if n := query[int](t, url, "select count(*) from tandem.outbox"); n != 0 {
				t.Errorf("%d rows are in the outbox, want none", n)
			}
			if (tenant == "acme") != (name == "bound by Knative") {
				t.Errorf("tenant %q", tenant)
			}
		})
	}
}

func TestAWrongSinkForOutputsIsRefused(t *testing.T) {
	t.Parallel()

	for want, env := range map[string]map[string]string{
		"TANDEM_OUTPUT_SINK or K_SINK":          {"TANDEM_OUTPUT_SINK": "user:secret@x"},
		`TANDEM_OUTPUT_BATCH 0: want 1 to 1000`: {"TANDEM_OUTPUT_SINK": "http://x", "TANDEM_OUTPUT_BATCH": "0"},
		`TANDEM_OUTPUT_MAX_BYTES -1: want 0`:    {"TANDEM_OUTPUT_SINK": "http://x", "TANDEM_OUTPUT_MAX_BYTES": "-1"},
		"K_CE_OVERRIDES: want {":                {"K_SINK": "http://x", "K_CE_OVERRIDES": "x"},
		"K_CA_CERTS":                            {"K_SINK": "http://x", "K_CA_CERTS": "x"},
	} {
		env["TANDEM_CLUSTER"], env["DATABASE_URL"] = "east", "postgres://x"
		err := process.New(flights.Function()).Start(t.Context(), env)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// outputSink accepts CloudEvents, one by one or in batches.
type outputSink struct {
	mu     sync.Mutex
	ids    []string
	tenant string
}

func (s *outputSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents-batch+json") {
		members, err := cloudevent.ReadBatch(body, cloudevent.Rules{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, m := range members {
			s.ids = append(s.ids, m.Event.ID())
		}
		return
	}
	s.ids = append(s.ids, r.Header.Get("Ce-Id"))
	s.tenant = r.Header.Get("Ce-Tenant")
}

// taken returns the distinct ids that were accepted.
func (s *outputSink) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.ids)
	return slices.Compact(s.ids)
}
