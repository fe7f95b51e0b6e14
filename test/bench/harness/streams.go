package harness

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// connectTimeout bounds the first connection to NATS.
const connectTimeout = time.Minute

// Streams are a NATS server and connections to it.
type Streams struct {
	Server *devcluster.NATS
	NC     *nats.Conn
	JS     natsjs.JetStream
	Conn   *jetstream.Conn // makes streams as Tandem does
}

// StartStreams starts NATS and waits until it answers. JS publishes up to ahead messages
// before the stream has answered. The server ends with its supervisor.
func StartStreams(ctx context.Context, sup *supervisor.Supervisor, cfg devcluster.NATSConfig, ahead int) (_ *Streams, err error) {
	s := &Streams{}
	defer func() {
		if err != nil {
			s.Close(ctx)
		}
	}()
	if s.Server, err = devcluster.StartNATS(ctx, sup, cfg); err != nil {
		return nil, err
	}
	if s.NC, err = nats.Connect(s.Server.URL()); err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	if s.JS, err = natsjs.New(s.NC, natsjs.WithPublishAsyncMaxPending(ahead)); err != nil {
		return nil, fmt.Errorf("set up JetStream: %w", err)
	}
	if s.Conn, err = jetstream.Connect(ctx, s.Server.URL(), jetstream.Config{Name: "bench"}); err != nil {
		return nil, err
	}
	return s, s.Conn.Wait(ctx, connectTimeout)
}

// Ensure makes streams that are missing.
func (s *Streams) Ensure(ctx context.Context, streams ...jetstream.StreamConfig) error {
	for _, cfg := range streams {
		if err := s.Conn.EnsureStream(ctx, cfg); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the connections.
func (s *Streams) Close(ctx context.Context) {
	if s.Conn != nil {
		_ = s.Conn.Close(ctx) // nothing waits to be sent
	}
	if s.NC != nil {
		s.NC.Close()
	}
}
