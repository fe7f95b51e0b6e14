package main

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// observeClusters creates gauges of all clusters, from the checkpoints that they have
// saved: each cluster's metrics cover a cluster that exports none itself. The ledger
// waits for a cluster that lags, and grows; a cluster that was silent for the retention
// does not count any more.
func observeClusters(provider metric.MeterProvider, cfg config, clusters func(context.Context, string) ([]ledger.ClusterStatus, error)) error {
	if cfg.relayOnly() {
		return nil
	}
	meter := provider.Meter("github.com/tandem-fn/tandem/eventing/cmd/source")
	var errs [4]error
	var silent, retention metric.Float64ObservableGauge
	var behind metric.Int64ObservableGauge
	silent, errs[0] = meter.Float64ObservableGauge("tandem_cluster_silent", metric.WithUnit("s"),
		metric.WithDescription("Time since the source of a cluster, label of, last saved a checkpoint, by the database's clock."))
	behind, errs[1] = meter.Int64ObservableGauge("tandem_cluster_behind",
		metric.WithDescription("Upper bound of the messages between those that a cluster, label of, has acknowledged and the last one delivered to any cluster."))
	retention, errs[2] = meter.Float64ObservableGauge("tandem_ledger_retention", metric.WithUnit("s"),
		metric.WithDescription("How long the ledger keeps an event; longer while a cluster lags."))
	_, errs[3] = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		own := []attribute.KeyValue{attribute.String("cluster", cfg.Cluster), attribute.String("function", cfg.Function)}
		o.ObserveFloat64(retention, cfg.Retention.Seconds(), metric.WithAttributes(own...))
		ctx, cancel := context.WithTimeout(ctx, replicationTimeout)
		defer cancel()
		list, err := clusters(ctx, cfg.Function)
		if err != nil {
			return nil // the database is unavailable, which other metrics show
		}
		for _, c := range list {
			labels := metric.WithAttributes(append(own[:2:2], attribute.String("of", c.Cluster))...)
			o.ObserveFloat64(silent, max(c.Age, 0).Seconds(), labels)
			o.ObserveInt64(behind, c.Behind, labels)
		}
		return nil
	}, silent, behind, retention)
	return errors.Join(errs[:]...)
}
