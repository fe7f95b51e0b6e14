package jetstream_test

import (
	"context"
	"testing"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/streamtest"
)

func TestStream(t *testing.T) {
	t.Parallel()

	streamtest.Run(t, func(t *testing.T) streamtest.Server { //nolint:thelper // it makes the server of a test
		return startServer(t)
	})
}

// server is a NATS server with the stream EVENTS.
type server struct{ *natstest.Server }

func startServer(t *testing.T) server {
	t.Helper()

	s := server{natstest.Start(t)}
	s.make(t)
	return s
}

func (s server) make(t *testing.T) {
	t.Helper()

	conn := connect(t, s.Server)
	eventtest.Eventually(t, "the stream is there", func() bool {
		return conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}) == nil
	})
}

func (s server) Connect(t *testing.T) streamtest.Process {
	t.Helper()

	return process{connect(t, s.Server)}
}

func (s server) StoreForeign(t *testing.T, data string) {
	t.Helper()

	if _, err := native(t, s.Server).Publish(t.Context(), "events.plain", []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func (s server) Recreate(t *testing.T) {
	t.Helper()

	if err := native(t, s.Server).DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	s.make(t)
}

type process struct{ conn *jetstream.Conn }

func (p process) Stream(t *testing.T, cluster string) eventing.Stream {
	t.Helper()

	stream, err := jetstream.NewStream(p.conn, cluster, "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func (p process) Publisher(t *testing.T) eventing.Publisher {
	t.Helper()

	return newPublisher(t, p.conn)
}

func (p process) Close() { _ = p.conn.Close(context.Background()) }
