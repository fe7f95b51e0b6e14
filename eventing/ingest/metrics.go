package ingest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// The reasons of rejections, in metrics.
const (
	reasonInvalid     = "invalid"     // not a CloudEvent
	reasonUnsupported = "unsupported" // an encoding, a format or a character set that is not supported
	reasonTooLarge    = "too_large"
	reasonIncomplete  = "incomplete"  // the body ended early or did not arrive in time
	reasonBusy        = "busy"        // no memory
	reasonUnavailable = "unavailable" // the stream could not store it
)

func reasons() []string {
	return []string{reasonInvalid, reasonUnsupported, reasonTooLarge, reasonIncomplete, reasonBusy, reasonUnavailable}
}

// Metrics are the measurements of a [Handler], with the label cluster. Their names in
// Prometheus, with unit and suffix, are tandem_ingest_accepted_total,
// tandem_ingest_refused_total{reason}, tandem_ingest_in_flight_bytes and
// tandem_ingest_request_seconds. A nil Metrics counts nothing.
type Metrics struct {
	acceptedEvents, refusedEvents metric.Int64Counter
	request                       metric.Float64Histogram

	labels   metric.MeasurementOption
	byReason map[string]metric.MeasurementOption
	inFlight atomic.Pointer[func() int64]
}

// NewMetrics creates the instruments. The error is the provider's.
func NewMetrics(provider metric.MeterProvider, cluster string) (*Metrics, error) {
	meter := provider.Meter("github.com/tandem-fn/tandem/eventing/ingest")
	label := attribute.String("cluster", cluster)
	m := &Metrics{labels: metric.WithAttributeSet(attribute.NewSet(label)), byReason: map[string]metric.MeasurementOption{}}
	var errs [4]error
	m.acceptedEvents, errs[0] = meter.Int64Counter("tandem_ingest_accepted",
		metric.WithDescription("Events that the stream has stored."))
	m.refusedEvents, errs[1] = meter.Int64Counter("tandem_ingest_refused",
		metric.WithDescription("Events that were not stored, by reason: invalid (not a CloudEvent), unsupported (its encoding, format or character set), too_large, incomplete (the body ended early or did not arrive in time), busy (no memory), unavailable (the stream does not store it). A request that cannot be read counts as one."))
	m.request, errs[2] = meter.Float64Histogram("tandem_ingest_request", metric.WithUnit("s"),
		metric.WithDescription("Time from a request's header to its 202."),
		metric.WithExplicitBucketBoundaries(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
	_, errs[3] = meter.Int64ObservableGauge("tandem_ingest_in_flight", metric.WithUnit("By"),
		metric.WithDescription("Memory of the requests that are being accepted. The bound is TANDEM_IN_FLIGHT_BYTES."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			if used := m.inFlight.Load(); used != nil {
				o.Observe((*used)(), m.labels)
			}
			return nil
		}))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	ctx := context.Background()
	m.acceptedEvents.Add(ctx, 0, m.labels) // visible before the first event
	for _, reason := range reasons() {
		m.byReason[reason] = metric.WithAttributeSet(attribute.NewSet(label, attribute.String("reason", reason)))
		m.refusedEvents.Add(ctx, 0, m.byReason[reason])
	}
	return m, nil
}

// observe sets the function that returns the bytes in flight.
func (m *Metrics) observe(inFlight func() int64) {
	if m != nil {
		m.inFlight.Store(&inFlight)
	}
}

func (m *Metrics) accepted(ctx context.Context, events int) {
	if m != nil {
		m.acceptedEvents.Add(ctx, int64(events), m.labels)
	}
}

func (m *Metrics) refused(ctx context.Context, reason string, events int) {
	if m != nil {
		m.refusedEvents.Add(ctx, int64(events), m.byReason[reason])
	}
}

func (m *Metrics) acceptedRequest(ctx context.Context, took time.Duration) {
	if m != nil {
		m.request.Record(ctx, took.Seconds(), m.labels)
	}
}
