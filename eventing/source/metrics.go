package source

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
)

// Metrics are the measurements of a [Source] and its [delivery.Sender], with the labels cluster and
// function. Their names in Prometheus, with unit and suffix: tandem_source_delivered_total,
// tandem_source_receipts_total{receipt}, tandem_source_rejected_total, tandem_source_failed_total,
// tandem_source_strikes_total, tandem_source_suspects, tandem_source_helped_total,
// tandem_source_skipped_total, tandem_source_forgotten_total, tandem_source_filtered_total,
// tandem_source_rewinds_total, tandem_source_commit_seconds, tandem_source_parked,
// tandem_source_stored, tandem_source_deferred{fingerprint},
// tandem_source_deferred_oldest_seconds{fingerprint}, tandem_source_pending,
// tandem_source_unacknowledged, tandem_source_active, tandem_source_held,
// tandem_source_in_flight{state} and tandem_source_oldest_seconds. A nil Metrics counts nothing.
type Metrics struct {
	delivered, receipts, rejected, failed, skipped, forgotten, filtered, gone, rewinds metric.Int64Counter

	strikes metric.Int64Counter

	parked, stored metric.Int64Gauge
	commit         metric.Float64Histogram

	labels, won, lost metric.MeasurementOption
	attributes        []attribute.KeyValue // of labels

	mu        sync.Mutex
	positions map[string]eventing.Position // by stream
	holds     func() holding
	active    func() bool
}

