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
)

const (
	// checkInterval is how often a database that is not fit is looked at again.
	checkInterval = 250 * time.Millisecond

	// checkTimeout bounds one look.
	checkTimeout = 5 * time.Second

	// drainTimeout bounds the wait for requests under way when the instance is
	// stopped. The server has waited for them before; what is left of its 30 s
	// goes to the outbox.
	drainTimeout = 10 * time.Second

	// metricsTimeout bounds how long an instance that is stopped tries to push its
	// last metrics.
	metricsTimeout = 2 * time.Second
)

// parts are what an instance consists of once it is started.
type parts struct {
	log     *slog.Logger
	pool    *pgxpool.Pool
	writer  *sinkwriter.Writer
	handler *serve.Handler
	outputs *outputs // nil without NATS_URL, or if a sink takes the outputs
	ops     *telemetry.Server
	metrics *metrics
	traffic telemetry.Traffic // with the database

	stop context.CancelFunc // ends what runs in the background
	done sync.WaitGroup

	// unfit is why the database cannot be used yet; it holds nil from the
	// moment that it can.
	unfit atomic.Pointer[error]
}

func start(ctx context.Context, c config) (*parts, error) {
	p := &parts{log: c.logger()}
	unchecked := errors.New("the database has not been looked at yet")
	p.unfit.Store(&unchecked)
	var err error
	if p.pool, p.traffic, err = newPool(ctx, c); err != nil {
		return nil, err
	}
	// Start's context is its caller's; what goes on afterwards has its own end.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	if c.NATSURL != "" && c.outputs == nil {
		p.outputs = &outputs{log: p.log}
	}
	err = p.join(c)
	if err == nil {
		err = p.show(ctx, c)
	}
	if err != nil {
		stop()
		p.pool.Close()
		return nil, err
	}
	p.done.Go(func() { p.awaitSchema(background, c) })
	if p.outputs != nil {
		p.done.Go(func() { p.outputs.connect(background, c) })
	}
	names := make([]string, len(c.picked))
	for i, f := range c.picked {
		names[i] = f.Name
	}
	p.log.LogAttrs(ctx, slog.LevelInfo, "functions started", slog.Any("functions", names), slog.Bool("publishing", p.outputs != nil || c.outputs != nil))
	c.saySenders(ctx, p.log)
	return p, nil
}

// join makes the writer and the handler.
func (p *parts) join(c config) error {
	config := sinkwriter.Config{Cluster: c.Cluster, Logger: p.log}
	if p.outputs != nil {
		config.Publisher = p.outputs
	}
	if c.outputs != nil {
		config.Publisher = c.outputs
	}
	var err error
	if p.writer, err = sinkwriter.New(p.pool, config); err != nil {
		return err
	}
	p.handler, err = serve.New(c.picked, committer{p.writer}, serve.Config{
		MaxBytes:    c.MaxEventBytes,
		DeadLetters: deadLetters{sinkwriter.NewDeadLetters(p.pool, c.Cluster)},
		Gate:        c.gate,
		Logger:      p.log,
	})
	return err
}

// show makes the metrics, and takes the address that they are served at.
func (p *parts) show(ctx context.Context, c config) error {
	server, err := telemetry.Listen(ctx, telemetry.Config{
		Address: c.MetricsAddress, OTLPEndpoint: c.OTLPEndpoint, OTLPProtocol: c.OTLPProtocol,
		Ready: func(context.Context) error {
			if err := p.unfit.Load(); err != nil {
				return *err
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	if p.metrics, err = newMetrics(server.Meters(), c, p.writer, sinkwriter.NewOutbox(p.pool)); err != nil {
		return errors.Join(fmt.Errorf("set up metrics: %w", err), server.Close(ctx))
	}
	links := map[string]telemetry.Traffic{"database": p.traffic}
	if p.outputs != nil {
		links["stream"] = p.outputs.traffic
	}
	if err := telemetry.ObserveLinks(server.Meters(), c.Cluster, links); err != nil {
		return errors.Join(fmt.Errorf("set up metrics: %w", err), server.Close(ctx))
	}
	p.ops = server
	go func() {
		if err := server.Serve(); err != nil {
			p.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelError, "metrics are not served any more", slog.Any("err", err))
		}
	}()
	return nil
}

// sayLast pushes the last metrics, while there is a database to look at. Nobody
// waits long for that.
func (p *parts) sayLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, metricsTimeout)
	defer cancel()
	if err := p.ops.Close(ctx); err != nil {
		p.log.LogAttrs(ctx, slog.LevelWarn, "the last metrics were not pushed", slog.Any("err", err))
	}
}

// answer answers a request.
func (p *parts) answer(w http.ResponseWriter, r *http.Request) {
	if err := p.unfit.Load(); err != nil {
		postpone(w, (*err).Error())
		return
	}
	p.handler.ServeHTTP(w, r)
}

// awaitSchema looks at the database until it has every migration.
func (p *parts) awaitSchema(ctx context.Context, c config) {
	said := ""
	ticks := time.NewTicker(checkInterval)
	defer ticks.Stop()
	for {
		err := p.look(ctx, c)
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
	p.sayLast(ctx)
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
