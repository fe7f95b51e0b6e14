package natstest

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest/patience"
)

// Cluster is NATS servers joined by routes.
type Cluster struct {
	// Servers are all servers, including stopped ones.
	Servers []*Server
}

// StartCluster starts three servers that share one JetStream, and waits for a leader.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()

	c := startCluster(tb, "east", 3, func(int, *server.Options) {})
	awaitLeader(tb, c.Servers)
	return c
}

// StartSuperCluster starts clusters of three servers each, which gateways join into one
// JetStream, and waits for a leader. The gateways cross the link. A stream's placement
// selects its cluster.
func StartSuperCluster(tb testing.TB, names ...string) ([]*Cluster, *link.Link) {
	tb.Helper()

	const size = 3
	between := newLink(tb)
	ports := make([][]int, len(names))
	remotes := make([]*server.RemoteGatewayOpts, len(names))
	through := make([][]string, len(names))
	for i, name := range names {
		remotes[i] = &server.RemoteGatewayOpts{Name: name}
		for range size {
			port := freePort(tb)
			// Servers announce the addresses that they advertise, so that none finds a
			// way around the link.
			address := listen(tb, between, port)
			ports[i] = append(ports[i], port)
			through[i] = append(through[i], address)
			remotes[i].URLs = append(remotes[i].URLs, &url.URL{Scheme: "nats", Host: address})
		}
	}
	var clusters []*Cluster
	var all []*Server
	for i, name := range names {
		c := startCluster(tb, name, size, func(n int, o *server.Options) {
			o.Gateway = server.GatewayOpts{
				Name: name, Host: "127.0.0.1", Port: ports[i][n], Advertise: through[i][n],
				Gateways: remotes,
			}
		})
		clusters = append(clusters, c)
		all = append(all, c.Servers...)
	}
	awaitLeader(tb, all)
	return clusters, between
}

// StartDomains starts two servers, each with its own JetStream domain; the second is a leaf
// node of the first. Their connection crosses the link.
func StartDomains(tb testing.TB, first, second string) (*Server, *Server, *link.Link) {
	tb.Helper()

	between := newLink(tb)
	port := freePort(tb)
	address := listen(tb, between, port)
	hub := start(tb, freePort(tb), func(o *server.Options) {
		o.ServerName, o.JetStreamDomain = first, first
		o.LeafNode = server.LeafNodeOpts{Host: "127.0.0.1", Port: port, Advertise: address}
	})
	leaf := start(tb, freePort(tb), func(o *server.Options) {
		o.ServerName, o.JetStreamDomain = second, second
		o.LeafNode = server.LeafNodeOpts{
			Remotes:           []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats-leaf", Host: address}}}},
			ReconnectInterval: 100 * time.Millisecond,
		}
	})
	patience.Until(tb, "a leaf node that is connected", func() bool { return hub.leafs() == 1 && leaf.leafs() == 1 })
	awaitDomain(tb, hub, second)
	awaitDomain(tb, leaf, first)
	return hub, leaf, between
}

// awaitDomain waits until a server answers for a domain: it learns the domain of the
// other server a moment after the two are connected.
func awaitDomain(tb testing.TB, s *Server, domain string) {
	tb.Helper()

	js, err := natsjs.NewWithDomain(connect(tb, s.URL()), domain)
	if err != nil {
		tb.Fatal(err)
	}
	patience.Until(tb, "an answer for domain "+domain, func() bool {
		ctx, cancel := context.WithTimeout(tb.Context(), time.Second)
		defer cancel()
		_, err := js.AccountInfo(ctx)
		return err == nil
	})
}

func startCluster(tb testing.TB, name string, size int, join func(n int, o *server.Options)) *Cluster {
	tb.Helper()

	ports := make([]int, size)
	var routes []string
	for n := range ports {
		ports[n] = freePort(tb)
		routes = append(routes, "nats-route://"+loopback(ports[n]))
	}
	c := &Cluster{}
	for n := range size {
		c.Servers = append(c.Servers, start(tb, freePort(tb), func(o *server.Options) {
			o.ServerName = fmt.Sprintf("%s-%d", name, n)
			o.Cluster = server.ClusterOpts{Name: name, Host: "127.0.0.1", Port: ports[n]}
			o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
			join(n, o)
		}))
	}
	return c
}

// URL returns the URLs of all servers, separated by commas.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		urls[i] = s.URL()
	}
	return strings.Join(urls, ",")
}

// Leader waits until the stream has a leader in this cluster, and returns it and the other
// servers.
func (c *Cluster) Leader(tb testing.TB, stream string) (leader *Server, others []*Server) {
	tb.Helper()

	patience.Until(tb, "a leader of stream "+stream, func() bool {
		leader, others = nil, nil
		for _, s := range c.Servers {
			if leader == nil && s.leads(stream) {
				leader = s
			} else {
				others = append(others, s)
			}
		}
		return leader != nil
	})
	return leader, others
}

// awaitLeader waits until the servers have a leader that knows all of them, and all are
// up to date with it.
func awaitLeader(tb testing.TB, servers []*Server) {
	tb.Helper()

	patience.Until(tb, "a leader that knows all servers", func() bool {
		known := 0
		for _, s := range servers {
			if !s.current() {
				return false
			}
			known = max(known, s.peers())
		}
		return known == len(servers)
	})
}

// newLink returns a link that ends with the test, as do the connections that cross it.
func newLink(tb testing.TB) *link.Link {
	tb.Helper()

	l := link.New()
	tb.Cleanup(l.Close)
	return l
}

// listen returns an address from which connections cross the link to a port.
func listen(tb testing.TB, l *link.Link, port int) (address string) {
	tb.Helper()

	address, err := l.Listen(loopback(port))
	if err != nil {
		tb.Fatal(err)
	}
	return address
}