// NewMetrics creates the instruments. The error is the provider's.
func NewMetrics(provider metric.MeterProvider, cluster, function string) (*Metrics, error) {
	meter := provider.Meter("github.com/tandem-fn/tandem/eventing")
	labels := []attribute.KeyValue{attribute.String("cluster", cluster), attribute.String("function", function)}
	with := func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(more, labels...)...))
	}
	m := &Metrics{
		labels:     with(),
		attributes: labels,
		won:        with(attribute.String("receipt", outcome.ReceiptWon)),
		lost:       with(attribute.String("receipt", outcome.ReceiptLost)),
		positions:  map[string]eventing.Position{},
	}

	var errs [23]error
	m.delivered, errs[0] = meter.Int64Counter("tandem_source_delivered",
		metric.WithDescription("Events that the function answered with 2xx."))
	m.receipts, errs[1] = meter.Int64Counter("tandem_source_receipts",
		metric.WithDescription("Receipts of the function: won if this cluster committed first, else lost."))
	m.rejected, errs[2] = meter.Int64Counter("tandem_source_rejected",
		metric.WithDescription("Events that the function rejected and that the dead letter sink accepted."))
	m.failed, errs[3] = meter.Int64Counter("tandem_source_failed",
		metric.WithDescription("Attempts at the function or the dead letter sink that failed for a reason that is not the event's."))
	m.commit, errs[4] = meter.Float64Histogram("tandem_source_commit", metric.WithUnit("s"),
		metric.WithDescription("Time from an event's arrival in the stream, by the stream's clock, to the answer with which this cluster committed it."),
		metric.WithExplicitBucketBoundaries(commitBuckets()...))
	_, errs[5] = meter.Int64ObservableGauge("tandem_source_pending",
		metric.WithDescription("Messages in the streams that were not delivered to this cluster yet."),
		metric.WithInt64Callback(m.observe(func(p eventing.Position) uint64 { return p.Pending })))
	_, errs[6] = meter.Int64ObservableGauge("tandem_source_unacknowledged",
		metric.WithDescription("Messages that were delivered to this cluster and not acknowledged."),
		metric.WithInt64Callback(m.observe(func(p eventing.Position) uint64 { return p.Unacknowledged })))
	m.skipped, errs[7] = meter.Int64Counter("tandem_source_skipped",
		metric.WithDescription("Events that were acknowledged without a delivery, because another cluster has committed them."))
	m.forgotten, errs[8] = meter.Int64Counter("tandem_source_forgotten",
		metric.WithDescription("Messages below the horizon, acknowledged without a delivery: every cluster has processed them, and the ledger has forgotten them."))
	m.filtered, errs[9] = meter.Int64Counter("tandem_source_filtered",
		metric.WithDescription("Messages of types that the function does not process, acknowledged without a delivery."))
	m.rewinds, errs[10] = meter.Int64Counter("tandem_source_rewinds",
		metric.WithDescription("Rewinds of a stream to the last checkpoint that survived, after a failover that may have lost commits."))
	m.parked, errs[11] = meter.Int64Gauge("tandem_source_parked",
		metric.WithDescription("Dead letters without a verdict that block later events of their subject. Only if the order is kept."))
	_, errs[12] = meter.Int64ObservableGauge("tandem_source_held",
		metric.WithDescription("Messages in flight in this process: being delivered, or waiting for it."),
		metric.WithInt64Callback(m.observeHeld(func(h holding) int { return h.messages })))
	var states [inflight.Finished]metric.MeasurementOption
	for state := range states {
		states[state] = with(attribute.String("state", inflight.State(state).String()))
	}
	_, errs[15] = meter.Int64ObservableGauge("tandem_source_in_flight",
		metric.WithDescription("Messages in flight in this process, by what each waits for: waiting (a retry, the hedge, or the next lookup of a standby), asking (the ledger), left (another cluster, which goes first with its part of a backlog), blocked (an earlier event of its subject, or a dead letter of it), probe (the probe of its type, for which the function is unavailable), budget (its turn among the redeliveries of failing events, or among slow events), ready (a request), sending (the function's answer), deferring (room in the database, until the deployment changes), storing (the database, behind a dead letter or as a deferred event)."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			if held, ok := m.held(); ok {
				for state, n := range held.states {
					o.Observe(int64(n), states[state])
				}
			}
			return nil
		}))
	_, errs[13] = meter.Float64ObservableGauge("tandem_source_oldest", metric.WithUnit("s"),
		metric.WithDescription("Time since the arrival in the stream, by its clock, of the oldest message in flight; 0 if there is none."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			if held, ok := m.held(); ok {
				o.Observe(held.oldest.Seconds(), m.labels)
			}
			return nil
		}))
	m.gone, errs[14] = meter.Int64Counter("tandem_source_gone",
		metric.WithDescription("Messages that their stream deleted before they were delivered, or while they failed and waited for a retry."))
	m.stored, errs[16] = meter.Int64Gauge("tandem_source_stored",
		metric.WithDescription("Events that are stored behind dead letters of their subjects, and acknowledged. Only if the order is kept."))
	m.strikes, errs[17] = meter.Int64Counter("tandem_source_strikes",
		metric.WithDescription("Strikes: the function's process ended while it computed an event alone. After three strikes the event is a dead letter."))
	_, errs[18] = meter.Int64ObservableGauge("tandem_source_suspects",
		metric.WithDescription("Events whose connection to the function broke after they were sent; each is attempted alone, one at a time."),
		metric.WithInt64Callback(m.observeHeld(func(h holding) int { return h.suspects })))
	_, errs[19] = meter.Int64ObservableCounter("tandem_source_helped",
		metric.WithDescription("Events of another cluster's share that this cluster delivered, because they were not committed after the delay. Only while clusters share the events."),
		metric.WithInt64Callback(m.observeHeld(func(h holding) int { return h.helped })))
	_, errs[20] = meter.Int64ObservableGauge("tandem_source_active",
		metric.WithDescription("1 if this replica of the source has the lease and delivers, 0 if it stands by."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			if active, ok := m.isActive(); ok {
				o.Observe(active, m.labels)
			}
			return nil
		}))
	_, errs[21] = meter.Int64ObservableGauge("tandem_source_deferred",
		metric.WithDescription("Events that are deferred in this cluster until the deployment changes, by what is missing: the SQLSTATE, and the table with the column or the constraint. The largest are named, the others are together."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			m.eachDeferred(func(c deferred.Count, labels metric.MeasurementOption) { o.Observe(c.Events, labels) })
			return nil
		}))
	_, errs[22] = meter.Float64ObservableGauge("tandem_source_deferred_oldest", metric.WithUnit("s"),
		metric.WithDescription("Time since the first failure of the oldest deferred event, by what is missing."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			m.eachDeferred(func(c deferred.Count, labels metric.MeasurementOption) { o.Observe(c.Oldest.Seconds(), labels) })
			return nil
		}))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}

	ctx := context.Background()
	for _, counter := range []metric.Int64Counter{m.delivered, m.rejected, m.failed, m.skipped, m.forgotten, m.filtered, m.gone, m.rewinds, m.strikes} {
		counter.Add(ctx, 0, m.labels) // visible before the first event
	}
	m.receipts.Add(ctx, 0, m.won)
	m.receipts.Add(ctx, 0, m.lost)
	return m, nil
}

// commitBuckets returns the bounds of the commit histogram in seconds: from 0.5 ms on,
// each a quarter above the previous one, and 30 s at the end.
func commitBuckets() []float64 {
	const first, growth, last = 0.0005, 1.25, 30
	var bounds []float64
	for bound := first; bound < last; bound *= growth {
		bounds = append(bounds, bound)
	}
	return append(bounds, last)
}

func (m *Metrics) observe(value func(eventing.Position) uint64) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.positions) == 0 {
			return nil // not known yet
		}
		var sum uint64
		for _, position := range m.positions {
			sum += value(position)
		}
		o.Observe(int64(sum), m.labels)
		return nil
	}
}

// holding describes the messages in flight: their number, in total and by state, the
// number of suspects, the age of the oldest, and the deferred events.
type holding struct {
	messages int
	suspects int
	helped   int // events of other clusters' shares that were sent so far
	states   [inflight.Finished]int
	oldest   time.Duration
	deferred []deferred.Count // the largest first; nil if nothing is deferred
}

// watch registers the source whose messages in flight the metrics observe.
func (m *Metrics) watch(holds func() holding) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holds = holds
}

// watchActive registers the function that reports whether this replica is active.
func (m *Metrics) watchActive(active func() bool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active = active
}

func (m *Metrics) isActive() (active int64, ok bool) {
	m.mu.Lock()
	ask := m.active
	m.mu.Unlock()
	if ask == nil {
		return 0, false // not replicated
	}
	if ask() {
		active = 1
	}
	return active, true
}

