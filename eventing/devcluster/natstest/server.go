// Package natstest runs NATS servers with JetStream inside a test's process, with their
// files in a folder of the test: a single server, clusters, clusters joined by
// gateways, and domains joined by leaf nodes. It can stop and restart servers, and cut
// the links between clusters.
package natstest

import (
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

// startTimeout bounds the start of a server.
const startTimeout = 60 * time.Second

// Server is a NATS server that the test may stop and restart at the same address and with
// the same files.
type Server struct {
	dir  string
	port int
	join func(*server.Options) // nil for a single server with usual options

	mu      sync.Mutex
	running *server.Server
	options *server.Options // of the latest start
}

// Start runs a single server until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()

	return start(tb, freePort(tb), nil)
}

// StartWith runs a single server with other options until the test ends.
func StartWith(tb testing.TB, change func(*server.Options)) *Server {
	tb.Helper()

	return start(tb, freePort(tb), change)
}

func start(tb testing.TB, port int, join func(*server.Options)) *Server {
	tb.Helper()

	s := &Server{dir: tb.TempDir(), port: port, join: join}
	s.Restart(tb)
	tb.Cleanup(s.Stop)
	return s
}

// URL returns the URL for clients, even while the server is stopped.
func (s *Server) URL() string { return "nats://" + loopback(s.port) }

// Running reports whether the server runs.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running != nil
}

// Stop stops the server and waits for its end.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return
	}
	s.running.Shutdown()
	s.running.WaitForShutdown()
	s.running = nil
}

// SetMaxPayload changes max_payload of the running server, which does not inform its
// clients.
func (s *Server) SetMaxPayload(tb testing.TB, bytes int32) {
	tb.Helper()

	s.mu.Lock()
	defer s.mu.Unlock()
	opts := *s.options
	opts.MaxPayload = bytes
	if err := s.running.ReloadOptions(&opts); err != nil {
		tb.Fatalf("reload NATS server: %v", err)
	}
}

// Restart starts the server, after stopping it if it runs.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()

	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	opts := &server.Options{
		Host: "127.0.0.1", Port: s.port,
		JetStream: true, StoreDir: s.dir,
		NoLog: true, NoSigs: true,
	}
	if s.join != nil {
		s.join(opts)
	}
	options := *opts
	s.options = &options
	srv, err := server.NewServer(opts)
	if err != nil {
		tb.Fatalf("make NATS server: %v", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		srv.Shutdown()
		tb.Fatalf("NATS server takes no connections on port %d", s.port)
	}
	addr, ok := srv.Addr().(*net.TCPAddr)
	if !ok {
		tb.Fatalf("NATS server listens on %v", srv.Addr())
	}
	s.port = addr.Port
	s.running = srv
}

// leads reports whether the server runs and leads the stream.
func (s *Server) leads(stream string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running != nil && s.running.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream)
}

// current reports whether the server runs and is up to date with the leader of its
// JetStream.
func (s *Server) current() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running != nil && s.running.JetStreamIsCurrent()
}

// peers returns the number of servers in its JetStream if it is the leader there, else 0.
func (s *Server) peers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil || !s.running.JetStreamIsLeader() {
		return 0
	}
	return len(s.running.JetStreamClusterPeers())
}

func (s *Server) leafs() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running.NumLeafNodes()
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort returns a port on which no process listens.
func freePort(tb testing.TB) int {
	tb.Helper()

	port, err := devcluster.FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	return port
}
