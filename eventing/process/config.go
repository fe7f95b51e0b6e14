package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
)

// config is the environment. What is not text is read from it afterwards, so that
// an error can name the variable.
type config struct {
	Cluster       string   `env:"TANDEM_CLUSTER, required"`
	DatabaseURL   string   `env:"DATABASE_URL, required"`
	NATSURL       string   `env:"NATS_URL"`
	OutputStream  string   `env:"TANDEM_OUTPUT_STREAM, default=OUTPUTS"`
	OutputSink    string   `env:"TANDEM_OUTPUT_SINK"`
	OutputBatch   string   `env:"TANDEM_OUTPUT_BATCH, default=1"`
	Sink          string   `env:"K_SINK"`
	CACerts       string   `env:"K_CA_CERTS"`
	Overrides     string   `env:"K_CE_OVERRIDES"`
	Replicas      string   `env:"TANDEM_STREAM_REPLICAS, default=1"`
	Functions     []string `env:"TANDEM_FUNCTIONS"`
	MaxEventBytes string   `env:"TANDEM_MAX_EVENT_BYTES, default=1048576"`
	Migrate       string   `env:"TANDEM_MIGRATE, default=false"`
	LogLevel      string   `env:"LOG_LEVEL, default=info"`

	OIDC struct {
		Issuer    string   `env:"ISSUER"`
		Audience  string   `env:"AUDIENCE"`
		Subjects  []string `env:"SUBJECTS"`
		CAFile    string   `env:"CA_FILE"`
		TokenFile string   `env:"TOKEN_FILE"`
	} `env:", prefix=TANDEM_OIDC_"`

	MetricsAddress string `env:"METRICS_ADDRESS"`
	OTLPEndpoint   string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	OTLPProtocol   string `env:"OTEL_EXPORTER_OTLP_PROTOCOL"`

	picked   []functions.Function
	replicas int
	outputs  *eventing.SinkPublisher // nil if outputs go to a stream, or nowhere
	maxBytes int64
	migrate  bool
	level    slog.Level
	gate     serve.Gate // nil without TANDEM_OIDC_ISSUER
}

var clusterPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// variables looks up variables, for which empty is the same as not set.
type variables map[string]string

// Lookup implements [envconfig.Lookuper].
func (v variables) Lookup(name string) (value string, found bool) {
	value = strings.TrimSpace(v[name])
	return value, value != ""
}

// readConfig reads the environment. The error names every variable that is wrong.
func readConfig(ctx context.Context, env map[string]string, all []functions.Function) (config, error) {
	var c config
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: &c, Lookuper: variables(env)}); err != nil {
		return config{}, fmt.Errorf("read environment: %w", err)
	}
	var errs []error
	if !clusterPattern.MatchString(c.Cluster) {
		errs = append(errs, fmt.Errorf("TANDEM_CLUSTER %q: want lower-case letters, digits and '-', at most 63, beginning with a letter", c.Cluster))
	}
	var err error
	if c.maxBytes, err = number("TANDEM_MAX_EVENT_BYTES", c.MaxEventBytes, 1<<10, 64<<20); err != nil {
		errs = append(errs, err)
	}
	replicas, err := number("TANDEM_STREAM_REPLICAS", c.Replicas, 1, 5)
	if err != nil {
		errs = append(errs, err)
	}
	c.replicas = int(replicas)
	if c.migrate, err = strconv.ParseBool(c.Migrate); err != nil {
		errs = append(errs, fmt.Errorf("TANDEM_MIGRATE %q: want true or false", c.Migrate))
	}
	if err := c.level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		errs = append(errs, fmt.Errorf("LOG_LEVEL %q: want debug, info, warn or error", c.LogLevel))
	}
	if c.outputs, err = newSinkPublisher(c); err != nil {
		errs = append(errs, err)
	}
	if c.gate, err = newGate(c); err != nil {
		errs = append(errs, err)
	}
	if c.picked, err = pick(all, c.Functions); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return config{}, fmt.Errorf("read environment: %w", err)
	}
	return c, nil
}

// number reads a whole number.
func number(variable, text string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s %q: want %d to %d", variable, text, least, most)
	}
	return n, nil
}

// pick gives the functions with these names, all of them for no names.
func pick(all []functions.Function, names []string) ([]functions.Function, error) {
	if len(names) == 0 {
		return all, nil
	}
	var picked []functions.Function
	for _, f := range all {
		if slices.Contains(names, f.Name) {
			picked = append(picked, f)
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
	return picked, nil
}

func (c config) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: c.level})).With(slog.String("cluster", c.Cluster))
}
