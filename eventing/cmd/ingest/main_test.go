package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

// runMain makes this test's program the ingest, so that tests have a process to
// end.
const runMain = "TANDEM_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	if address := os.Getenv(runNATS); address != "" {
		if err := serveNATS(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	removeProgram()
	os.Exit(code)
}

func TestTheProcessDrainsOnSIGTERMAndLosesNothing(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	address, metrics := eventtest.FreeAddress(t), eventtest.FreeAddress(t)
	log := &buffer{}
	cmd := command(context.Background(), server.URL(), address, "METRICS_ADDRESS="+metrics)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for _, url := range []string{address + "/health", metrics + "/health", metrics + "/metrics"} {
		eventtest.Eventually(t, url, func() bool {
			code, _ := send(t, http.MethodGet, "http://"+url, "")
			return code == http.StatusOK
		})
	}

	var accepted atomic.Int64
	ended := make(chan struct{})
	var senders sync.WaitGroup
	for sender := range 8 {
		senders.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-ended:
					return
				default:
				}
				if code, _ := send(t, http.MethodPost, "http://"+address, fmt.Sprintf("%d-%d", sender, i)); code == http.StatusAccepted {
					accepted.Add(1)
				}
			}
		})
	}
	eventtest.Eventually(t, "events are accepted", func() bool { return accepted.Load() > 200 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "a load balancer is told", func() bool {
		code, body := send(t, http.MethodGet, "http://"+address+"/health", "")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "shutting down")
	})
	hangs := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	if err := cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, log)
	}
	hangs.Stop()
	close(ended)
	senders.Wait()

	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if stored := int64(stream.CachedInfo().State.Msgs); stored < accepted.Load() {
		t.Errorf("%d events stored, %d accepted", stored, accepted.Load())
	}
	if !strings.Contains(log.String(), `"msg":"ingest started"`) || !strings.Contains(log.String(), `"msg":"ingest stopped"`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestTheProcessSaysWhatKeepsItFromStarting(t *testing.T) {
	t.Parallel()

	taken := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(taken.Close)
	tests := []struct{ name, setting, want string }{
		{name: "a variable is missing", setting: "TANDEM_CLUSTER=", want: "TANDEM_CLUSTER"},
		{name: "events of no size", setting: "TANDEM_MAX_EVENT_BYTES=0", want: "TANDEM_MAX_EVENT_BYTES 0: want at least 1"},
		{name: "NATS is no URL", setting: "NATS_URL=nats://user:secret@x:y", want: "want a URL as nats://"},
		{name: "the port is taken", setting: "LISTEN_ADDRESS=" + strings.TrimPrefix(taken.URL, "http://"), want: "LISTEN_ADDRESS: listen tcp"},
		{name: "the port for metrics is taken", setting: "METRICS_ADDRESS=" + strings.TrimPrefix(taken.URL, "http://"), want: "METRICS_ADDRESS: listen tcp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			out, err := command(ctx, "nats://127.0.0.1:1", "127.0.0.1:0", tt.setting).CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%v, want exit status 1", err)
			}
			if line := string(out); !strings.Contains(line, tt.want) || strings.Count(line, "\n") != 1 || strings.Contains(line, "secret") {
				t.Errorf("said %s, want one line with %q", line, tt.want)
			}
		})
	}
}

func TestTheProcessRefusesAStreamThatForgetsTooSoon(t *testing.T) {
	t.Parallel()

	for _, late := range []bool{false, true} {
		server := natstest.Start(t)
		nc, err := nats.Connect(server.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := natsjs.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		cfg := natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Duplicates: 29 * time.Second}
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if late {
			server.Stop()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		log := &buffer{}
		address := eventtest.FreeAddress(t)
		cmd := command(ctx, server.URL(), address)
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if late { // until the stream is there, it cannot know
			eventtest.Eventually(t, "it says 503", func() bool {
				code, _ := send(t, http.MethodPost, "http://"+address, "1")
				return code == http.StatusServiceUnavailable
			})
			server.Restart(t)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%v, want exit status 1", err)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		want := "stream EVENTS: the stream's duplicate window is too short: it is 29s, want at least 30s"
		if last := lines[len(lines)-1]; !strings.Contains(last, want) || strings.Count(log.String(), want) != 1 {
			t.Errorf("said %s, want %q once, at the end", log, want)
		}

		// With one second more it starts.
		cfg.Duplicates = 30 * time.Second
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		cmd = command(ctx, server.URL(), address)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventtest.Eventually(t, "it is healthy", func() bool {
			code, _ := send(t, http.MethodGet, "http://"+address+"/health", "")
			return code == http.StatusOK
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func command(ctx context.Context, nats, address string, more ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append([]string{runMain + "=1", "TANDEM_CLUSTER=east", "NATS_URL=" + nats, "LISTEN_ADDRESS=" + address}, more...)
	return cmd
}

// send sends a request, with an event of this id if it is a POST. Code 0 is no
// answer.
func send(t *testing.T, method, url, id string) (code int, body string) {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Source": "/test", "Ce-Type": "com.example.test"} {
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(text)
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
