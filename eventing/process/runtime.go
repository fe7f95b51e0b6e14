package process

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	funcgo "knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/functions"
)

// func-go silently ignores methods with a wrong signature.
var (
	_ funcgo.Handler           = (*Runtime)(nil)
	_ funcgo.Starter           = (*Runtime)(nil)
	_ funcgo.Stopper           = (*Runtime)(nil)
	_ funcgo.ReadinessReporter = (*Runtime)(nil)
	_ funcgo.LivenessReporter  = (*Runtime)(nil)
)

// Runtime runs functions as a process: func-go calls Start, then Handle for each
// request, then Stop. Create it with [New]. Handle, Ready and Alive are safe for
// concurrent use, at any time.
type Runtime struct {
	functions []functions.Function

	// mu serializes Start and Stop.
	mu      sync.Mutex
	stopped bool

	// components is nil until Start has returned.
	components atomic.Pointer[components]
}

// New returns a Runtime that is not started. [Runtime.Start] returns an error if a
// function is not declared correctly.
func New(fs ...functions.Function) *Runtime { return &Runtime{functions: fs} }

// Start reads the configuration from env and starts to serve. It does not wait for the
// database or for NATS. The error names every invalid variable and function.
//
// If env has TANDEM_COMMAND, Start runs that command and ends the process: package
// program lists the commands.
func (rt *Runtime) Start(ctx context.Context, env map[string]string) error {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.stopped {
		return errors.New("start functions: already stopped")
	}
	if rt.components.Load() != nil {
		return errors.New("start functions: already started")
	}
	runCommand(ctx, env, rt.functions)
	c, err := readConfig(ctx, env, rt.functions)
	if err != nil {
		return fmt.Errorf("start functions: %w", err)
	}
	telemetry.TuneCollector()
	cs, err := startComponents(ctx, c)
	if err != nil {
		return fmt.Errorf("start functions: %w", err)
	}
	rt.components.Store(cs)
	return nil
}

// Stop rejects new requests, waits for those under way and publishes their outputs,
// until ctx ends. Outputs that are not published by then stay in the outbox. Stop may be
// called without Start, and more than once.
func (rt *Runtime) Stop(ctx context.Context) error {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	cs := rt.components.Load()
	if rt.stopped || cs == nil {
		rt.stopped = true
		return nil
	}
	rt.stopped = true
	return cs.close(ctx)
}

// Handle answers a request; with 503 until Start has returned.
func (rt *Runtime) Handle(w http.ResponseWriter, r *http.Request) {
	cs := rt.components.Load()
	if cs == nil {
		postpone(w, "not started yet")
		return
	}
	cs.metrics.count(w, r, cs.serve)
}

// Ready reports whether the database has every migration, and no COMMIT has been unanswered
// for long. The error is the reason why not.
func (rt *Runtime) Ready(context.Context) (bool, error) {
	cs := rt.components.Load()
	if cs == nil {
		return false, nil
	}
	if err := cs.ready(); err != nil {
		return false, err
	}
	return true, nil
}

// Alive returns false if so many calls of functions hang that the process must be
// restarted.
func (rt *Runtime) Alive(context.Context) (bool, error) {
	cs := rt.components.Load()
	if cs == nil {
		return true, nil
	}
	if err := cs.handler.Alive(); err != nil {
		return false, err
	}
	return true, nil
}

// postpone answers 503 with a reason.
func postpone(w http.ResponseWriter, reason string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, strings.Join(strings.Fields(reason), " "), http.StatusServiceUnavailable)
}
