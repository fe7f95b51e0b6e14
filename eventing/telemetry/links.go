package telemetry

import (
	"context"
	"net"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Traffic returns how many bytes were received and sent since the process started.
type Traffic func() (received, sent uint64)

// ObserveLinks creates the counter tandem_link_bytes_total, with the labels peer and
// direction, of the bytes over a process's connections to the servers that all clusters
// share. If these are in another data centre, it counts the bytes between the sites.
// The keys of links are names of peers. The error is the provider's.
func ObserveLinks(provider metric.MeterProvider, cluster string, links map[string]Traffic) error {
	_, err := provider.Meter("github.com/tandem-fn/tandem/eventing/telemetry").Int64ObservableCounter("tandem_link", metric.WithUnit("By"),
		metric.WithDescription("Bytes over the connections to the database and the stream, which all clusters share."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for peer, traffic := range links {
				received, sent := traffic()
				for direction, n := range map[string]uint64{"received": received, "sent": sent} {
					o.Observe(int64(n), metric.WithAttributes(attribute.String("cluster", cluster),
						attribute.String("peer", peer), attribute.String("direction", direction)))
				}
			}
			return nil
		}))
	return err
}

// Dial opens a connection, like [net.Dialer.DialContext].
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Counted returns dial, and the traffic over the connections that it has opened.
func Counted(dial Dial) (Dial, Traffic) {
	var received, sent atomic.Uint64
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: c, received: &received, sent: &sent}, nil
	}, func() (uint64, uint64) { return received.Load(), sent.Load() }
}

type countedConn struct {
	net.Conn
	received, sent *atomic.Uint64
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Add(uint64(n))
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(uint64(n))
	return n, err
}
