package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

func TestADefaultBackendThatAnswersEverythingCommitsNothing(t *testing.T) {
	t.Parallel()

	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	t.Cleanup(backend.Close)
	for _, tt := range []struct {
		name, kind string
		accepted   bool
	}{
		{name: "as a function"},
		{name: "as a Broker", kind: "TANDEM_SINK_KIND=broker", accepted: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			publish(t, server, 100)
			js := natstest.JetStream(t, server.URL())
			floor := func() uint64 {
				consumer, err := js.Consumer(t.Context(), "EVENTS", "tandem-east-flights")
				if err != nil {
					return 0
				}
				return consumer.CachedInfo().AckFloor.Stream
			}
			p := start(t, server.URL(), backend.URL, "DATABASE_URL="+url, tt.kind)
			if tt.accepted {
				eventtest.Eventually(t, "everything is acknowledged", func() bool { return floor() == 100 })
				eventtest.Eventually(t, "it is ready", func() bool { _, err := get(t, p.metrics+"/health"); return err == nil })
				return
			}
			eventtest.Eventually(t, "it is not ready and reports why", func() bool {
				_, err := get(t, p.metrics+"/health")
				return err != nil && strings.Contains(err.Error(), "without a Tandem receipt") && strings.Contains(p.Log.String(), "without a Tandem receipt")
			})
			if got := strings.Count(p.Log.String(), "without a Tandem receipt"); got != 1 {
				t.Errorf("%d lines:\n%s", got, p.Log.String())
			}
			if got := floor(); got != 0 {
				t.Errorf("%d events are acknowledged", got)
			}
			text, err := get(t, p.metrics+"/metrics")
			if err != nil || !strings.Contains(text, "\ntandem_source_delivered_total{cluster=\"east\",function=\"flights\"} 0\n") {
				t.Errorf("metrics, %v:\n%s", err, text)
			}
		})
	}
}
