package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // this is where functions and the database are joined

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/rejected"
)

const (
	// checkInterval is the time between checks of a database that lacks migrations.
	checkInterval = 250 * time.Millisecond

	// checkTimeout bounds one check.
	checkTimeout = 5 * time.Second

	// drainTimeout bounds the wait for requests under way in Stop. The server has
	// waited for them before; the rest of its 30 s is for publishing outputs.
	drainTimeout = 10 * time.Second

	// metricsTimeout bounds the push of the last metrics in Stop.
	metricsTimeout = 2 * time.Second
)

// components are the parts of a started Runtime.
type components struct {
	log       *slog.Logger
	pool      *pgxpool.Pool
	writer    *sinkwriter.Writer
	handler   *serve.Handler
	outputs   *outputs // nil without NATS_URL, or if outputs are sent to a sink
	telemetry *telemetry.Server
	metrics   *metrics
	traffic   telemetry.Traffic // with the database

	stopBackground context.CancelFunc // stops the goroutines of background
	background     sync.WaitGroup

	// notReady is why the database cannot be used yet; nil if it can.
	notReady atomic.Pointer[error]
}

func startComponents(ctx context.Context, c config) (*components, error) {
	cs := &components{log: c.logger()}
	unchecked := errors.New("the database has not been checked yet")
	cs.notReady.Store(&unchecked)
	var err error
	if cs.pool, cs.traffic, err = newPool(ctx, c); err != nil {
		return nil, err
	}
	// Start's context ends before the process does.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	cs.stopBackground = stop
	if c.NATSURL != "" && c.outputs == nil {
		cs.outputs = &outputs{log: cs.log, connected: make(chan struct{})}
	}
	err = cs.buildHandler(c)
	if err == nil {
		err = cs.startTelemetry(ctx, c)
	}
	if err != nil {
		stop()
		cs.pool.Close()
		return nil, err
	}
	cs.background.Go(func() { cs.awaitSchema(background, c) })
	if cs.outputs != nil {
		cs.background.Go(func() { cs.outputs.connect(background, c) })
	}
	names := make([]string, len(c.functions))
	for i, f := range c.functions {
		names[i] = f.Name
	}
	cs.log.LogAttrs(ctx, slog.LevelInfo, "functions started", slog.Any("functions", names), slog.Bool("publishing", cs.outputs != nil || c.outputs != nil))
	c.logSenders(ctx, cs.log)
	return cs, nil
}

// buildHandler creates the writer and the handler.
func (cs *components) buildHandler(c config) error {
	config := sinkwriter.Config{Cluster: c.Cluster, Connections: c.Connections, ClaimTimeout: c.ClaimTimeout, Logger: cs.log}
	if cs.outputs != nil {
		config.Publisher, config.CheckOutput = cs.outputs, cs.outputs.Check
	}
	if c.outputs != nil {
		config.Publisher, config.CheckOutput = c.outputs, c.outputs.Check
	}
	var err error
	if cs.writer, err = sinkwriter.New(cs.pool, config); err != nil {
		return err
	}
	cs.handler, err = serve.New(c.functions, cs.writer, serve.Config{
		MaxBytes:    c.MaxEventBytes,
		MaxBatch:    c.MaxBatch,
		DeadLetters: deadletter.NewStore(cs.pool, c.Cluster),
		Authorizer:  c.authorizer,
		Logger:      cs.log,
	})
	return err
}

// startTelemetry creates the metrics and serves them.
func (cs *components) startTelemetry(ctx context.Context, c config) error {
	server, err := telemetry.Listen(ctx, telemetry.Config{
		Address: c.MetricsAddress, OTLPEndpoint: c.OTLPEndpoint, OTLPProtocol: c.OTLPProtocol,
		Ready: func(context.Context) error { return cs.ready() },
	})
	if err != nil {
		return err
	}
	if cs.metrics, err = newMetrics(server.Meters(), c, cs.writer, sinkwriter.NewOutbox(cs.pool), rejected.New(cs.pool)); err != nil {
		return errors.Join(fmt.Errorf("set up metrics: %w", err), server.Close(ctx))
	}
	links := map[string]telemetry.Traffic{"database": cs.traffic}
	if cs.outputs != nil {
		links["stream"] = cs.outputs.traffic
	}
	if err := telemetry.ObserveLinks(server.Meters(), c.Cluster, links); err != nil {
		return errors.Join(fmt.Errorf("set up metrics: %w", err), server.Close(ctx))
	}
	cs.telemetry = server
	go func() {
		if err := server.Serve(); err != nil {
			cs.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelError, "metrics server failed; metrics and health are not served: check METRICS_ADDRESS and restart the process", slog.Any("err", err))
		}
	}()
	return nil
}

// pushLastMetrics pushes the last metrics, with a short timeout. It needs the database.
func (cs *components) pushLastMetrics(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	if err := cs.telemetry.Close(ctx); err != nil {
		cs.log.LogAttrs(ctx, slog.LevelWarn, "could not push the last metrics; they are lost: check OTEL_EXPORTER_OTLP_ENDPOINT", slog.Any("err", err))
	}
}

// ready returns why events cannot be committed now; nil if they can.
func (cs *components) ready() error {
	if err := cs.notReady.Load(); err != nil {
		return *err
	}
	return cs.writer.Ready()
}

// serve answers a request; with 503 until the database is ready.
func (cs *components) serve(w http.ResponseWriter, r *http.Request) {
	if err := cs.notReady.Load(); err != nil {
		cs.handler.AdvertiseBatch(w.Header())
		postpone(w, (*err).Error())
		return
	}
	cs.handler.ServeHTTP(w, r)
}

// awaitSchema checks the database until it has every migration.
func (cs *components) awaitSchema(ctx context.Context, c config) {
	logged := ""
	ticks := time.NewTicker(checkInterval)
	defer ticks.Stop()
	for {
		err := cs.prepareSchema(ctx, c)
		switch {
		case err == nil:
			cs.notReady.Store(nil)
			cs.log.LogAttrs(ctx, slog.LevelInfo, "ready")
			cs.warnOfTables(ctx, c)
			return
		case ctx.Err() != nil:
			return
		}
		cs.notReady.Store(&err)
		if text := err.Error(); text != logged {
			logged = text
			cs.log.LogAttrs(ctx, slog.LevelWarn, "database is not ready; retrying: see err", slog.Any("err", err))
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

func (cs *components) close(ctx context.Context) error {
	cs.log.LogAttrs(ctx, slog.LevelInfo, "functions stopping")
	drain, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	errs := []error{cs.handler.Drain(drain), cs.writer.Close(ctx)}
	cs.stopBackground()
	cs.background.Wait()
	if cs.outputs != nil {
		errs = append(errs, cs.outputs.close(ctx))
	}
	cs.pushLastMetrics(ctx)
	// Close waits for connections in use.
	closed := make(chan struct{})
	go func() {
		cs.pool.Close()
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
