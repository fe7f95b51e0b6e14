package process

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/rejected"
)

// outboxTimeout bounds the query of the outbox for one scrape: a missing value is
// better than a slow scrape.
const outboxTimeout = time.Second

// faults are all possible faults of a rejected offer.
var faults = [...]sinkwriter.Fault{
	sinkwriter.FaultTransient, sinkwriter.FaultDeployment, sinkwriter.FaultOrder, sinkwriter.FaultFunction, sinkwriter.FaultEvent,
}

// metrics are the metrics of a process: its requests by status, and the counts of its
// writer, which sinkwriter keeps and which are read for each scrape.
type metrics struct {
	requests metric.Int64Counter
	labels   []attribute.KeyValue // of requests
}

// newMetrics creates the instruments. All have the label cluster, and function where it
// is known: for requests, if the process serves only one. The error is the provider's.
func newMetrics(provider metric.MeterProvider, c config, writer *sinkwriter.Writer, outbox *sinkwriter.Outbox, rejections *rejected.Outputs) (*metrics, error) {
	meter := provider.Meter("github.com/tandem-fn/tandem/eventing/process")
	cluster := attribute.String("cluster", c.Cluster)
	m := &metrics{labels: []attribute.KeyValue{cluster}}
	if len(c.functions) == 1 {
		m.labels = append(m.labels, attribute.String("function", c.functions[0].Name))
	}
	var err error
	if m.requests, err = meter.Int64Counter("tandem_function_requests",
		metric.WithDescription("HTTP requests by the status of the answer.")); err != nil {
		return nil, err
	}
	for _, status := range []int{http.StatusNoContent, http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		m.answered(context.Background(), status, 0) // visible before the first request
	}
	return m, errors.Join(observeFunctions(meter, cluster, c.functions, writer), observeWriter(meter, cluster, writer, outbox, rejections))
}

// answered counts requests that were answered with a status.
func (m *metrics) answered(ctx context.Context, status int, requests int64) {
	m.requests.Add(ctx, requests, metric.WithAttributes(append(m.labels[:len(m.labels):len(m.labels)], attribute.String("status", strconv.Itoa(status)))...))
}

// observeFunctions observes the writer's counts by function. A served function is
// visible from the start.
func observeFunctions(meter metric.Meter, cluster attribute.KeyValue, picked []functions.Function, writer *sinkwriter.Writer) error {
	var errs [4]error
	var receipts, divergence, otherVersion, refused metric.Int64ObservableCounter
	receipts, errs[0] = meter.Int64ObservableCounter("tandem_writer_receipts",
		metric.WithDescription("Events committed, by receipt: won here, or lost because another delivery had committed them."))
	divergence, errs[1] = meter.Int64ObservableCounter("tandem_writer_divergence",
		metric.WithDescription("Lost events for which the function computed other effects than the winner, with the same version: it is not deterministic, or two different events have one source and id."))
	otherVersion, errs[2] = meter.Int64ObservableCounter("tandem_writer_other_version",
		metric.WithDescription("Lost events for which another version of the function had computed other effects: expected during a rollout."))
	refused, errs[3] = meter.Int64ObservableCounter("tandem_writer_refused",
		metric.WithDescription("Events that could not be committed, by fault: surroundings, deployment, order, function or event."))
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		stats := writer.FunctionStats()
		for _, f := range picked {
			if _, ok := stats[f.Name]; !ok {
				stats[f.Name] = sinkwriter.FunctionStats{} // visible before the first event
			}
		}
		for name, s := range stats {
			with := func(more ...attribute.KeyValue) metric.ObserveOption {
				return metric.WithAttributes(append(more, cluster, attribute.String("function", name))...)
			}
			o.ObserveInt64(receipts, s.Won, with(attribute.String("receipt", "won")))
			o.ObserveInt64(receipts, s.Lost, with(attribute.String("receipt", "lost")))
			o.ObserveInt64(divergence, s.Diverged, with())
			o.ObserveInt64(otherVersion, s.OtherVersion, with())
			for _, fault := range faults {
				o.ObserveInt64(refused, s.Refused[fault], with(attribute.String("fault", fault.String())))
			}
		}
		return nil
	}, receipts, divergence, otherVersion, refused)
	return err
}

// observeWriter observes the counts that belong to no function.
func observeWriter(meter metric.Meter, cluster attribute.KeyValue, writer *sinkwriter.Writer, outbox *sinkwriter.Outbox, rejections *rejected.Outputs) error {
	var errs [5]error
	var batches, retries, published metric.Int64ObservableCounter
	batches, errs[0] = meter.Int64ObservableCounter("tandem_writer_batches",
		metric.WithDescription("Transactions committed that won at least one event."))
	retries, errs[1] = meter.Int64ObservableCounter("tandem_writer_retries",
		metric.WithDescription("Batches that had to be retried."))
	published, errs[2] = meter.Int64ObservableCounter("tandem_writer_published",
		metric.WithDescription("Outputs that this writer published itself; the relay publishes the others."))
	labels := metric.WithAttributes(cluster)
	_, errs[3] = meter.Int64ObservableGauge("tandem_writer_outbox", metric.WithUnit("By"),
		metric.WithDescription("Outputs of all functions and clusters that are not yet known to be published, as stored in the database."),
		metric.WithInt64Callback(func(ctx context.Context, o metric.Int64Observer) error {
			ctx, cancel := context.WithTimeout(ctx, outboxTimeout)
			defer cancel()
			if bytes, err := outbox.Bytes(ctx); err == nil { // otherwise the database is unavailable, which other metrics show
				o.Observe(bytes, labels)
			}
			return nil
		}))
	_, errs[4] = meter.Int64ObservableGauge("tandem_writer_rejected_outputs",
		metric.WithDescription("Outputs of all functions and clusters that the stream or the sink rejected for good, until they are replayed or dropped."),
		metric.WithInt64Callback(func(ctx context.Context, o metric.Int64Observer) error {
			ctx, cancel := context.WithTimeout(ctx, outboxTimeout)
			defer cancel()
			if n, err := rejections.Count(ctx); err == nil {
				o.Observe(n, labels)
			}
			return nil
		}))
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := writer.Stats()
		o.ObserveInt64(batches, s.Batches, labels)
		o.ObserveInt64(retries, s.Retries, labels)
		o.ObserveInt64(published, s.Published, labels)
		return nil
	}, batches, retries, published)
	return err
}

// statusWriter records the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK { // 1xx are informational
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// count calls answer for a request and counts the status.
func (m *metrics) count(w http.ResponseWriter, r *http.Request, answer http.HandlerFunc) {
	noted := &statusWriter{ResponseWriter: w}
	defer func() {
		if noted.status == 0 {
			noted.status = http.StatusOK
		}
		m.answered(context.WithoutCancel(r.Context()), noted.status, 1)
	}()
	answer(noted, r)
}
