// Package natstest runs a NATS server with JetStream inside a test's process,
// with its files in a folder of the test, and can stop and start it again.
package natstest

import (
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Server is a NATS server that the test may stop and start again under the same
// address and with the same files.
type Server struct {
	dir  string
	port int

	mu      sync.Mutex
	running *server.Server
}

// Start runs a server until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()

	s := &Server{dir: tb.TempDir(), port: server.RANDOM_PORT}
	s.Restart(tb)
	tb.Cleanup(func() { s.Stop() })
	return s
}

// URL is where clients connect to, also while the server is stopped.
func (s *Server) URL() string {
	return "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}

// Stop ends the server and waits until it is gone.
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

// Restart starts the server, after stopping it if it runs.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()

	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: s.port,
		JetStream: true, StoreDir: s.dir,
		NoLog: true, NoSigs: true,
	})
	if err != nil {
		tb.Fatalf("make NATS server: %v", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
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
