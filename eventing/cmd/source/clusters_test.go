package main

import (
	"context"
	"errors"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestAClusterThatIsSilentIsShownByTheOthers(t *testing.T) {
	t.Parallel()

	away := false
	reader := sdkmetric.NewManualReader()
	cfg := config{Cluster: "east", Function: "flights", Retention: time.Hour, Streams: []string{"EVENTS"}}
	err := observeClusters(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), cfg, func(_ context.Context, function string) ([]ledger.ClusterStatus, error) {
		if away {
			return nil, errors.New("away")
		}
		return []ledger.ClusterStatus{{Cluster: "east", Age: -time.Second}, {Cluster: "west", Age: time.Minute, Behind: 7}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	read := func() map[string]float64 {
		t.Helper()

		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, m := range all.ScopeMetrics[0].Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					of, _ := p.Attributes.Value("of")
					got[m.Name+" "+of.AsString()] = p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					of, _ := p.Attributes.Value("of")
					got[m.Name+" "+of.AsString()] = float64(p.Value)
				}
			}
		}
		return got
	}
	got := read()
	for name, want := range map[string]float64{
		"tandem_cluster_silent east": 0, "tandem_cluster_silent west": 60, "tandem_cluster_behind west": 7, "tandem_ledger_retention ": 3600,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, %t, want %v", name, value, ok, want)
		}
	}
	away = true
	if got := read(); len(got) != 1 {
		t.Errorf("without the database there is %v, want the retention alone", got)
	}
}
