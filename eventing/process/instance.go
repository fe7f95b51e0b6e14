package process

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	runtime "knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/functions"
)

// Whatever func-go does not recognise it leaves out without a word.
var (
	_ runtime.Handler           = (*Instance)(nil)
	_ runtime.Starter           = (*Instance)(nil)
	_ runtime.Stopper           = (*Instance)(nil)
	_ runtime.ReadinessReporter = (*Instance)(nil)
	_ runtime.LivenessReporter  = (*Instance)(nil)
)

// Instance serves functions, as func-go has it: make it with [New], then Start.
// Handle, Ready and Alive may be called at any time, and concurrently.
type Instance struct {
	functions []functions.Function

	// mu makes Start and Stop take turns.
	mu      sync.Mutex
	stopped bool

	// parts is nil until Start is done.
	parts atomic.Pointer[parts]
}

// New makes an Instance of functions that is not started. What is wrong with how
// they are declared, Start says.
func New(fs ...functions.Function) *Instance { return &Instance{functions: fs} }

// Start reads the configuration from env and begins to serve. It does not wait
// for the database nor for NATS. An error says what is wrong with the
// configuration or the functions, and where.
//
// If env has TANDEM_COMMAND, Start runs that command and ends the process: package
// program explains which there are.
func (i *Instance) Start(ctx context.Context, env map[string]string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped {
		return errors.New("start functions: already stopped")
	}
	if i.parts.Load() != nil {
		return errors.New("start functions: already started")
	}
	runCommand(ctx, env, i.functions)
	c, err := readConfig(ctx, env, i.functions)
	if err != nil {
		return fmt.Errorf("start functions: %w", err)
	}
	telemetry.TuneCollector()
	p, err := start(ctx, c)
	if err != nil {
		return fmt.Errorf("start functions: %w", err)
	}
	i.parts.Store(p)
	return nil
}

// Stop refuses new requests, waits for those under way, and sees to it that their
// outputs are published, for as long as ctx allows. What is not published by then
// waits in the outbox. It may be called without Start, and more than once.
func (i *Instance) Stop(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.parts.Load()
	if i.stopped || p == nil {
		i.stopped = true
		return nil
	}
	i.stopped = true
	return p.close(ctx)
}

// Handle answers a request, before Start is done with 503.
func (i *Instance) Handle(w http.ResponseWriter, r *http.Request) {
	p := i.parts.Load()
	if p == nil {
		postpone(w, "not started yet")
		return
	}
	p.metrics.count(w, r, p.answer)
}

// Ready says whether the database has been found fit. The error says why not.
func (i *Instance) Ready(context.Context) (bool, error) {
	p := i.parts.Load()
	if p == nil {
		return false, nil
	}
	if err := p.unfit.Load(); err != nil {
		return false, *err
	}
	return true, nil
}

// Alive is false when calls of functions hang in such a number that only a new
// process helps.
func (i *Instance) Alive(context.Context) (bool, error) {
	p := i.parts.Load()
	if p == nil {
		return true, nil
	}
	if err := p.handler.Alive(); err != nil {
		return false, err
	}
	return true, nil
}

// postpone answers 503.
func postpone(w http.ResponseWriter, reason string) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, strings.Join(strings.Fields(reason), " "), http.StatusServiceUnavailable)
}
