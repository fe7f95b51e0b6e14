// Package tandem is what func builds and serves: every function of this
// repository in one image, committed by sinkwriter and its outputs published to
// JetStream. TANDEM_FUNCTIONS picks some of them.
//
// It answers as package functions/serve says. Until the database is there and
// has the migrations that this program needs, it is not ready and every request
// is answered with 503.
//
// # Design
//
// Once ready, it stays ready while the database is away. All instances in all
// clusters share that database, so there is none that could do better, and
// taking them out of service would only make the way back longer. A 503 with
// Retry-After tells the sources what they need.
package tandem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-envconfig"
	runtime "knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/functions/serve"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// Whatever func-go does not recognise it leaves out without a word.
var (
	_ runtime.Handler           = (*Instance)(nil)
	_ runtime.Starter           = (*Instance)(nil)
	_ runtime.Stopper           = (*Instance)(nil)
	_ runtime.ReadinessReporter = (*Instance)(nil)
	_ runtime.LivenessReporter  = (*Instance)(nil)
)

const (
	// maxConns bounds the connections of an instance to the database: two for
	// batches, the others for dead letters and checks.
	maxConns = 4

	// checkInterval is how often a database that is not fit is looked at again.
	checkInterval = 250 * time.Millisecond

	// checkTimeout bounds one look.
	checkTimeout = 5 * time.Second

	// drainTimeout bounds the wait for requests under way when the instance is
	// stopped. The server has waited for them before; what is left of its 30 s
	// goes to the outbox.
	drainTimeout = 10 * time.Second
)

// Functions lists all functions, whichever of them are served.
func Functions() []functions.Function {
	return []functions.Function{
		flights.Function(),
	}
}

// Instance serves the functions, as func-go has it: make it with [New], then
// Start. Handle, Ready and Alive may be called at any time.
type Instance struct {
	// mu makes Start and Stop take turns.
	mu      sync.Mutex
	stopped bool

	// parts is nil until Start is done.
	parts atomic.Pointer[parts]
}

// parts are what an instance consists of once it is started.
type parts struct {
	log     *slog.Logger
	pool    *pgxpool.Pool
	writer  *sinkwriter.Writer
	handler *serve.Handler
	outputs *outputs // nil without NATS_URL

	stop context.CancelFunc // ends what runs in the background
	done sync.WaitGroup

	// unfit is why the database cannot be used yet; it holds nil from the
	// moment that it can.
	unfit atomic.Pointer[error]
}

// New makes an Instance that is not started.
func New() *Instance { return &Instance{} }

// Start reads the configuration from env and begins to serve. It does not wait
// for the database nor for NATS. An error says what is wrong with the
// configuration, and where.
func (i *Instance) Start(ctx context.Context, env map[string]string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped {
		return errors.New("start functions: already stopped")
	}
	if i.parts.Load() != nil {
		return errors.New("start functions: already started")
	}
	c, err := readConfig(ctx, env)
	if err != nil {
		return fmt.Errorf("start functions: %w", err)
	}
	p, err := start(ctx, c)
	if err != nil {
		return fmt.Errorf("start functions: %w", err)
	}
	i.parts.Store(p)
	return nil
}

// Stop refuses new requests, waits for those under way, and sees to it that their
// outputs are published, for as long as ctx allows. What is not published by then
// waits in the outbox. It may be called without Start, and more than once.
func (i *Instance) Stop(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.parts.Load()
	if i.stopped || p == nil {
		i.stopped = true
		return nil
	}
	i.stopped = true
	return p.close(ctx)
}

// Handle answers a request, before Start is done with 503.
func (i *Instance) Handle(w http.ResponseWriter, r *http.Request) {
	p := i.parts.Load()
	if p == nil {
		postpone(w, "not started yet")
		return
	}
	if err := p.unfit.Load(); err != nil {
		postpone(w, (*err).Error())
		return
	}
	p.handler.ServeHTTP(w, r)
}

// Ready says whether the database has been found fit. The error says why not.
func (i *Instance) Ready(context.Context) (bool, error) {
	p := i.parts.Load()
	if p == nil {
		return false, nil
	}
	if err := p.unfit.Load(); err != nil {
		return false, *err
	}
	return true, nil
}

// Alive is false when calls of functions hang in such a number that only a new
// process helps.
func (i *Instance) Alive(context.Context) (bool, error) {
	p := i.parts.Load()
	if p == nil {
		return true, nil
	}
	if err := p.handler.Alive(); err != nil {
		return false, err
	}
	return true, nil
}

