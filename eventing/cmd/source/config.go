package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/eventing/telemetry"
)

// config is the environment; docs/configuration.md has the table.
type config struct {
	Cluster        string        `env:"TANDEM_CLUSTER, required"`
	Function       string        `env:"TANDEM_FUNCTION"`
	Site           string        `env:"TANDEM_SITE"`
	Replica        string        `env:"TANDEM_REPLICA"`
	Sink           string        `env:"K_SINK"`
	SinkKind       string        `env:"TANDEM_SINK_KIND, default=function"`
	DeadLetterSink string        `env:"TANDEM_DEAD_LETTER_SINK"`
	SinkCACerts    string        `env:"K_CA_CERTS"`
	Overrides      string        `env:"K_CE_OVERRIDES"`
	Streams        []string      `env:"TANDEM_STREAMS, default=EVENTS"`
	Types          []string      `env:"TANDEM_TYPES"`
	Ordering       string        `env:"TANDEM_ORDERING, default=none"`
	OutputStream   string        `env:"TANDEM_OUTPUT_STREAM, default=OUTPUTS"`
	OutputSink     string        `env:"TANDEM_OUTPUT_SINK"`
	OutputBatch    int           `env:"TANDEM_OUTPUT_BATCH, default=1"`
	Replicas       int           `env:"TANDEM_STREAM_REPLICAS, default=1"`
	InFlight       int           `env:"TANDEM_IN_FLIGHT, default=1024"`
	Batch          int           `env:"TANDEM_BATCH, default=1000"`
	MaxBytes       int           `env:"TANDEM_IN_FLIGHT_BYTES, default=67108864"`
	Rate           int           `env:"TANDEM_RATE"`
	Hedge          string        `env:"TANDEM_HEDGE, default=0"`
	ShareDelay     time.Duration `env:"TANDEM_SHARE_DELAY, default=100ms"`
	TryFor         time.Duration `env:"TANDEM_TRY_FOR, default=15m"`
	Retention      time.Duration `env:"TANDEM_RETENTION, default=168h"`
	DatabaseURL    string        `env:"DATABASE_URL, required"`
	NATSURL        string        `env:"NATS_URL"`
	LogLevel       slog.Level    `env:"LOG_LEVEL, default=info"`
	MetricsAddress string        `env:"METRICS_ADDRESS"`
	OTLPEndpoint   string        `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	OTLPProtocol   string        `env:"OTEL_EXPORTER_OTLP_PROTOCOL"`

	// Derived: the configuration of K_SINK, and of OutputSink, which is K_SINK if
	// nothing else is sent there.
	SinkConfig, OutputConfig sink.Config
}

// noStreams replaces the names of streams to make the program only a relay.
const noStreams = "none"

// orderBySubject keeps the order of events that have the same subject.
const orderBySubject = "subject"

// The kinds of sink. A 2xx of a function is an acknowledgement only with a receipt.
const (
	sinkFunction = "function"
	sinkBroker   = "broker"
)

// name returns the name of this program in the servers' lists.
func (c config) name() string {
	if c.relayOnly() {
		return "tandem-relay-" + c.Cluster
	}
	return "tandem-source-" + c.Cluster + "-" + c.Function
}

// relayOnly reports whether no stream is read.
func (c config) relayOnly() bool { return len(c.Streams) == 1 && c.Streams[0] == noStreams }

// readConfig reads the environment through lookup. The error names every missing or
// invalid variable.
func readConfig(ctx context.Context, lookup envconfig.Lookuper) (config, error) {
	var c config
	if err := telemetry.ReadEnvironment(ctx, lookup, &c); err != nil {
		return config{}, err
	}
	if c.DeadLetterSink == "" && !c.relayOnly() {
		c.DeadLetterSink = deadLetterSink(c.Sink)
	}
	overrides, err := sink.ParseOverrides(c.Overrides)
	if err != nil {
		err = fmt.Errorf("K_CE_OVERRIDES: %w", err)
	}
	c.SinkConfig = sink.Config{CACerts: c.SinkCACerts, TokenFile: sink.TokenFile, Overrides: overrides}
	errs := []error{err, telemetry.CheckName("TANDEM_CLUSTER", c.Cluster)}
	bound := ""
	if c.relayOnly() {
		bound = c.Sink
	} else {
		errs = append(errs, missing("TANDEM_FUNCTION", c.Function), missing("K_SINK", c.Sink))
	}
	if c.Function != "" {
		errs = append(errs, telemetry.CheckName("TANDEM_FUNCTION", c.Function))
	}
	c.OutputSink, c.OutputConfig = sink.ForOutputs(c.OutputSink, bound, c.SinkConfig)
	if !c.relayOnly() || c.OutputSink == "" {
		errs = append(errs, missing("NATS_URL", c.NATSURL))
	}
	if c.InFlight < 1 || c.InFlight > 16384 {
		errs = append(errs, fmt.Errorf("TANDEM_IN_FLIGHT %d: want 1 to 16384", c.InFlight))
	}
	if c.Batch < 1 || c.Batch > source.MaxBatch {
		errs = append(errs, fmt.Errorf("TANDEM_BATCH %d: want 1 to %d", c.Batch, source.MaxBatch))
	}
	if c.MaxBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("TANDEM_IN_FLIGHT_BYTES %d: want at least 1048576", c.MaxBytes))
	}
	if c.Rate < 0 {
		errs = append(errs, fmt.Errorf("TANDEM_RATE %d: want 0 (no limit) or more events per second", c.Rate))
	}
	if c.TryFor <= 0 {
		errs = append(errs, fmt.Errorf("TANDEM_TRY_FOR %s: want more than 0", c.TryFor))
	}
	if c.Retention < time.Minute {
		errs = append(errs, fmt.Errorf("TANDEM_RETENTION %s: want at least 1m, and more than any time after which an event may be redelivered", c.Retention))
	}
	if c.Ordering != "none" && c.Ordering != orderBySubject {
		errs = append(errs, fmt.Errorf("TANDEM_ORDERING %q: want subject, or none", c.Ordering))
	}
	if c.SinkKind != sinkFunction && c.SinkKind != sinkBroker {
		errs = append(errs, fmt.Errorf("TANDEM_SINK_KIND %q: want function, or broker", c.SinkKind))
	}
	if err := source.CheckTypes(c.Types); err != nil {
		errs = append(errs, fmt.Errorf("TANDEM_TYPES: %w", err))
	}
	hedge, err := eventing.ParseHedge(c.Hedge)
	if err != nil {
		errs = append(errs, fmt.Errorf("TANDEM_HEDGE %w", err))
	}
	if c.SinkKind == sinkBroker && !hedge.Race() {
		errs = append(errs, fmt.Errorf("TANDEM_HEDGE %q: a Broker commits nothing that another cluster could look up; want 0, or TANDEM_SINK_KIND=function", c.Hedge))
	}
	if c.ShareDelay <= 0 || c.ShareDelay > eventing.MaxHedge {
		errs = append(errs, fmt.Errorf("TANDEM_SHARE_DELAY %s: want more than 0, and up to %s", c.ShareDelay, eventing.MaxHedge))
	}
	if err = errors.Join(errs...); err != nil {
		return config{}, fmt.Errorf("read environment: %w", err)
	}
	return c, nil
}

// deadLetterSink returns the URLs at which the function at the addresses of a sink accepts
// dead letters.
func deadLetterSink(sink string) string {
	addresses := strings.Split(sink, ",")
	for i, address := range addresses {
		// A sink that is not a URL is reported later.
		if letters, err := url.JoinPath(strings.TrimSpace(address), "dead-letters"); err == nil {
			addresses[i] = letters
		}
	}
	return strings.Join(addresses, ",")
}

func missing(variable, value string) error {
	if value == "" {
		return fmt.Errorf("%s: missing", variable)
	}
	return nil
}
