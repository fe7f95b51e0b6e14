package main

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// replicationTimeout bounds the query of the standby servers for one scrape: missing
// values are better than a slow scrape.
const replicationTimeout = time.Second

// observeReplication creates gauges of the lag of the database's standby servers: the
// commits that a failover would lose, and that the stream would redeliver. While the
// database is unavailable, or if the role lacks the privilege, there are none.
func observeReplication(provider metric.MeterProvider, cfg config, standbys func(context.Context) ([]ledger.Standby, error)) error {
	meter := provider.Meter("github.com/tandem-fn/tandem/eventing/cmd/source")
	var errs [3]error
	var lag metric.Float64ObservableGauge
	var behind metric.Int64ObservableGauge
	lag, errs[0] = meter.Float64ObservableGauge("tandem_database_replication_lag", metric.WithUnit("s"),
		metric.WithDescription("Replication lag of a standby server: the time until its latest applied commit arrived there."))
	behind, errs[1] = meter.Int64ObservableGauge("tandem_database_replication_behind", metric.WithUnit("By"),
		metric.WithDescription("Bytes of the database's log that a standby server has not applied."))
	_, errs[2] = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, replicationTimeout)
		defer cancel()
		list, err := standbys(ctx)
		if err != nil {
			return nil // the database is unavailable, which other metrics show
		}
		for _, s := range list {
			labels := metric.WithAttributes(attribute.String("cluster", cfg.Cluster), attribute.String("function", cfg.Function),
				attribute.String("standby", s.Name), attribute.String("mode", s.Mode))
			o.ObserveFloat64(lag, s.Lag.Seconds(), labels)
			o.ObserveInt64(behind, s.Bytes, labels)
		}
		return nil
	}, lag, behind)
	return errors.Join(errs[:]...)
}
