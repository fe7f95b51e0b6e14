package func_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

// patience bounds actions that are immediate on a machine without other load.
const patience = time.Minute

// process is a running function.
type process struct {
	url  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of its exit; read it after done
	said lockedBuffer
}

// lockedBuffer stores the output of a process.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns the output so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// freeAddress returns an address on which no process listens.
func freeAddress(t *testing.T) string {
	t.Helper()

	port, err := devcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// start starts cmd, which serves at address, and waits until it is ready. It is
// killed, with its children, when the test ends.
func start(t *testing.T, cmd *exec.Cmd, address string) *process {
	t.Helper()

	p := &process{url: "http://" + address, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.said, &p.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	})
	deadline := time.After(buildTimeout) // some commands build first
	for {
		if answer, err := get(t.Context(), p.url+"/health/readiness"); err == nil && answer == "READY" {
			return p
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended: %v\n%s", cmd, p.err, p.said.String())
		case <-deadline:
			t.Fatalf("%s is not ready\n%s", cmd, p.said.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// serve starts a program that build has built.
func serve(t *testing.T, program, databaseURL string, more ...string) *process {
	t.Helper()

	address := freeAddress(t)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "LISTEN_ADDRESS="+address, "TANDEM_CLUSTER=east", "DATABASE_URL="+databaseURL, "TANDEM_MIGRATE=true")
	cmd.Env = append(cmd.Env, more...)
	return start(t, cmd, address)
}

// terminate sends SIGTERM and waits for an exit without an error.
func (p *process) terminate(t *testing.T) {
	t.Helper()

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("still running %s after SIGTERM\n%s", patience, p.said.String())
	}
	if p.err != nil {
		t.Errorf("after SIGTERM it ended with %v\n%s", p.err, p.said.String())
	}
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// post sends an event in binary mode, with the same bytes as func invoke.
func post(ctx context.Context, client *http.Client, url, eventType, source, id, data string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(data))
	if err != nil {
		return 0, "", err
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Type": eventType, "Ce-Source": source, "Ce-Id": id,
	} {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), errors.Join(err)
}
