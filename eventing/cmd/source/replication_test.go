package main

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

func TestHowFarStandbyServersAreBehindIsShownToWhoMaySeeIt(t *testing.T) {
	t.Parallel()

	r := pgtest.Replicated(t)
	read := func(url string) map[string]metricdata.Aggregation {
		t.Helper()

		db, err := openDatabase(t.Context(), url, "east", "flights", "flights", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		defer db.close()
		reader := sdkmetric.NewManualReader()
		if err := observeReplication(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), config{Cluster: "east", Function: "flights"}, db.standbys); err != nil {
			t.Fatal(err)
		}
		var all metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		found := map[string]metricdata.Aggregation{}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				found[m.Name] = m.Data
			}
		}
		return found
	}
	if got := read(r.URL()); len(got) != 0 {
		t.Errorf("a role that may not see standby servers is shown %v", got)
	}

	var got map[string]metricdata.Aggregation
	eventtest.Eventually(t, "the standby has told how far it is", func() bool {
		got = read(r.Primary().AdminURL("tandem")) // with the privileges of pg_monitor
		return len(got) == 2
	})
	lag, ok := got["tandem_database_replication_lag"].(metricdata.Gauge[float64])
	if !ok || len(lag.DataPoints) != 1 {
		t.Fatalf("lag is %v", got)
	}
	for label, want := range map[string]string{"standby": "standby", "mode": "async", "cluster": "east"} {
		if value, _ := lag.DataPoints[0].Attributes.Value(attribute.Key(label)); value.AsString() != want {
			t.Errorf("%s is %q, want %q", label, value.AsString(), want)
		}
	}
	if behind, ok := got["tandem_database_replication_behind"].(metricdata.Gauge[int64]); !ok || len(behind.DataPoints) != 1 || behind.DataPoints[0].Value < 0 {
		t.Errorf("behind is %v", got)
	}

	r.LosePrimary()
	if got := read(r.URL()); len(got) != 0 {
		t.Errorf("of a database that is away, there is %v", got)
	}
}
