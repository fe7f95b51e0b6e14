package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/functions"
)

// config is the environment; docs/configuration.md has the table.
type config struct {
	Cluster        string     `env:"TANDEM_CLUSTER, required"`
	DatabaseURL    string     `env:"DATABASE_URL, required"`
	NATSURL        string     `env:"NATS_URL"`
	OutputStream   string     `env:"TANDEM_OUTPUT_STREAM, default=OUTPUTS"`
	OutputSink     string     `env:"TANDEM_OUTPUT_SINK"`
	OutputBatch    int        `env:"TANDEM_OUTPUT_BATCH, default=1"`
	OutputMaxBytes int64      `env:"TANDEM_OUTPUT_MAX_BYTES, default=0"`
	Sink           string     `env:"K_SINK"`
	CACerts        string     `env:"K_CA_CERTS"`
	Overrides      string     `env:"K_CE_OVERRIDES"`
	Replicas       int        `env:"TANDEM_STREAM_REPLICAS, default=1"`
	Functions      []string   `env:"TANDEM_FUNCTIONS"`
	MaxEventBytes  int64      `env:"TANDEM_MAX_EVENT_BYTES, default=1048576"`
	MaxBatch       int        `env:"TANDEM_MAX_BATCH, default=128"`
	Migrate        bool       `env:"TANDEM_MIGRATE, default=false"`
	Connections    int        `env:"TANDEM_CONNECTIONS, default=2"`
	LogLevel       slog.Level `env:"LOG_LEVEL, default=info"`
	OIDCIssuer     string     `env:"TANDEM_OIDC_ISSUER"`
	OIDCAudience   string     `env:"TANDEM_OIDC_AUDIENCE"`
	OIDCSubjects   []string   `env:"TANDEM_OIDC_SUBJECTS"`
	OIDCCAFile     string     `env:"TANDEM_OIDC_CA_FILE"`
	OIDCTokenFile  string     `env:"TANDEM_OIDC_TOKEN_FILE"`
	MetricsAddress string     `env:"METRICS_ADDRESS"`
	OTLPEndpoint   string     `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	OTLPProtocol   string     `env:"OTEL_EXPORTER_OTLP_PROTOCOL"`

	ClaimTimeout time.Duration `env:"TANDEM_CLAIM_TIMEOUT, default=200ms"`

	// Derived.
	functions  []functions.Function
	outputs    *sink.Publisher  // nil if outputs are sent to a stream, or not published
	authorizer serve.Authorizer // nil without TANDEM_OIDC_ISSUER
}

// readConfig reads the environment. The error names every invalid variable.
func readConfig(ctx context.Context, env map[string]string, all []functions.Function) (config, error) {
	var c config
	if err := telemetry.ReadEnvironment(ctx, envconfig.MapLookuper(env), &c); err != nil {
		return config{}, err
	}
	errs := []error{telemetry.CheckName("TANDEM_CLUSTER", c.Cluster)}
	if c.MaxEventBytes < 1<<10 || c.MaxEventBytes > 64<<20 {
		errs = append(errs, fmt.Errorf("TANDEM_MAX_EVENT_BYTES %d: want 1024 to 67108864", c.MaxEventBytes))
	}
	if c.MaxBatch < 1 || c.MaxBatch > 4096 {
		errs = append(errs, fmt.Errorf("TANDEM_MAX_BATCH %d: want 1 to 4096", c.MaxBatch))
	}
	if c.Connections < 1 || c.Connections > 16 {
		errs = append(errs, fmt.Errorf("TANDEM_CONNECTIONS %d: want 1 to 16", c.Connections))
	}
	if c.ClaimTimeout < 10*time.Millisecond || c.ClaimTimeout > 10*time.Second {
		errs = append(errs, fmt.Errorf("TANDEM_CLAIM_TIMEOUT %s: want 10ms to 10s", c.ClaimTimeout))
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("TANDEM_STREAM_REPLICAS %d: want 1 to 5", c.Replicas))
	}
	var err error
	if c.outputs, err = newSinkPublisher(c); err != nil {
		errs = append(errs, err)
	}
	if c.authorizer, err = newAuthorizer(c); err != nil {
		errs = append(errs, err)
	}
	if c.functions, err = selectFunctions(all, c.Functions); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return config{}, fmt.Errorf("read environment: %w", err)
	}
	return c, nil
}

// selectFunctions returns the functions with these names; all if there are none.
func selectFunctions(all []functions.Function, names []string) ([]functions.Function, error) {
	if len(names) == 0 {
		return all, nil
	}
	var selected []functions.Function
	for _, f := range all {
		if slices.Contains(names, f.Name) {
			selected = append(selected, f)
		}
	}
	var known []string
	for _, f := range all {
		known = append(known, f.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("TANDEM_FUNCTIONS: there is no function %q; there are: %s", name, strings.Join(known, ", "))
		}
	}
	return selected, nil
}

func (c config) logger() *slog.Logger {
	return telemetry.Logger(os.Stderr, c.LogLevel).With(slog.String("cluster", c.Cluster))
}