// postpone answers 503.
func postpone(w http.ResponseWriter, reason string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, strings.Join(strings.Fields(reason), " "), http.StatusServiceUnavailable)
}

func start(ctx context.Context, c config) (*parts, error) {
	p := &parts{log: c.logger()}
	var err error
	if p.pool, err = newPool(ctx, c); err != nil {
		return nil, err
	}
	// Start's context is its caller's; what goes on afterwards has its own end.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	if c.NATSURL != "" {
		p.outputs = &outputs{log: p.log}
	}
	if err := p.join(c); err != nil {
		stop()
		p.pool.Close()
		return nil, err
	}
	unchecked := errors.New("the database has not been looked at yet")
	p.unfit.Store(&unchecked)
	p.done.Go(func() { p.awaitSchema(background, c.picked) })
	if p.outputs != nil {
		p.done.Go(func() { p.outputs.connect(background, c) })
	}
	names := make([]string, len(c.picked))
	for i, f := range c.picked {
		names[i] = f.Name
	}
	p.log.LogAttrs(ctx, slog.LevelInfo, "functions started", slog.Any("functions", names), slog.Bool("publishing", p.outputs != nil))
	return p, nil
}

// join makes the writer and the handler.
func (p *parts) join(c config) error {
	config := sinkwriter.Config{Cluster: c.Cluster, Logger: p.log}
	if p.outputs != nil {
		config.Publisher = p.outputs
	}
	var err error
	if p.writer, err = sinkwriter.New(p.pool, config); err != nil {
		return err
	}
	p.handler, err = serve.New(c.picked, committer{p.writer}, serve.Config{
		MaxBytes:    c.MaxEventBytes,
		DeadLetters: deadLetters{sinkwriter.NewDeadLetters(p.pool, c.Cluster)},
		Logger:      p.log,
	})
	return err
}

// awaitSchema looks at the database until it has every migration.
func (p *parts) awaitSchema(ctx context.Context, fs []functions.Function) {
	var sets []sinkwriter.MigrationSet
	for _, f := range fs {
		if f.Migrations != nil {
			sets = append(sets, sinkwriter.MigrationSet{Name: f.Name, Files: f.Migrations})
		}
	}
	said := ""
	ticks := time.NewTicker(checkInterval)
	defer ticks.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, checkTimeout)
		err := sinkwriter.CheckSchema(look, p.pool, sets...)
		cancel()
		switch {
		case err == nil:
			p.unfit.Store(nil)
			p.log.LogAttrs(ctx, slog.LevelInfo, "ready")
			return
		case ctx.Err() != nil:
			return
		}
		p.unfit.Store(&err)
		if text := err.Error(); text != said {
			said = text
			p.log.LogAttrs(ctx, slog.LevelWarn, "database is not fit, trying again", slog.Any("err", err))
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *parts) close(ctx context.Context) error {
	p.log.LogAttrs(ctx, slog.LevelInfo, "functions stop")
	drain, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	errs := []error{p.handler.Drain(drain), p.writer.Close(ctx)}
	p.stop()
	p.done.Wait()
	if p.outputs != nil {
		errs = append(errs, p.outputs.close(ctx))
	}
	// Waits for connections in use; whoever still has one is beyond help.
	closed := make(chan struct{})
	go func() {
		p.pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-ctx.Done():
		errs = append(errs, errors.New("connections to the database are still in use"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop functions: %w", err)
	}
	return nil
}

// committer joins serve and sinkwriter.
type committer struct{ writer *sinkwriter.Writer }

// Commit implements [serve.Committer].
func (c committer) Commit(ctx context.Context, f functions.Function, e event.Event, fx functions.Effects) (serve.Receipt, error) {
	receipt, err := c.writer.Commit(ctx, sinkwriter.Offer{Function: f.Name, Version: f.Version, Event: e, Effects: fx})
	if err != nil {
		var known *sinkwriter.Error
		if errors.As(err, &known) && (known.Fault == sinkwriter.FaultFunction || known.Fault == sinkwriter.FaultOrder) {
			return serve.Receipt{}, &serve.CountedError{Err: err}
		}
		return serve.Receipt{}, err
	}
	return serve.Receipt{Won: receipt.Won, Key: receipt.Key.String()}, nil
}

// deadLetters joins serve and sinkwriter.
type deadLetters struct{ kept *sinkwriter.DeadLetters }

// Save implements [serve.DeadLetters].
func (d deadLetters) Save(ctx context.Context, letter serve.DeadLetter) error {
	return d.kept.Save(ctx, letter.Function, letter.Event, letter.Code, letter.Reason)
}

// outputs publishes to a stream as soon as there is a connection. Until then the
// outbox keeps what there is to publish.
type outputs struct {
	log       *slog.Logger
	conn      atomic.Pointer[jetstream.Conn]
	publisher atomic.Pointer[jetstream.Publisher]
}

var errNotConnected = errors.New("publish outputs: not connected to NATS yet")

// Publish implements [sinkwriter.Publisher].
func (o *outputs) Publish(ctx context.Context, events []event.Event) error {
	p := o.publisher.Load()
	if p == nil {
		return errNotConnected
	}
	return p.Publish(ctx, events)
}

func (o *outputs) connect(ctx context.Context, c config) {
	conn, err := jetstream.Connect(ctx, c.NATSURL, jetstream.Config{Name: "tandem-function-" + c.Cluster, Logger: o.log})
	if err == nil {
		o.conn.Store(conn)
		var publisher *jetstream.Publisher
		if publisher, err = jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: c.OutputStream, Replicas: c.Replicas}); err == nil {
			o.publisher.Store(publisher)
			return
		}
	}
	o.log.LogAttrs(ctx, slog.LevelError, "outputs cannot be published from here and are left to the relay: look at NATS_URL and TANDEM_OUTPUT_STREAM", slog.Any("err", err))
}

