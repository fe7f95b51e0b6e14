package natstest

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/internal/eventtest/patience"
)

// requestTimeout bounds one request of a test. A server in the test's process that waits for
// CPU time answers late.
const requestTimeout = time.Minute

// JetStream returns the JetStream API of nats.go at a URL, connected until the test ends.
// It reconnects after the connection is lost, and after a server did not answer in time.
// A request without a deadline has a minute.
func JetStream(tb testing.TB, url string) natsjs.JetStream {
	tb.Helper()

	js, err := natsjs.New(connect(tb, url), natsjs.WithDefaultTimeout(requestTimeout))
	if err != nil {
		tb.Fatal(err)
	}
	return js
}

func connect(tb testing.TB, url string) *nats.Conn {
	tb.Helper()

	var nc *nats.Conn
	patience.Until(tb, "a connection to "+url, func() bool {
		var err error
		nc, err = nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
		return err == nil
	})
	tb.Cleanup(nc.Close)
	return nc
}
