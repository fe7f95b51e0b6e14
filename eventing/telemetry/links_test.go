package telemetry_test

import (
	"context"
	"io"
	"net"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/tandem-fn/tandem/eventing/telemetry"
)

func TestBytesOverALinkAreCounted(t *testing.T) {
	t.Parallel()

	dial, traffic := telemetry.Counted(func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			_, _ = io.CopyN(io.Discard, there, 5)
			_, _ = there.Write([]byte("seven b"))
			_ = there.Close()
		}()
		return here, nil
	})
	conn, err := dial(t.Context(), "tcp", "database:5432")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	reader := sdkmetric.NewManualReader()
	if err := telemetry.ObserveLinks(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), "east", map[string]telemetry.Traffic{"database": traffic}); err != nil {
		t.Fatal(err)
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, p := range all.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64]).DataPoints {
		direction, _ := p.Attributes.Value("direction")
		peer, _ := p.Attributes.Value("peer")
		got[peer.AsString()+" "+direction.AsString()] = p.Value
	}
	if got["database received"] != 7 || got["database sent"] != 5 || len(got) != 2 {
		t.Errorf("counted %v", got)
	}
}