func (o *outputs) close(ctx context.Context) error {
	if conn := o.conn.Load(); conn != nil {
		return conn.Close(ctx)
	}
	return nil
}

func newPool(ctx context.Context, c config) (*pgxpool.Pool, error) {
	settings, err := pgxpool.ParseConfig(c.DatabaseURL)
	if err != nil {
		// Not the parser's error: it repeats the URL, and not always without
		// the password.
		return nil, errors.New("DATABASE_URL: want postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	settings.MaxConns = maxConns
	settings.MinConns = 0
	if settings.ConnConfig.ConnectTimeout == 0 {
		settings.ConnConfig.ConnectTimeout = checkTimeout
	}
	if settings.ConnConfig.RuntimeParams["application_name"] == "" {
		settings.ConnConfig.RuntimeParams["application_name"] = "tandem-function-" + c.Cluster
	}
	// Connections are made when they are needed, so none is yet.
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), settings)
	if err != nil {
		return nil, fmt.Errorf("set up connections to the database: %w", err)
	}
	return pool, nil
}

// config is the environment.
type config struct {
	Cluster       string   `env:"TANDEM_CLUSTER, required"`
	DatabaseURL   string   `env:"DATABASE_URL, required"`
	NATSURL       string   `env:"NATS_URL"`
	OutputStream  string   `env:"TANDEM_OUTPUT_STREAM, default=OUTPUTS"`
	Replicas      int      `env:"TANDEM_STREAM_REPLICAS, default=1"`
	Functions     []string `env:"TANDEM_FUNCTIONS"`
	MaxEventBytes int64    `env:"TANDEM_MAX_EVENT_BYTES, default=1048576"`
	LogLevel      string   `env:"LOG_LEVEL, default=info"`

	picked []functions.Function
	level  slog.Level
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
func readConfig(ctx context.Context, env map[string]string) (config, error) {
	var c config
	if err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: &c, Lookuper: variables(env)}); err != nil {
		return config{}, fmt.Errorf("read environment: %w", err)
	}
	var errs []error
	if !clusterPattern.MatchString(c.Cluster) {
		errs = append(errs, fmt.Errorf("TANDEM_CLUSTER %q: want lower-case letters, digits and '-', at most 63, beginning with a letter", c.Cluster))
	}
	if c.MaxEventBytes < 1<<10 || c.MaxEventBytes > 64<<20 {
		errs = append(errs, fmt.Errorf("TANDEM_MAX_EVENT_BYTES %d: want 1024 to 67108864", c.MaxEventBytes))
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		errs = append(errs, fmt.Errorf("TANDEM_STREAM_REPLICAS %d: want 1 to 5", c.Replicas))
	}
	if err := c.level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		errs = append(errs, fmt.Errorf("LOG_LEVEL %q: want debug, info, warn or error", c.LogLevel))
	}
	var err error
	if c.picked, err = pick(Functions(), c.Functions); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return config{}, fmt.Errorf("read environment: %w", err)
	}
	return c, nil
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
