package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/sink"
)

// newSinkPublisher returns the publisher of outputs over HTTP; nil if they are not sent
// over HTTP. The error names the invalid variable.
func newSinkPublisher(c config) (*sink.Publisher, error) {
	if c.OutputBatch < 1 || c.OutputBatch > 1000 {
		return nil, fmt.Errorf("TANDEM_OUTPUT_BATCH %d: want 1 to 1000", c.OutputBatch)
	}
	if c.OutputMaxBytes < 0 {
		return nil, fmt.Errorf("TANDEM_OUTPUT_MAX_BYTES %d: want 0, which is no limit, or more", c.OutputMaxBytes)
	}
	overrides, err := sink.ParseOverrides(c.Overrides)
	if err != nil {
		return nil, fmt.Errorf("K_CE_OVERRIDES: %w", err)
	}
	address, cfg := sink.ForOutputs(c.OutputSink, c.Sink, sink.Config{
		CACerts: c.CACerts, TokenFile: sink.TokenFile, Overrides: overrides,
	})
	if address == "" {
		return nil, nil //nolint:nilnil // that there is none is an answer
	}
	publisher, err := sink.NewPublisher(address, sink.PublisherConfig{Sink: cfg, Batch: c.OutputBatch, MaxEventBytes: c.OutputMaxBytes, Logger: c.logger()})
	if err != nil {
		return nil, fmt.Errorf("TANDEM_OUTPUT_SINK or K_SINK, K_CA_CERTS, K_CE_OVERRIDES: %w", err)
	}
	return publisher, nil
}

// outputs publishes to a stream once there is a connection. Until then the outputs stay
// in the outbox.
type outputs struct {
	log       *slog.Logger
	connected chan struct{} // closed when connect has returned
	conn      atomic.Pointer[jetstream.Conn]
	publisher atomic.Pointer[jetstream.Publisher]
}

// checkOutputTimeout bounds how long checking an output waits for the first connection.
const checkOutputTimeout = 2 * time.Second

var errNotConnected = errors.New("publish outputs: not connected to NATS yet")

// Publish implements [sinkwriter.Publisher].
func (o *outputs) Publish(ctx context.Context, events []event.Event) error {
	p := o.publisher.Load()
	if p == nil {
		return errNotConnected
	}
	return p.Publish(ctx, events)
}

// Check returns why the stream can never accept an output; nil if no reason is known.
func (o *outputs) Check(ctx context.Context, e event.Event) error {
	p := o.publisher.Load()
	if p == nil {
		select { // the process has just started
		case <-o.connected:
		case <-time.After(checkOutputTimeout):
		case <-ctx.Done():
		}
		if p = o.publisher.Load(); p == nil {
			return nil
		}
	}
	return p.Check(ctx, e)
}

func (o *outputs) connect(ctx context.Context, c config) {
	defer close(o.connected)
	conn, err := jetstream.Connect(ctx, c.NATSURL, jetstream.Config{Name: "tandem-function-" + c.Cluster, Logger: o.log})
	if err == nil {
		o.conn.Store(conn)
		stream := jetstream.ParseStream(c.OutputStream)
		stream.Replicas = c.Replicas
		var publisher *jetstream.Publisher
		if publisher, err = jetstream.NewPublisher(conn, stream); err == nil {
			o.publisher.Store(publisher)
			return
		}
	}
	o.log.LogAttrs(ctx, slog.LevelError, "outputs cannot be published from here and are left to the relay: check NATS_URL and TANDEM_OUTPUT_STREAM", slog.Any("err", err))
}

// traffic returns how many bytes were transferred over the connection.
func (o *outputs) traffic() (received, sent uint64) {
	if conn := o.conn.Load(); conn != nil {
		return conn.Traffic()
	}
	return 0, 0
}

func (o *outputs) close(ctx context.Context) error {
	if conn := o.conn.Load(); conn != nil {
		return conn.Close(ctx)
	}
	return nil
}
