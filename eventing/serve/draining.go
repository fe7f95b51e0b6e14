package serve

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/tandem-fn/tandem/eventing/outcome"
)

// draining makes every answer state that the process is shutting down, as soon as its
// server does: an event whose connection breaks then did not end the process.
type draining struct {
	followed sync.Once
	begun    atomic.Bool
}

// follow begins the draining when the server that serves r shuts down.
func (d *draining) follow(r *http.Request) {
	d.followed.Do(func() {
		if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
			server.RegisterOnShutdown(d.begin)
		}
	})
}

func (d *draining) begin() { d.begun.Store(true) }

// announce sets the header of an answer while the process is shutting down.
func (d *draining) announce(header http.Header) {
	if d.begun.Load() {
		header[outcome.DrainingHeader] = []string{"true"}
	}
}