// standBy forgets the measurements of this replica's source when it stands by.
func (m *Metrics) standBy() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holds = nil
	clear(m.positions)
}

// observeHeld returns a callback that observes a value of the messages in flight.
func (m *Metrics) observeHeld(value func(holding) int) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		if held, ok := m.held(); ok {
			o.Observe(int64(value(held)), m.labels)
		}
		return nil
	}
}

func (m *Metrics) held() (h holding, ok bool) {
	m.mu.Lock()
	holds := m.holds
	m.mu.Unlock()
	if holds == nil {
		return holding{}, false // no source yet
	}
	return holds(), true
}

// maxFingerprints bounds the fingerprints that the metrics name.
const maxFingerprints = 16

// eachDeferred calls observe with the count of each fingerprint, and with the sum of the
// smallest under the name "other". Without deferred events it calls observe once, with no
// fingerprint.
func (m *Metrics) eachDeferred(observe func(deferred.Count, metric.MeasurementOption)) {
	held, ok := m.held()
	if !ok || held.deferred == nil {
		return
	}
	with := func(fingerprint string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(slices.Clone(m.attributes), attribute.String("fingerprint", fingerprint))...))
	}
	if len(held.deferred) == 0 {
		observe(deferred.Count{}, with(""))
	}
	other := deferred.Count{}
	for i, c := range held.deferred {
		if i < maxFingerprints {
			observe(c, with(c.Fingerprint))
			continue
		}
		other.Events += c.Events
		other.Oldest = max(other.Oldest, c.Oldest)
	}
	if other.Events > 0 {
		observe(other, with("other"))
	}
}

func (m *Metrics) position(stream string, p eventing.Position) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.positions[stream] = p
}

// left forgets the position in a stream.
func (m *Metrics) left(stream string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.positions, stream)
}

// settled counts the events that a request finished.
func (m *Metrics) settled(ctx context.Context, entries []*inflight.Entry, sent []int, steps []delivery.Step, now time.Time) {
	if m == nil {
		return
	}
	var delivered, rejected, won, lost int64
	for k, i := range sent {
		step := steps[k]
		switch {
		case step.Rejected:
			rejected++
			continue
		case !step.Settled:
			continue
		}
		delivered++
		switch step.Receipt {
		case outcome.ReceiptWon:
			won++
			// This compares the clocks of two computers, so the difference may be
			// slightly negative.
			if entries[i].Delivery.DeferredKey != "" {
				continue // the event waited for an operator
			}
			m.commit.Record(ctx, max(now.Sub(entries[i].Message.Arrived()), 0).Seconds(), m.labels)
		case outcome.ReceiptLost:
			lost++
		}
	}
	for _, c := range []struct {
		counter metric.Int64Counter
		n       int64
		labels  metric.MeasurementOption
	}{
		{m.rejected, rejected, m.labels}, {m.delivered, delivered, m.labels}, {m.receipts, won, m.won}, {m.receipts, lost, m.lost},
	} {
		if c.n > 0 {
			c.counter.Add(ctx, c.n, c.labels)
		}
	}
}

// skippedSome counts events that another cluster has committed.
func (m *Metrics) skippedSome(ctx context.Context, events int) {
	if m != nil && events > 0 {
		m.skipped.Add(ctx, int64(events), m.labels)
	}
}

// struckOne counts a strike.
func (m *Metrics) struckOne(ctx context.Context) {
	if m != nil {
		m.strikes.Add(ctx, 1, m.labels)
	}
}

// vanishedSome counts messages that their stream deleted before they were delivered.
func (m *Metrics) vanishedSome(ctx context.Context, messages uint64) {
	if m != nil && messages > 0 {
		m.gone.Add(ctx, int64(min(messages, 1<<62)), m.labels)
	}
}

// rewoundOne counts a rewind.
func (m *Metrics) rewoundOne(ctx context.Context) {
	if m != nil {
		m.rewinds.Add(ctx, 1, m.labels)
	}
}

// forgottenOne counts a message below the horizon.
func (m *Metrics) forgottenOne(ctx context.Context) {
	if m != nil {
		m.forgotten.Add(ctx, 1, m.labels)
	}
}

// waiting sets how many dead letters wait for a verdict.
func (m *Metrics) waiting(ctx context.Context, events int) {
	if m != nil {
		m.parked.Record(ctx, int64(events), m.labels)
	}
}

// storedNow sets how many events are stored behind dead letters.
func (m *Metrics) storedNow(ctx context.Context, events int) {
	if m != nil {
		m.stored.Record(ctx, int64(events), m.labels)
	}
}

// filteredOne counts a message of a type that is not delivered.
func (m *Metrics) filteredOne(ctx context.Context) {
	if m != nil {
		m.filtered.Add(ctx, 1, m.labels)
	}
}

// AttemptFailed counts a failed attempt. It is for [delivery.Config.Failed].
func (m *Metrics) AttemptFailed(ctx context.Context) {
	if m != nil {
		m.failed.Add(ctx, 1, m.labels)
	}
}
