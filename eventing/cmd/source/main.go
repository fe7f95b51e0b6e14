// Source delivers the messages of streams to one function over HTTP, in one cluster. It
// also saves its checkpoints in the database and publishes outputs that a winner left
// in the outbox. With TANDEM_STREAMS=none it only does the latter, for a function that
// receives its events from another source. It ends on SIGTERM, within a few seconds and
// without losing events. Its settings are environment variables.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/sethvargo/go-envconfig"
	"knative.dev/pkg/signals"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/relay"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

func main() {
	telemetry.TuneCollector()
	ctx := signals.NewContext()
	if err := run(ctx); err != nil {
		telemetry.Logger(os.Stderr, slog.LevelInfo).LogAttrs(ctx, slog.LevelError, "source stopped", slog.Any("err", err))
		os.Exit(1)
	}
}

// closeTimeout bounds each of the last steps of an ending process.
const closeTimeout = time.Second

func run(ctx context.Context) error {
	cfg, err := readConfig(ctx, envconfig.OsLookuper())
	if err != nil {
		return err
	}
	logger := telemetry.Logger(os.Stderr, cfg.LogLevel).With(slog.String("cluster", cfg.Cluster), slog.String("function", cfg.Function))

	db, err := openDatabase(ctx, cfg.DatabaseURL, cfg.Cluster, cfg.Function, cfg.name(), cfg.Retention)
	if err != nil {
		return err
	}
	defer db.close()

	// The readiness depends on components that are created after the metrics; it is set
	// before the first request.
	var ready func(context.Context) error
	status := func() string { return "ready" }
	server, err := telemetry.Listen(ctx, telemetry.Config{
		Address:      cfg.MetricsAddress,
		OTLPEndpoint: cfg.OTLPEndpoint,
		OTLPProtocol: cfg.OTLPProtocol,
		Ready:        func(ctx context.Context) error { return ready(ctx) },
		Status:       func() string { return status() },
	})
	if err != nil {
		return err
	}
	defer atTheEnd(ctx, logger, "close metrics", server.Close)
	var replica *source.Replica
	var sender *delivery.Sender
	metrics, err := source.NewMetrics(server.Meters(), cfg.Cluster, cfg.Function)
	if err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	if err := observeReplication(server.Meters(), cfg, db.standbys); err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	if !cfg.relayOnly() {
		if sender, err = newSender(cfg, db, metrics, logger); err != nil {
			return err
		}
	}
	var conn *jetstream.Conn // nil if not needed
	if cfg.NATSURL != "" {
		conn, err = jetstream.Connect(ctx, cfg.NATSURL, jetstream.Config{
			Name:   cfg.name(),
			Logger: logger,
		})
		if err != nil {
			return err
		}
		defer atTheEnd(ctx, logger, "close connection to NATS", conn.Close)
	}
	links := map[string]telemetry.Traffic{"database": db.traffic}
	if conn != nil {
		links["stream"] = conn.Traffic
	}
	if err := errors.Join(telemetry.ObserveLinks(server.Meters(), cfg.Cluster, links), observeClusters(server.Meters(), cfg, db.peers.Clusters)); err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	outputs, err := newOutputs(conn, cfg, logger)
	if err != nil {
		return err
	}
	outbox := &observedOutbox{database: db.relay}
	if cfg.relayOnly() {
		ready = outbox.ready(outputs)
	} else {
		if replica, err = newReplica(ctx, conn, sender, db, cfg, metrics, logger); err != nil {
			return err
		}
		ready = func(context.Context) error { return cmp.Or(replica.Ready(), sender.Ready()) }
		status = replica.Status
	}

	logger.LogAttrs(ctx, slog.LevelInfo, "source started", slog.String("version", telemetry.Version()), slog.Any("streams", cfg.Streams),
		slog.String("outputs", outputs.where), slog.Int("in_flight", cfg.InFlight), slog.String("hedge", cfg.Hedge))
	go func() {
		if err := server.Serve(); err != nil {
			logger.LogAttrs(ctx, slog.LevelError, "metrics server failed; metrics and health are not served: check METRICS_ADDRESS and restart the process", slog.Any("err", err))
		}
	}()
	var relaying sync.WaitGroup
	relaying.Go(func() {
		relay.Run(ctx, outbox, outputs.publisher, relay.Config{Logger: logger})
	})
	relaying.Go(func() { forget(ctx, db.old, logger) })
	if replica != nil {
		err = replica.Run(ctx)
	}
	relaying.Wait()
	if err != nil {
		return err
	}
	logger.LogAttrs(ctx, slog.LevelInfo, "source stopped")
	return nil
}

