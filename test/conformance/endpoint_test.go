package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
	runtime "knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/test/conformance"
)

// serving is the variable that makes this binary the endpoint.
const serving = "TANDEM_CONFORMANCE_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serving) == "" {
		os.Exit(m.Run())
	}
	// As func's scaffolding does.
	if err := runtime.Start(process.New(conformance.Function())); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// endpoint is an instance in a process of its own.
type endpoint struct {
	address string
	db      *pgx.Conn
}

// start starts an endpoint, with a database of its own, until the test ends.
func start(tb testing.TB) *endpoint {
	tb.Helper()

	databaseURL := pgtest.URL(tb)
	f := conformance.Function()
	if err := schema.Migrate(tb.Context(), databaseURL, schema.MigrationSet{Name: f.Name, Files: f.Migrations}); err != nil {
		tb.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	e := &endpoint{address: listener.Addr().String()}
	_ = listener.Close() // the process will listen there

	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	var log bytes.Buffer
	process := exec.CommandContext(context.WithoutCancel(tb.Context()), self)
	process.Stderr = &log
	process.Env = append(os.Environ(), serving+"=true", "TANDEM_CLUSTER=east", "DATABASE_URL="+databaseURL, "LISTEN_ADDRESS="+e.address)
	if err := process.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(30*time.Second, func() { _ = process.Process.Kill() })
		defer kill.Stop()
		if err := process.Wait(); err != nil {
			tb.Errorf("the endpoint ended with %v", err)
		}
		if tb.Failed() {
			tb.Logf("the endpoint's log:\n%s", log.String())
		}
	})
	e.awaitReady(tb)

	if e.db, err = pgx.Connect(tb.Context(), databaseURL); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = e.db.Close(context.WithoutCancel(tb.Context())) })
	return e
}

func (e *endpoint) awaitReady(tb testing.TB) {
	tb.Helper()

	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, "http://"+e.address+"/health/readiness", http.NoBody)
		if err != nil {
			tb.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("readiness is %s", resp.Status)
		}
		if time.Now().After(deadline) {
			tb.Fatalf("not ready after a minute: %v", err)
		}
	}
}

// forget deletes the stored events, because scenarios use the same identities.
func (e *endpoint) forget(ctx context.Context) error {
	_, err := e.db.Exec(ctx, "truncate seen, tandem.ledger")
	return err
}

// seen returns the single event that the function received.
func (e *endpoint) seen(ctx context.Context) (attributes map[string]string, data string, err error) {
	rows, err := e.db.Query(ctx, "select attributes, coalesce(data, '') from seen")
	if err != nil {
		return nil, "", err
	}
	type row struct {
		Attributes string
		Data       []byte
	}
	one, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return nil, "", fmt.Errorf("what the function was given: %w", err)
	}
	err = json.Unmarshal([]byte(one.Attributes), &attributes)
	return attributes, string(one.Data), err
}

// module returns the folder of the conformance tests' module.
func module(tb testing.TB) string {
	tb.Helper()

	list := exec.CommandContext(tb.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cloudevents/conformance")
	out, err := list.Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		tb.Fatalf("where the module of the conformance tests is: %q, %v", dir, err)
	}
	return dir
}

// files returns the files under a folder of the conformance tests.
func files(tb testing.TB, patterns ...string) []string {
	tb.Helper()

	var all []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(module(tb), pattern))
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}
