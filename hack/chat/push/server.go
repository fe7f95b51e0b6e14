package push

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
)

//go:embed page
var page embed.FS

// Server serves the page, and its websockets. It is safe for concurrent use.
type Server struct {
	cfg     Config
	hosts   []string
	hub     *hub
	poster  *poster
	handler http.Handler

	ctx context.Context //nolint:containedctx // ends all websockets
	end context.CancelFunc

	mu      sync.Mutex
	closed  bool
	sockets int
	work    sync.WaitGroup
}

// New returns a server that pushes nothing until [Server.Follow] is called. It
// returns an error if cfg is invalid.
func New(ctx context.Context, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	hosts, err := cfg.hosts()
	if err != nil {
		return nil, fmt.Errorf("set up push: %w", err)
	}
	files, err := fs.Sub(page, "page")
	if err != nil {
		return nil, err
	}
	sides, err := json.Marshal(cfg.Sides)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, hosts: hosts, hub: newHub(cfg.History),
		poster: &poster{url: cfg.IngestURL, timeout: cfg.PostTimeout, client: &http.Client{}},
	}
	s.ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /sides", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(sides)
	})
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /ws", s.open)
	s.handler = mux
	return s, nil
}

// ServeHTTP serves the page at /, its websocket at /ws and, for the program
// that starts it, /health.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Against DNS rebinding: a foreign page whose host name resolves to this
	// server would have the same origin.
	if !slices.Contains(s.hosts, r.Host) {
		http.Error(w, "there is no "+r.Host+" here: want one of "+strings.Join(s.hosts, ", "), http.StatusMisdirectedRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	s.handler.ServeHTTP(w, r)
}

// Close ends all websockets and waits for that, within ctx.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close push: websockets are still open: %w", ctx.Err())
	}
}

// enter reports whether there is room for another websocket. If it returns true,
// call leave later.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.sockets >= s.cfg.Connections {
		return false
	}
	s.sockets++
	s.work.Add(1)
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets--
	s.work.Done()
}
