package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/test/bench/harness"
)

// Names of the rows that are measured on a real instance.
const (
	RowInstance = "instance"
	RowSoak     = "soak"
)

// Program builds the instance into a folder, as for an image, and returns its file,
// and its size in bytes stripped and with symbols. The instance is the result of
// func's scaffolding for this repository's functions.
func Program(ctx context.Context, dir string) (file string, stripped, symbols int64, err error) {
	size := func(name string, args ...string) (string, int64, error) {
		file := filepath.Join(dir, name)
		build := exec.CommandContext(ctx, "go", append([]string{"build", "-buildvcs=false", "-trimpath", "-o", file}, args...)...)
		build.Args = append(build.Args, "github.com/tandem-fn/tandem/hack/serve")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", 0, fmt.Errorf("build the instance: %w: %s", err, bytes.TrimSpace(out))
		}
		info, err := os.Stat(file)
		if err != nil {
			return "", 0, fmt.Errorf("build the instance: %w", err)
		}
		return file, info.Size(), nil
	}
	if _, symbols, err = size("symbols"); err != nil {
		return "", 0, 0, err
	}
	file, stripped, err = size("serve", "-ldflags=-s -w")
	return file, stripped, symbols, err
}

// InstanceOptions configure the measurement of an instance.
type InstanceOptions struct {
	Program     string // its file
	DatabaseURL string // with all migrations; rows are written
	Starts      int    // how often it is started
	Requests    int
	Connections int

	Now      func() time.Time
	Progress func(format string, args ...any)
}

