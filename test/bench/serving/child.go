package serving

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"

	"github.com/cloudevents/sdk-go/v2/event"
	runtimehttp "knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/test/bench/harness"
)

// The variables that make a process of this program a server: which one, and the
// file for a profile.
const (
	childVariable   = "TANDEM_BENCH_SERVE"
	profileVariable = "TANDEM_BENCH_SERVE_PROFILE"
)

// Child must be the first call of a program that calls [Run]. If the process was
// started as a server, Child serves until standard input ends, and returns true.
func Child() bool {
	row := os.Getenv(childVariable)
	if row == "" {
		return false
	}
	if err := serveRow(row, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "serve %s: %v\n", row, err)
		os.Exit(1)
	}
	return true
}

// serveRow prints its address, and then, for each line of commands, its resource
// usage so far.
func serveRow(row string, commands io.Reader, answers io.Writer) error {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server, err := newServer(row)
	if err != nil {
		return err
	}
	go server.Serve(listener) //nolint:errcheck // it ends with the process
	if _, err := fmt.Fprintln(answers, listener.Addr()); err != nil {
		return err
	}
	if file := os.Getenv(profileVariable); file != "" {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // an incomplete profile is visible to its reader
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	for lines := bufio.NewScanner(commands); lines.Scan(); {
		if err := json.NewEncoder(answers).Encode(used()); err != nil {
			return err
		}
	}
	return nil
}

// server is an http.Server, or func's.
type server interface{ Serve(net.Listener) error }

func newServer(row string) (server, error) {
	if row == RowBare {
		return &http.Server{Handler: http.HandlerFunc(bare)}, nil //nolint:gosec // bare: no limits
	}
	f := flights.Function()
	if row != rowFlights {
		// Only the path to the function and back is measured.
		f.Handle = func(context.Context, event.Event) (functions.Effects, error) { return functions.Effects{}, nil }
	}
	h, err := serve.New([]functions.Function{f}, nothing{}, serve.Config{Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil))})
	if err != nil {
		return nil, err
	}
	return runtimehttp.New(endpoint{h}), nil
}

// endpoint adapts the handler to func's server.
type endpoint struct{ h *serve.Handler }

// Handle implements func-go's Handler.
func (e endpoint) Handle(w http.ResponseWriter, r *http.Request) { e.h.ServeHTTP(w, r) }

// bare reads the body and answers 204.
func bare(w http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(r.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// nothing is a committer that commits nothing and returns immediately.
type nothing struct{}

var key = ledger.NewKey("flights", "/tandem/flights-2001", "flight-2001-000001")

// Commit implements [serve.Committer].
func (nothing) Commit(context.Context, sinkwriter.Offer) (sinkwriter.Receipt, error) {
	return sinkwriter.Receipt{Won: true, Key: key}, nil
}

// CommitAll implements [serve.Committer].
func (nothing) CommitAll(_ context.Context, offers []sinkwriter.Offer) []sinkwriter.Outcome {
	outcomes := make([]sinkwriter.Outcome, len(offers))
	for i := range outcomes {
		outcomes[i].Receipt = sinkwriter.Receipt{Won: true, Key: key}
	}
	return outcomes
}

// usage is the resource usage of a server since its start.
type usage struct {
	Mallocs uint64
	CPU     int64 // nanoseconds
	RSS     int64 // bytes, now; 0 if it is not known
}

func used() usage {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	rss, _, _ := harness.Resident(os.Getpid())
	return usage{Mallocs: memory.Mallocs, CPU: cpuTime(), RSS: rss}
}

// cpuTime returns the processor time of this process, in nanoseconds.
func cpuTime() int64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return r.Utime.Nano() + r.Stime.Nano()
}
