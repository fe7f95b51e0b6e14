package main

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// replicationTimeout bounds the look at the standby servers for a reading of the
// metrics: better none than late.
const replicationTimeout = time.Second

// observeReplication makes gauges of how far the database's standby servers are
// behind: what a failover to them would lose, and the stream give again. While the
// database is away, and where the role may not see them, there are none.
func observeReplication(provider metric.MeterProvider, cfg config, standbys func(context.Context) ([]ledger.Standby, error)) error {
	meter := provider.Meter("github.com/tandem-fn/tandem/eventing/cmd/source")
	var errs [3]error
	var lag metric.Float64ObservableGauge
	var behind metric.Int64ObservableGauge
	lag, errs[0] = meter.Float64ObservableGauge("tandem_database_replication_lag", metric.WithUnit("s"),
		metric.WithDescription("How long what a standby server has applied last took to get there."))
	behind, errs[1] = meter.Int64ObservableGauge("tandem_database_replication_behind", metric.WithUnit("By"),
		metric.WithDescription("How much of the database's log a standby server has not applied."))
	_, errs[2] = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, replicationTimeout)
		defer cancel()
		list, err := standbys(ctx)
		if err != nil {
			return nil // the database is away, which others tell
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
