package source_test

import (
	"context"
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

func TestASourceCountsWhatBecomesOfItsEvents(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 20)
	f := newFunction(t)
	f.answer(func(w http.ResponseWriter, r *http.Request, e event.Event) int {
		switch {
		case r.URL.Path == "/dead-letters":
			return http.StatusNoContent
		case e.ID() == "test-000020":
			return http.StatusBadRequest
		case f.tried("/ "+e.ID()) == 1:
			return http.StatusServiceUnavailable
		case e.ID() < "test-000015":
			w.Header().Set("Tandem-Receipt", "won")
		default:
			w.Header().Set("Tandem-Receipt", "lost")
		}
		return http.StatusNoContent
	})

	reader := sdkmetric.NewManualReader()
	metrics, err := source.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), "east", "flights")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{
		"tandem_source_delivered": 0, "tandem_source_receipts won": 0, "tandem_source_receipts lost": 0,
		"tandem_source_rejected": 0, "tandem_source_failed": 0, "tandem_source_skipped": 0, "tandem_source_strikes": 0, "tandem_source_forgotten": 0, "tandem_source_gone": 0, "tandem_source_filtered": 0, "tandem_source_rewinds": 0,
	}, collect(t, reader)); diff != "" {
		t.Errorf("before the first event (-want +got):\n%s", diff)
	}

	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	delivery, err := delivery.New(f.url(), f.url()+"/dead-letters", delivery.Config{
		Function: "flights", BackoffBase: time.Millisecond, Failed: metrics.AttemptFailed,
	})
	if err != nil {
		t.Fatal(err)
	}
	source, err := source.New(eventing.StreamList{stream}, delivery, &progress{}, source.Config{
		Function: "flights", SaveInterval: saveInterval, Metrics: metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, source)
	f.waitFor(t, 20)
	// The last acknowledgement and the position are observed a moment later.
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
		if now := collect(t, reader); now["tandem_source_pending"] == 0 && now["tandem_source_unacknowledged"] == 0 {
			break
		}
	}
	stop()

	if diff := cmp.Diff(map[string]float64{
		"tandem_source_delivered":     19,
		"tandem_source_receipts won":  14,
		"tandem_source_receipts lost": 5,
		"tandem_source_rejected":      1,
		"tandem_source_filtered":      0,
		"tandem_source_forgotten":     0, "tandem_source_gone": 0,
		"tandem_source_rewinds":           0,
		"tandem_source_failed":            19,
		"tandem_source_skipped":           0,
		"tandem_source_strikes":           0,
		"tandem_source_suspects":          0,
		"tandem_source_helped":            0,
		"tandem_source_commit count":      14,
		"tandem_source_pending":           0,
		"tandem_source_unacknowledged":    0,
		"tandem_source_held":              0,
		"tandem_source_in_flight waiting": 0, "tandem_source_in_flight asking": 0, "tandem_source_in_flight left": 0,
		"tandem_source_in_flight blocked": 0, "tandem_source_in_flight probe": 0, "tandem_source_in_flight budget": 0,
		"tandem_source_in_flight deferring": 0,
		"tandem_source_in_flight ready":     0, "tandem_source_in_flight sending": 0,
		"tandem_source_in_flight storing": 0,
	}, collect(t, reader)); diff != "" {
		t.Errorf("afterwards (-want +got):\n%s", diff)
	}
}

// collect returns the value of every metric, and the count of a histogram. Counters
// must have the labels cluster and function.
func collect(t *testing.T, reader sdkmetric.Reader) map[string]float64 {
	t.Helper()

	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					name := m.Name
					if receipt, ok := p.Attributes.Value("receipt"); ok {
						name += " " + receipt.AsString()
					}
					got[name] = float64(p.Value)
					for label, want := range map[attribute.Key]string{"cluster": "east", "function": "flights"} {
						if value, _ := p.Attributes.Value(label); value.AsString() != want {
							t.Errorf("%s has %s %q, want %q", m.Name, label, value.AsString(), want)
						}
					}
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					name := m.Name
					if state, ok := p.Attributes.Value("state"); ok {
						name += " " + state.AsString()
					}
					got[name] = float64(p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					got[m.Name+" count"] = float64(p.Count)
					checkBounds(t, p.Bounds)
				}
			}
		}
	}
	return got
}

func checkBounds(t *testing.T, bounds []float64) {
	t.Helper()

	if first, last := bounds[0], bounds[len(bounds)-1]; first != 0.0005 || last != 30 {
		t.Errorf("bounds from %g to %g, want 0.0005 to 30", first, last)
	}
	for i := 1; i < len(bounds)-1; i++ {
		if growth := bounds[i] / bounds[i-1]; math.Abs(growth-1.25) > 1e-9 {
			t.Errorf("bound %d is %g times the one before", i, growth)
		}
	}
}

func TestAMetricNamesWhyAMessageWaits(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 3)
	f := newFunction(t)
	release, arrived := make(chan struct{}), make(chan struct{}, 3)
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if e.ID() == "test-000001" {
			return http.StatusServiceUnavailable
		}
		arrived <- struct{}{}
		<-release
		return http.StatusNoContent
	})
	reader := sdkmetric.NewManualReader()
	metrics, err := source.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), "east", "flights")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := delivery.New(f.url(), f.url()+"/dead-letters", delivery.Config{
		Function: "flights", BackoffBase: time.Hour, BackoffCap: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	source, err := source.New(eventing.StreamList{stream}, sender, &progress{}, source.Config{Function: "flights", InFlight: 2, Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, source)
	defer stop()
	defer close(release)
	<-arrived
	<-arrived
	var now map[string]float64
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
		if now = collect(t, reader); now["tandem_source_in_flight waiting"] == 1 && now["tandem_source_in_flight sending"] == 2 {
			return
		}
	}
	t.Errorf("one waits for a retry, two are being sent; the metrics are %v", now)
}
