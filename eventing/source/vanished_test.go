package source_test

import (
	"strings"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

func TestEventsThatALimitDropsBeforeTheirDeliveryAreCountedAndTheLimitIsReported(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	js := natstest.JetStream(t, server.URL())
	limited := natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, MaxMsgs: 10}
	if _, err := js.CreateStream(t.Context(), limited); err != nil {
		t.Fatal(err)
	}

	f, p := newFunction(t), &progress{}
	logger, lines := eventtest.Logger()
	metrics := sdkmetric.NewManualReader()
	start := func() running {
		counted, err := source.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics)), "east", "flights")
		if err != nil {
			t.Fatal(err)
		}
		stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		s, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.url(), f.url()+"/dead-letters"), p, source.Config{
			Function: "flights", SaveInterval: saveInterval, Metrics: counted, Logger: logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		return running{source: s, stop: run(t, s)}
	}
	first := start()
	eventtest.Publish(t, server, "EVENTS", 1, 5)
	eventtest.Eventually(t, "they are acknowledged", func() bool { return p.floor("EVENTS") == 6 })
	first.stop()
	eventtest.Publish(t, server, "EVENTS", 6, 30) // of which 10 are kept

	metrics = sdkmetric.NewManualReader()
	second := start()
	eventtest.Eventually(t, "the rest is acknowledged", func() bool { return p.floor("EVENTS") == 36 })
	if got := f.count(); got != 15 {
		t.Errorf("%d events were delivered, want 5 and the 10 that are left", got)
	}
	gone := func(want float64) {
		t.Helper()
		eventtest.Eventually(t, "lost messages are counted", func() bool { return collect(t, metrics)["tandem_source_gone"] >= want })
		if got := collect(t, metrics)["tandem_source_gone"]; got != want {
			t.Errorf("%v messages are counted, want %v", got, want)
		}
	}
	gone(20)
	count := func(text string) (n int) {
		for _, line := range lines() {
			if strings.Contains(line, text) {
				n++
			}
		}
		return n
	}
	const deleted = "stream deleted messages before they were delivered"
	eventtest.Eventually(t, "they are logged", func() bool { return count(deleted) > 0 })
	if got := count(deleted); got != 1 {
		t.Errorf("%d lines: %q", got, lines())
	}
	eventtest.Eventually(t, "it is not ready", func() bool {
		err := second.source.Ready()
		return err != nil && strings.Contains(err.Error(), "max_msgs 10 with discard old")
	})
	if got := count("max_msgs 10 with discard old"); got != 2 { // one at each start
		t.Errorf("%d lines: %q", got, lines())
	}
	// Many gaps are logged in one line.
	second.stop()
	eventtest.Publish(t, server, "EVENTS", 36, 10)
	stored, err := js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	for _, sequence := range []uint64{37, 39, 41} {
		if err := stored.DeleteMsg(t.Context(), sequence); err != nil {
			t.Fatal(err)
		}
	}
	metrics = sdkmetric.NewManualReader()
	second = start()
	eventtest.Eventually(t, "the rest is acknowledged", func() bool { return p.floor("EVENTS") == 46 })
	gone(3)
	eventtest.Eventually(t, "they are logged", func() bool { return count(deleted) > 1 })
	if got := count(deleted); got != 2 {
		t.Errorf("%d lines: %q", got, lines())
	}
	limited.Discard = natsjs.DiscardNew
	if _, err := js.UpdateStream(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "it is ready when the stream is mended", func() bool { return second.source.Ready() == nil })
}