func newSender(cfg config, db database, metrics *source.Metrics, logger *slog.Logger) (*delivery.Sender, error) {
	return delivery.New(cfg.Sink, cfg.DeadLetterSink, delivery.Config{
		Function: cfg.Function,
		InFlight: cfg.InFlight,
		Broker:   cfg.SinkKind == sinkBroker,
		SaveDeadLetter: func(ctx context.Context, e event.Event, code int, reason string, attempts int) error {
			return db.letters.Save(ctx, deadletter.Letter{Function: cfg.Function, Event: e, Code: code, Reason: reason, Attempts: attempts})
		},
		Sink:   cfg.SinkConfig,
		TryFor: cfg.TryFor,
		Failed: metrics.AttemptFailed,
		Logger: logger,
	})
}

// newReplica returns this process as one of several that may be the source.
func newReplica(ctx context.Context, conn *jetstream.Conn, sender *delivery.Sender, db database, cfg config, metrics *source.Metrics, logger *slog.Logger) (*source.Replica, error) {
	holder, err := cfg.holder()
	if err != nil {
		return nil, err
	}
	if holder.Site == unknownSite {
		logger.LogAttrs(ctx, slog.LevelWarn, "the site of this cluster is unknown, so another cluster with its name is not detected: set TANDEM_SITE")
	}
	activate := func(held lease.Lease, until func() time.Time) (*source.Source, error) {
		return newSource(conn, sender, db.with(held), until, cfg, metrics, logger)
	}
	if _, err := activate(lease.Lease{}, nil); err != nil { // detects invalid settings at once
		return nil, err
	}
	return source.NewReplica(db.leases, activate, sender.Probe, source.ReplicaConfig{
		Cluster: cfg.Cluster, Function: cfg.Function, Holder: holder, Metrics: metrics, Logger: logger,
	}), nil
}

func newSource(conn *jetstream.Conn, sender *delivery.Sender, db database, until func() time.Time, cfg config, metrics *source.Metrics, logger *slog.Logger) (*source.Source, error) {
	streams, err := openStreams(conn, cfg)
	if err != nil {
		return nil, err
	}
	hedge, err := eventing.ParseHedge(cfg.Hedge)
	if err != nil {
		return nil, err
	}
	return source.New(streams, sender, db.progress, source.Config{
		Function:    cfg.Function,
		Types:       cfg.Types,
		InFlight:    cfg.InFlight,
		Batch:       cfg.Batch,
		Cluster:     cfg.Cluster,
		Peers:       db.peers,
		MaxBytes:    cfg.MaxBytes,
		Rate:        cfg.Rate,
		Hedge:       hedge,
		ShareDelay:  cfg.ShareDelay,
		Ledger:      db.ledger,
		Attempts:    db.tries,
		Suspects:    db.suspects,
		Ordered:     cfg.Ordering == orderBySubject,
		Blocked:     db.verdicts,
		Deferred:    db.deferred,
		ActiveUntil: until,
		Metrics:     metrics,
		Logger:      logger,
	})
}

func openStreams(conn *jetstream.Conn, cfg config) (eventing.StreamList, error) {
	streams := make(eventing.StreamList, len(cfg.Streams))
	for i, name := range cfg.Streams {
		stream, err := jetstream.NewStream(conn, cfg.Cluster, cfg.Function, jetstream.ParseStream(name))
		if err != nil {
			return nil, err
		}
		streams[i] = stream
	}
	return streams, nil
}

// atTheEnd closes a component when the process ends, with a timeout.
func atTheEnd(ctx context.Context, logger *slog.Logger, what string, shut func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := shut(ctx); err != nil {
		logger.LogAttrs(ctx, slog.LevelWarn, "could not finish a step of the shutdown; unsent acknowledgements are redelivered", slog.String("what", what), slog.Any("err", err))
	}
}
