package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/relay"
	"github.com/tandem-fn/tandem/eventing/sink"
)

// outputs is the destination of outputs.
type outputs struct {
	publisher eventing.Publisher
	ready     func(context.Context) error
	where     string // for logs
}

// newOutputs returns the address for outputs, or else the stream.
func newOutputs(conn *jetstream.Conn, cfg config, logger *slog.Logger) (outputs, error) {
	if cfg.OutputSink != "" {
		p, err := sink.NewPublisher(cfg.OutputSink, sink.PublisherConfig{
			Sink: cfg.OutputConfig, Batch: cfg.OutputBatch, Logger: logger,
		})
		if err != nil {
			return outputs{}, fmt.Errorf("outputs: TANDEM_OUTPUT_SINK or K_SINK: %w", err)
		}
		return outputs{publisher: p, ready: func(context.Context) error { return p.Ready() }, where: p.URL()}, nil
	}
	stream := jetstream.ParseStream(cfg.OutputStream)
	stream.Replicas = cfg.Replicas
	p, err := jetstream.NewPublisher(conn, stream)
	if err != nil {
		return outputs{}, fmt.Errorf("outputs: %w", err)
	}
	return outputs{publisher: p, ready: p.Ready, where: stream.String()}, nil
}

// observedOutbox is the database's outbox. It remembers whether its latest pass failed;
// an output that could not be published is not such a failure.
type observedOutbox struct {
	database relay.Outbox
	failed   atomic.Pointer[error]
}

func (r *observedOutbox) Relay(ctx context.Context, publish func(context.Context, []event.Event) error) (published, rejected int, err error) {
	var unpublished atomic.Bool
	published, rejected, err = r.database.Relay(ctx, func(ctx context.Context, events []event.Event) error {
		err := publish(ctx, events)
		if err != nil {
			unpublished.Store(true)
		}
		return err
	})
	if err != nil && !unpublished.Load() {
		r.failed.Store(&err)
	} else {
		r.failed.Store(nil)
	}
	return published, rejected, err
}

// ready returns the function that returns why outputs are not relayed.
func (r *observedOutbox) ready(to outputs) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := r.failed.Load(); err != nil {
			return fmt.Errorf("relay outputs: %w", *err)
		}
		return to.ready(ctx)
	}
}
