// Ingest accepts CloudEvents over HTTP and stores them in a stream. It answers 202 only
// after the stream has stored the event. It ends on SIGTERM, after requests have
// stopped arriving or after a few seconds. Its settings are environment variables.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/sethvargo/go-envconfig"
	"knative.dev/pkg/network/handlers"
	"knative.dev/pkg/signals"

	"github.com/tandem-fn/tandem/eventing/ingest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// config is the environment; docs/configuration.md has the table.
type config struct {
	Cluster        string     `env:"TANDEM_CLUSTER, required"`
	Stream         string     `env:"TANDEM_STREAM, default=EVENTS"`
	Replicas       int        `env:"TANDEM_STREAM_REPLICAS, default=1"`
	MaxEventBytes  int64      `env:"TANDEM_MAX_EVENT_BYTES, default=1048576"`
	InFlightBytes  int64      `env:"TANDEM_IN_FLIGHT_BYTES, default=67108864"`
	NATSURL        string     `env:"NATS_URL, required"`
	ListenAddress  string     `env:"LISTEN_ADDRESS, default=:8080"`
	LogLevel       slog.Level `env:"LOG_LEVEL, default=info"`
	MetricsAddress string     `env:"METRICS_ADDRESS"`
	OTLPEndpoint   string     `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	OTLPProtocol   string     `env:"OTEL_EXPORTER_OTLP_PROTOCOL"`
}

const (
	// quietPeriod is the time without requests after which an ending ingest assumes
	// that load balancers no longer send to it.
	quietPeriod = time.Second

	// drainTimeout bounds the wait for the quiet period.
	drainTimeout = 2 * time.Second

	// lookInterval is the time between lookups of the stream while it is not found.
	lookInterval = time.Second

	// maxHeaderBytes bounds the header of a request. It is read before the memory for
	// the request is reserved.
	maxHeaderBytes = 128 << 10

	// heapOverhead is the heap in addition to the requests that are being accepted, in
	// bytes: connections, and garbage.
	heapOverhead = 32 << 20

	// closeTimeout bounds each of the last steps.
	closeTimeout = time.Second
)

func main() {
	ctx := signals.NewContext()
	if err := run(ctx); err != nil {
		telemetry.Logger(os.Stderr, slog.LevelInfo).LogAttrs(ctx, slog.LevelError, "ingest stopped", slog.Any("err", err))
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var cfg config
	if err := telemetry.ReadEnvironment(ctx, envconfig.OsLookuper(), &cfg); err != nil {
		return err
	}
	if err := telemetry.CheckName("TANDEM_CLUSTER", cfg.Cluster); err != nil {
		return fmt.Errorf("read environment: %w", err)
	}
	for variable, bytes := range map[string]int64{"TANDEM_MAX_EVENT_BYTES": cfg.MaxEventBytes, "TANDEM_IN_FLIGHT_BYTES": cfg.InFlightBytes} {
		if bytes < 1 {
			return fmt.Errorf("read environment: %s %d: want at least 1", variable, bytes)
		}
	}
	telemetry.LimitHeap(cfg.InFlightBytes + heapOverhead)
	logger := telemetry.Logger(os.Stderr, cfg.LogLevel).With(slog.String("cluster", cfg.Cluster))

	// The handler must exist before /health is served.
	var handler *ingest.Handler
	var draining atomic.Bool
	metrics, err := telemetry.Listen(ctx, telemetry.Config{
		Address: cfg.MetricsAddress, OTLPEndpoint: cfg.OTLPEndpoint, OTLPProtocol: cfg.OTLPProtocol,
		Ready: func(ctx context.Context) error { return handler.Ready(ctx) },
	})
	if err != nil {
		return err
	}
	defer atTheEnd(ctx, metrics.Close)
	listener, err := telemetry.ListenTCP(ctx, "LISTEN_ADDRESS", cfg.ListenAddress)
	if err != nil {
		return err
	}
	conn, err := jetstream.Connect(ctx, cfg.NATSURL, jetstream.Config{Name: "tandem-ingest-" + cfg.Cluster, Logger: logger})
	if err != nil {
		return err
	}
	defer atTheEnd(ctx, conn.Close)
	stream := jetstream.ParseStream(cfg.Stream)
	stream.Replicas, stream.LeastWindow = cfg.Replicas, contract.RelayTakeover
	publisher, err := jetstream.NewPublisher(conn, stream)
	if err != nil {
		return err
	}
	counted, err := ingest.NewMetrics(metrics.Meters(), cfg.Cluster)
	if err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	handler, err = ingest.New(publisher, ingest.Config{
		MaxEventBytes: cfg.MaxEventBytes,
		InFlightBytes: cfg.InFlightBytes,
		Ready:         publisher.Ready,
		TakesType:     publisher.TakesType,
		Draining:      draining.Load,
		Metrics:       counted,
		Logger:        logger,
	})
	if err != nil {
		return err
	}

	// The kubelet's probes succeed until the process drains. An unavailable stream is
	// reported to senders with 503, and to load balancers at /health.
	drainer := &handlers.Drainer{Inner: handler, QuietPeriod: quietPeriod}
	server := &http.Server{
		Handler:           drainer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	logger.LogAttrs(ctx, slog.LevelInfo, "ingest started", slog.String("version", telemetry.Version()),
		slog.String("stream", cfg.Stream), slog.String("address", listener.Addr().String()))

	failed := make(chan error, 3)
	go func() {
		if err := refuse(ctx, publisher); err != nil {
			failed <- err
		}
	}()
	go func() { failed <- server.Serve(listener) }()
	go func() {
		if err := metrics.Serve(); err != nil {
			failed <- err
		}
	}()
	select {
	case err := <-failed:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
	}

	draining.Store(true)
	quiet := make(chan struct{})
	go func() {
		defer close(quiet)
		drainer.Drain()
	}()
	select {
	case <-quiet:
	case <-time.After(drainTimeout):
	}
	atTheEnd(ctx, server.Shutdown)
	logger.LogAttrs(ctx, slog.LevelInfo, "ingest stopped")
	return nil
}

// refuse looks up the stream until it is found, and returns an error only if an
// operator has to change the stream.
func refuse(ctx context.Context, publisher *jetstream.Publisher) error {
	for {
		err := publisher.Ready(ctx)
		if errors.Is(err, jetstream.ErrDuplicateWindow) {
			return err
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookInterval):
		}
	}
}

// atTheEnd closes a component when the process ends, with a timeout.
func atTheEnd(ctx context.Context, shut func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = shut(ctx) // the process ends anyway
}