// InstanceReport is the measurement of an instance. Memory is resident, in MiB;
// zero if the system does not count it.
type InstanceReport struct {
	Row               string  `json:"row"`
	Ready             float64 `json:"start_to_ready_ms"` // median
	ReadyLowest       float64 `json:"start_to_ready_lowest_ms"`
	ReadyHighest      float64 `json:"start_to_ready_highest_ms"`
	Starts            int     `json:"starts"`
	Idle              float64 `json:"idle_mib"`
	Highest           float64 `json:"under_load_mib"`
	Requests          int     `json:"requests"`
	Connections       int     `json:"connections"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	P50               float64 `json:"p50_ms"`
	P99               float64 `json:"p99_ms"`
	Max               float64 `json:"max_ms"`
	Stripped          float64 `json:"binary_mib,omitempty"`
	Symbols           float64 `json:"binary_with_symbols_mib,omitempty"`
}

// Instance starts an instance several times, and sends distinct events to the last
// one, which commits them. An answer other than 204, or none within half a minute, is
// an error.
func Instance(ctx context.Context, o InstanceOptions) (InstanceReport, error) {
	report := InstanceReport{Starts: o.Starts, Requests: o.Requests, Connections: o.Connections}
	var times []float64
	for n := range o.Starts {
		i, took, err := o.start(ctx)
		if err != nil {
			return report, err
		}
		times = append(times, float64(took)/float64(time.Millisecond))
		if n == o.Starts-1 {
			err = o.use(ctx, i, &report)
		}
		if err = errors.Join(err, i.stop()); err != nil {
			return report, err
		}
	}
	report.Ready, report.ReadyLowest, report.ReadyHighest = rounded(median(times), 1), rounded(slices.Min(times), 1), rounded(slices.Max(times), 1)
	return report, nil
}

// use measures a running instance.
func (o InstanceOptions) use(ctx context.Context, i *running, report *InstanceReport) error {
	select { // it was busy until now
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	pid := i.cmd.Process.Pid
	idle, _, err := harness.Resident(pid)
	if err == nil {
		report.Idle = mib(idle)
	}
	l := &load{address: i.address, connections: min(o.Connections, o.Requests), requests: o.Requests, patience: patience, now: o.Now, request: distinct(i.address, o.Connections)}
	outcome, err := l.run(ctx)
	if err != nil {
		return fmt.Errorf("%w\nlog of the instance:\n%s", err, i.said())
	}
	if _, highest, err := harness.Resident(pid); err == nil {
		report.Highest = mib(highest)
	}
	report.RequestsPerSecond = rounded(float64(o.Requests)/outcome.elapsed.Seconds(), 0)
	ms := func(d time.Duration) float64 { return rounded(micros(d)/1000, 1) }
	report.P50, report.P99, report.Max = ms(outcome.latencies.quantile(0.5)), ms(outcome.latencies.quantile(0.99)), ms(outcome.latencies.max)
	return nil
}

func mib(n int64) float64 { return rounded(float64(n)/(1<<20), 1) }

// distinct returns requests with distinct ids.
func distinct(address string, connections int) func(connection, n int) []byte {
	const digits = "000000000"
	template := post(address, strings.Replace(attributes, "2001-000001", digits, 1), data)
	at := bytes.Index(template, []byte(digits))
	requests := make([][]byte, connections)
	for c := range requests {
		requests[c] = bytes.Clone(template)
	}
	return func(connection, n int) []byte {
		request := requests[connection]
		for i := len(digits) - 1; i >= 0; i-- {
			request[at+i] = byte('0' + n%10)
			n /= 10
		}
		return request
	}
}

// running is a running instance.
type running struct {
	cmd     *exec.Cmd
	address string
	log     bytes.Buffer
}

// said returns the end of its log. Call it only when the instance has ended or is idle.
func (i *running) said() string {
	log := i.log.String()
	return log[max(0, len(log)-4096):]
}

// start starts an instance and returns how long it took until it was ready.
func (o InstanceOptions) start(ctx context.Context) (*running, time.Duration, error) {
	port, err := devcluster.FreePort()
	if err != nil {
		return nil, 0, err
	}
	server, _ := cores()
	i := &running{cmd: exec.CommandContext(ctx, o.Program), address: fmt.Sprintf("127.0.0.1:%d", port)}
	i.cmd.Env = []string{
		"TANDEM_CLUSTER=east", "DATABASE_URL=" + o.DatabaseURL, "LISTEN_ADDRESS=" + i.address,
		"PATH=" + os.Getenv("PATH"), fmt.Sprintf("GOMAXPROCS=%d", max(server, 2)),
	}
	i.cmd.Stderr = &i.log
	begin := o.Now()
	if err := i.cmd.Start(); err != nil {
		return nil, 0, fmt.Errorf("start the instance: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	for {
		switch ready, err := isReady(ctx, client, i.address); {
		case ready:
			return i, o.Now().Sub(begin), nil
		case ctx.Err() != nil, o.Now().Sub(begin) > patience:
			return nil, 0, errors.Join(fmt.Errorf("the instance is not ready after %s: %w", patience, err), i.stop(), errors.New(i.said()))
		}
		time.Sleep(500 * time.Microsecond)
	}
}

func isReady(ctx context.Context, client *http.Client, address string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/health/readiness", http.NoBody)
	if err != nil {
		return false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1024))
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s: %s", resp.Status, text)
	}
	return true, nil
}

// stop ends it as Kubernetes does.
func (i *running) stop() error {
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the instance: %w", err)
	}
	kill := time.AfterFunc(2*patience, func() { _ = i.cmd.Process.Kill() })
	defer kill.Stop()
	if err := i.cmd.Wait(); err != nil {
		return fmt.Errorf("the instance ended with %w:\n%s", err, i.said())
	}
	return nil
}

// The goals for an instance.
const (
	readyAtMost  = 150 // ms
	idleAtMost   = 40  // MiB
	binaryAtMost = 25  // MiB
)

// FormatInstance formats a report for people.
func FormatInstance(r InstanceReport) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: the real one on a database, %d connections, distinct events; %s\n", r.Row, r.Connections, runtime.Version())
	fmt.Fprintf(&text, "  %d requests, all answered 204: %.0f a second; p50 %.1f ms, p99 %.1f ms, longest %.1f ms\n", r.Requests, r.RequestsPerSecond, r.P50, r.P99, r.Max)
	fmt.Fprintf(&text, "  start to ready in %.1f ms (%.1f to %.1f in %d starts); resident %.1f MiB idle, at most %.1f MiB under load\n",
		r.Ready, r.ReadyLowest, r.ReadyHighest, r.Starts, r.Idle, r.Highest)
	if r.Stripped > 0 {
		fmt.Fprintf(&text, "  the binary has %.1f MiB, %.1f MiB with symbols\n", r.Stripped, r.Symbols)
	}
	text.WriteString(goal("start to ready, ms", r.Ready, readyAtMost, r.Ready <= readyAtMost, "at most"))
	if r.Idle > 0 {
		text.WriteString(goal("resident when idle, MiB", r.Idle, idleAtMost, r.Idle <= idleAtMost, "at most"))
	}
	if r.Stripped > 0 {
		text.WriteString(goal("binary, MiB", r.Stripped, binaryAtMost, r.Stripped <= binaryAtMost, "at most"))
	}
	return text.String()
}
