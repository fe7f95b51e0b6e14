package main

import (
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

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

// runMain makes this test binary the ingest, so that tests have a process to end.
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
	for runs := 1; !drains(t, server); runs++ {
		// On a busy machine, it may have ended before this process sent the request.
		if runs == 20 {
			t.Fatalf("no load balancer was told in %d runs", runs)
		}
	}
}

// drains ends an ingest to which events are sent, and reports whether a load balancer was told
// before it ended.
func drains(t *testing.T, server *natstest.Server) (told bool) {
	t.Helper()

	address, metrics := eventtest.FreeAddress(t), eventtest.FreeAddress(t)
	p := eventtest.StartProcess(t, command(server.URL(), address, "METRICS_ADDRESS="+metrics))
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
	eventtest.Reaches(t, "events are accepted", 200, func() int { return int(accepted.Load()) })
	if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "a load balancer is told", func() bool {
		code, body := send(t, http.MethodGet, "http://"+address+"/health", "")
		told = code == http.StatusServiceUnavailable && strings.Contains(body, "shutting down")
		return told || p.HasEnded()
	})
	if err := p.Wait(t); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, p.Log)
	}
	close(ended)
	senders.Wait()

	stream, err := natstest.JetStream(t, server.URL()).Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if stored := int64(stream.CachedInfo().State.Msgs); stored < accepted.Load() {
		t.Errorf("%d events stored, %d accepted", stored, accepted.Load())
	}
	if log := p.Log.String(); !strings.Contains(log, `"msg":"ingest started"`) || !strings.Contains(log, `"msg":"ingest stopped"`) {
		t.Errorf("log:\n%s", log)
	}
	return told
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

			p := eventtest.StartProcess(t, command("nats://127.0.0.1:1", "127.0.0.1:0", tt.setting))
			var exit *exec.ExitError
			if err := p.Wait(t); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%v, want exit status 1", err)
			}
			if line := p.Log.String(); !strings.Contains(line, tt.want) || strings.Count(line, "\n") != 1 || strings.Contains(line, "secret") {
				t.Errorf("said %s, want one line with %q", line, tt.want)
			}
		})
	}
}

func TestTheProcessRefusesAStreamThatForgetsTooSoon(t *testing.T) {
	t.Parallel()

	for _, late := range []bool{false, true} {
		server := natstest.Start(t)
		js := natstest.JetStream(t, server.URL())
		cfg := natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Duplicates: 29 * time.Second}
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if late {
			server.Stop()
		}
		address := eventtest.FreeAddress(t)
		p := eventtest.StartProcess(t, command(server.URL(), address))
		if late { // until the stream is found, it cannot know
			eventtest.Eventually(t, "it says 503", func() bool {
				code, _ := send(t, http.MethodPost, "http://"+address, "1")
				return code == http.StatusServiceUnavailable
			})
			server.Restart(t)
		}
		var exit *exec.ExitError
		if err := p.Wait(t); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%v, want exit status 1", err)
		}
		lines := strings.Split(strings.TrimSpace(p.Log.String()), "\n")
		want := "stream EVENTS: the stream's duplicate window is too short: it is 29s, want at least 30s"
		if last := lines[len(lines)-1]; !strings.Contains(last, want) || strings.Count(p.Log.String(), want) != 1 {
			t.Errorf("said %s, want %q once, at the end", p.Log, want)
		}

		// With a window one second longer it starts.
		cfg.Duplicates = 30 * time.Second
		if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		eventtest.StartProcess(t, command(server.URL(), address))
		eventtest.Eventually(t, "it is healthy", func() bool {
			code, _ := send(t, http.MethodGet, "http://"+address+"/health", "")
			return code == http.StatusOK
		})
	}
}

func command(nats, address string, more ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append([]string{runMain + "=1", "TANDEM_CLUSTER=east", "NATS_URL=" + nats, "LISTEN_ADDRESS=" + address}, more...)
	return cmd
}

// send sends a request, with an event of this id if it is a POST. Code 0 means no
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
