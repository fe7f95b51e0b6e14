// Package telemetry serves metrics and health of a process over HTTP, and configures
// its log.
package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"knative.dev/pkg/observability/metrics"

	"github.com/tandem-fn/tandem/functions"
)

// Config is the configuration of a [Server].
type Config struct {
	// Address is the listen address, for example 127.0.0.1:9090. Empty serves nothing.
	Address string

	// OTLPEndpoint is the address to which metrics are pushed as well, for example
	// http://collector:4318. Empty pushes nothing.
	OTLPEndpoint string

	// OTLPProtocol is "http/protobuf" or "grpc". Defaults to "http/protobuf".
	OTLPProtocol string

	// Ready returns why the process is not ready. Required.
	Ready func(ctx context.Context) error

	// Status returns the text that a ready process answers at /health, for people. Nil
	// means no text.
	Status func() string
}

func (c Config) withDefaults() Config {
	c.OTLPProtocol = cmp.Or(c.OTLPProtocol, metrics.ProtocolHTTPProtobuf)
	return c
}

func (c Config) validate() error {
	if c.OTLPEndpoint != "" && c.OTLPProtocol != metrics.ProtocolHTTPProtobuf && c.OTLPProtocol != metrics.ProtocolGRPC {
		return fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL %q: want %s or %s", c.OTLPProtocol, metrics.ProtocolHTTPProtobuf, metrics.ProtocolGRPC)
	}
	return nil
}

// Server answers GET /metrics in Prometheus' text format and GET /health with
// 200, or 503 and the reason.
type Server struct {
	provider *metrics.MeterProvider
	listener net.Listener // nil if nothing is served
	http     *http.Server
}

// Listen opens the address, so that an error is known at once, and sets up the metrics.
// [Server.Serve] answers requests.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	provider, err := newProvider(ctx, cfg, registry)
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	s := &Server{provider: provider}
	if cfg.Address == "" {
		return s, nil
	}
	if s.listener, err = ListenTCP(ctx, "METRICS_ADDRESS", cfg.Address); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if err := cfg.Ready(r.Context()); err != nil {
			http.Error(w, strings.ReplaceAll(err.Error(), "\n", "; "), http.StatusServiceUnavailable)
		} else if cfg.Status != nil {
			_, _ = io.WriteString(w, cfg.Status()+"\n") // the client may have disconnected
		}
	})
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	return s, nil
}

// newProvider returns Knative's provider for pushed metrics, with our own reader for
// Prometheus: Knative's has its own server, which does not serve /health.
func newProvider(ctx context.Context, cfg Config, registry prometheus.Registerer) (*metrics.MeterProvider, error) {
	// The same names as Knative's own exporter, and only our labels.
	reader, err := otelprom.New(
		otelprom.WithRegisterer(registry),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		otelprom.WithoutScopeInfo(),
		otelprom.WithoutTargetInfo(),
	)
	if err != nil {
		return nil, err
	}
	if cfg.OTLPEndpoint == "" {
		return &metrics.MeterProvider{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}, nil
	}
	return metrics.NewMeterProvider(ctx, metrics.Config{Protocol: cfg.OTLPProtocol, Endpoint: cfg.OTLPEndpoint}, sdkmetric.WithReader(reader))
}

// Meters returns the provider of instruments.
func (s *Server) Meters() metric.MeterProvider { return s.provider }

// Serve answers requests until [Server.Close]. The error is why it ended earlier.
func (s *Server) Serve() error {
	if s.listener == nil {
		return nil
	}
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// Close ends the server and pushes the remaining metrics, as far as ctx allows.
func (s *Server) Close(ctx context.Context) error {
	err := s.provider.Shutdown(ctx)
	if s.http != nil {
		err = errors.Join(err, s.http.Shutdown(ctx))
	}
	return err
}

// ListenTCP opens a TCP address. Its error names the variable with the address.
func ListenTCP(ctx context.Context, variable, address string) (net.Listener, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: choose another address", variable, err)
	}
	return listener, nil
}

// CheckName returns the error in the name of a cluster or function. It names the
// variable with the name.
func CheckName(variable, name string) error {
	if functions.ValidName(name) {
		return nil
	}
	return fmt.Errorf("%s %q: want lower-case letters, digits and '-', at most 63, beginning with a letter", variable, name)
}

// Logger returns a logger that writes JSON, one line an entry.
func Logger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

// Version returns the version of this program's module and the commit, as far as the
// build recorded them.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	if version == "" {
		version = "(devel)"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && !strings.Contains(version, setting.Value[:min(12, len(setting.Value))]) {
			version += " " + setting.Value[:min(12, len(setting.Value))]
		}
	}
	return version
}
