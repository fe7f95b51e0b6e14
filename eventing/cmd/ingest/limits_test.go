package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

// memoryBound is the maximum resident memory of the process: half of the limit of its
// pod in config.
const memoryBound = 128 << 20

func TestManyLargePostsAtOnceStayWithinTheMemory(t *testing.T) {
	t.Parallel()

	address, pid := startProcess(t, natstest.Start(t).URL())
	body := bytes.Repeat([]byte("x"), 1_000_000)
	var senders sync.WaitGroup
	defer senders.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var accepted atomic.Int64
	for i := range 256 {
		senders.Go(func() {
			for ctx.Err() == nil {
				code, header := post(t, address, strconv.Itoa(i), bytes.NewReader(body))
				if code == http.StatusServiceUnavailable && header.Get("Retry-After") == "" {
					t.Error("503 without Retry-After")
				}
				if code == http.StatusAccepted {
					accepted.Add(1)
					return
				}
				// Senders that retry immediately would leave the server no CPU time.
				seconds, _ := strconv.Atoi(header.Get("Retry-After"))
				select {
				case <-time.After(time.Duration(seconds) * time.Second):
				case <-ctx.Done():
				}
			}
		})
	}
	eventtest.Reaches(t, "events are accepted", 256, func() int { return int(accepted.Load()) })
	if peak := peakMemory(t, pid); peak > memoryBound {
		t.Errorf("%d MiB were resident, want at most %d", peak>>20, memoryBound>>20)
	}
}

func TestManyBatchesAtOnceStayWithinTheMemory(t *testing.T) {
	t.Parallel()

	url, natsServer := startNATS(t)
	address, pid := startProcess(t, url)
	var body bytes.Buffer
	for n := 0; body.Len() < 1_000_000; n++ {
		fmt.Fprintf(&body, `,{"specversion":"1.0","id":"%d","source":"/s","type":"t"}`, n)
	}
	body.Bytes()[0] = '['
	body.WriteByte(']')
	batch := body.Bytes()
	if err := natsServer.Signal(syscall.SIGSTOP); err != nil { // so that all are in flight at once
		t.Fatal(err)
	}
	var senders sync.WaitGroup
	for range 64 {
		senders.Go(func() {
			var code int
			var header http.Header
			// On a busy machine, a rejected body may arrive too late to be read, or the request may
			// be rejected for another reason too.
			eventtest.Eventually(t, "it is answered", func() bool {
				code, header = post(t, address, "", bytes.NewReader(batch), "Content-Type", "application/cloudevents-batch+json")
				return code != 0 && code != http.StatusRequestTimeout
			})
			if code != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
				t.Errorf("answered %d %v while NATS hangs", code, header)
			}
		})
	}
	senders.Wait()
	if err := natsServer.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// On a busy machine, a batch of 18,000 may exceed the timeout of a request.
	eventtest.Eventually(t, "an event is accepted", func() bool {
		code, _ := post(t, address, "after", strings.NewReader("x"))
		return code == http.StatusAccepted
	})
	if peak := peakMemory(t, pid); peak > memoryBound {
		t.Errorf("%d MiB were resident, want at most %d", peak>>20, memoryBound>>20)
	}
}

func TestSlowBodiesHurtNoOtherEvent(t *testing.T) {
	t.Parallel()

	address, pid := startProcess(t, natstest.Start(t).URL())
	for i := range 256 {
		conn, err := net.Dial("tcp", address) //nolint:noctx // on this machine
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		go func() {
			// The body ends one byte early, and the connection stays open.
			_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nCe-Specversion: 1.0\r\nCe-Id: slow-%d\r\nCe-Source: /s\r\nCe-Type: t\r\nContent-Length: 1000000\r\n\r\n", i)
			_, _ = conn.Write(bytes.Repeat([]byte("x"), 999_999))
		}()
	}
	for i := range 100 {
		eventtest.Eventually(t, "a small event is accepted", func() bool {
			code, text := send(t, http.MethodPost, "http://"+address, "small-"+strconv.Itoa(i))
			if strings.Contains(text, "TANDEM_IN_FLIGHT_BYTES") {
				t.Errorf("a small event: answered %d %s", code, text)
			}
			return code == http.StatusAccepted // otherwise the stream was late
		})
		time.Sleep(20 * time.Millisecond)
	}
	eventtest.Eventually(t, "a large event is accepted", func() bool {
		code, _ := post(t, address, "large", bytes.NewReader(make([]byte, 1_000_000)))
		return code == http.StatusAccepted
	})
	if peak := peakMemory(t, pid); peak > memoryBound {
		t.Errorf("%d MiB were resident, want at most %d", peak>>20, memoryBound>>20)
	}
}

func TestEveryHealthProbeAnswersInTimeWhileNATSHangs(t *testing.T) {
	t.Parallel()

	url, natsServer := startNATS(t)
	metrics := eventtest.FreeAddress(t)
	address, _ := startProcess(t, url, "METRICS_ADDRESS="+metrics)
	for _, busy := range []bool{false, true} {
		eventtest.Eventually(t, "it is healthy", func() bool {
			code, _ := send(t, http.MethodGet, "http://"+address+"/health", "")
			return code == http.StatusOK
		})
		if err := natsServer.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		// The time of a request that does not use NATS: the machine may be slow.
		var slowest, plain atomic.Int64
		measure := func(url string, longest *atomic.Int64) {
			begin := time.Now()
			_, _ = send(t, http.MethodGet, url, "")
			took := int64(time.Since(begin))
			for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
			}
		}
		var senders sync.WaitGroup
		if busy { // more than the sockets' buffers hold
			for i := range 32 {
				senders.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						code, _ := post(t, address, fmt.Sprintf("hangs-%d-%d", i, n), bytes.NewReader(make([]byte, 500_000)))
						if code == http.StatusAccepted {
							t.Error("an event is accepted while NATS hangs")
						}
					}
				})
			}
			time.Sleep(time.Second)
		}
		var probes, others sync.WaitGroup
		answered := make(chan struct{})
		for range 4 { // as long as a probe waits, to detect what delays one
			others.Go(func() {
				for {
					select {
					case <-answered:
						return
					case <-time.After(20 * time.Millisecond):
						measure("http://"+address+"/nothing", &plain)
					}
				}
			})
		}
		for range 20 {
			time.Sleep(50 * time.Millisecond)
			for _, url := range []string{"http://" + address + "/health", "http://" + metrics + "/health"} {
				probes.Go(func() { measure(url, &slowest) })
			}
		}
		probes.Wait()
		close(answered)
		others.Wait()
		took, other := time.Duration(slowest.Load()), time.Duration(plain.Load())
		// A probe takes 2 s at most, and twice that if it waited for another one.
		if took > 4*time.Second+2*other {
			t.Errorf("the slowest probe took %s, want at most 2 s, or 4 s and %s as other requests on a busy machine (busy %t)", took, 2*other, busy)
		}
		if code, body := send(t, http.MethodGet, "http://"+address+"/health", ""); code != http.StatusServiceUnavailable {
			t.Errorf("health answers %d %s while NATS hangs", code, body)
		}
		cancel()
		senders.Wait()
		if err := natsServer.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheProcessEndsWhileNATSHangsAndBodiesStall(t *testing.T) {
	t.Parallel()

	url, natsServer := startNATS(t)
	address, pid := startProcess(t, url)
	if err := natsServer.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for i := range 32 { // more than the sockets' buffers hold, and as many that stall
		for _, missing := range []int{0, 1} {
			conn, err := net.Dial("tcp", address) //nolint:noctx // on this machine
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			go func() {
				_, _ = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nCe-Specversion: 1.0\r\nCe-Id: %d\r\nCe-Source: /s\r\nCe-Type: t\r\nContent-Length: 500000\r\n\r\n", i)
				_, _ = conn.Write(bytes.Repeat([]byte("x"), 500_000-missing))
			}()
		}
	}
	time.Sleep(2 * time.Second) // until the connection to NATS is blocked; an earlier check would be easier
	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "the process ends", func() bool {
		code, _ := send(t, http.MethodGet, "http://"+address+"/health", "")
		return code == 0
	})
	ended := func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}
	eventtest.Eventually(t, "the process ends", ended)
	t.Logf("ended after %s", time.Since(begin))
}

func TestTheProcessDecodesGzipAndRefusesOtherEncodings(t *testing.T) {
	t.Parallel()

	address, _ := startProcess(t, natstest.Start(t).URL())
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = w.Write([]byte("hello"))
	_ = w.Close()
	for encoding, want := range map[string]int{"gzip": http.StatusAccepted, "zstd": http.StatusUnsupportedMediaType, "br": http.StatusUnsupportedMediaType} {
		var code int
		eventtest.Eventually(t, "it is answered for good", func() bool {
			code, _ = post(t, address, encoding, bytes.NewReader(zipped.Bytes()), "Content-Encoding", encoding)
			return code != 0 && code != http.StatusServiceUnavailable
		})
		if code != want {
			t.Errorf("%s: answered %d, want %d", encoding, code, want)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, "http://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("WebHook-Request-Origin", "eventemitter.example.com")
	req.Header.Set("WebHook-Request-Rate", "120")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Header.Get("WebHook-Allowed-Origin") == "" || res.Header.Get("WebHook-Allowed-Rate") == "" {
		t.Errorf("OPTIONS: %d %v", res.StatusCode, res.Header)
	}
}

func TestMetricsCountWhatBecameOfEvents(t *testing.T) {
	t.Parallel()

	// Answers of a late stream, for example on a busy machine, are counted too.
	eventtest.Eventually(t, "the stream answers in time", func() bool { return countsEvents(t) })
}

// countsEvents reports whether the stream answered in time. Then the metrics are checked.
func countsEvents(t *testing.T) bool {
	t.Helper()

	server := natstest.Start(t)
	metrics := eventtest.FreeAddress(t)
	address, _ := startProcess(t, server.URL(), "METRICS_ADDRESS="+metrics, "TANDEM_MAX_EVENT_BYTES=1000")
	batch := `[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"specversion":"1.0","id":"2","source":"/s","type":"t"},{}]`
	for _, send := range []struct {
		body   string
		header []string
		code   int
	}{
		{body: "x", code: http.StatusAccepted},
		{body: batch, header: []string{"Content-Type", "application/cloudevents-batch+json"}, code: http.StatusBadRequest},
		{body: "{}", header: []string{"Content-Type", "application/cloudevents+json"}, code: http.StatusBadRequest},
		{body: "x", header: []string{"Content-Encoding", "br"}, code: http.StatusUnsupportedMediaType},
		{body: strings.Repeat("x", 1001), code: http.StatusRequestEntityTooLarge},
	} {
		code, _ := post(t, address, "0", strings.NewReader(send.body), send.header...)
		if code == http.StatusServiceUnavailable {
			return false
		}
		if code != send.code {
			t.Errorf("%.20s: answered %d, want %d", send.body, code, send.code)
		}
	}
	server.Stop()
	if code, _ := post(t, address, "3", strings.NewReader("x")); code != http.StatusServiceUnavailable {
		t.Errorf("without NATS: answered %d", code)
	}
	var text string
	lines := []string{
		`tandem_ingest_accepted_total{cluster="east"} 3`,
		`tandem_ingest_refused_total{cluster="east",reason="invalid"} 2`,
		`tandem_ingest_refused_total{cluster="east",reason="unsupported"} 1`,
		`tandem_ingest_refused_total{cluster="east",reason="too_large"} 1`,
		`tandem_ingest_refused_total{cluster="east",reason="unavailable"} 1`,
		`tandem_ingest_refused_total{cluster="east",reason="busy"} 0`,
		`tandem_ingest_in_flight_bytes{cluster="east"} 0`,
		`tandem_ingest_request_seconds_count{cluster="east"} 1`,
	}
	t.Cleanup(func() {
		for line := range strings.Lines(text) {
			if t.Failed() && strings.HasPrefix(line, "tandem_") {
				t.Log(line)
			}
		}
	})
	// Memory is released a moment after the answer.
	eventtest.Eventually(t, "the metrics have "+strings.Join(lines, ", "), func() bool {
		_, text = send(t, http.MethodGet, "http://"+metrics+"/metrics", "")
		return !slices.ContainsFunc(lines, func(line string) bool { return !strings.Contains(text, line+"\n") })
	})
	return true
}

// program is the ingest binary, built once for all tests and without the race detector,
// which needs more memory than the measured bound.
var program = sync.OnceValues(func() (file string, err error) {
	dir, err := os.MkdirTemp("", "tandem-ingest-")
	if err != nil {
		return "", err
	}
	removeProgram = func() { _ = os.RemoveAll(dir) }
	file = filepath.Join(dir, "ingest")
	if out, err := exec.CommandContext(context.Background(), "go", "build", "-o", file, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return file, nil
})

// removeProgram is called after all tests.
var removeProgram = func() {}

// startProcess starts the ingest as a process and returns its address and process id when
// it is healthy.
func startProcess(t *testing.T, nats string, more ...string) (address string, pid int) {
	t.Helper()

	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	address = eventtest.FreeAddress(t)
	cmd := exec.CommandContext(context.Background(), file)
	cmd.Env = command(nats, address, more...).Env
	p := eventtest.StartProcess(t, cmd)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ingest:\n%s", p.Log)
		}
	})
	eventtest.Eventually(t, "it is healthy", func() bool {
		code, _ := send(t, http.MethodGet, "http://"+address+"/health", "")
		return code == http.StatusOK
	})
	return address, cmd.Process.Pid
}

// post posts an event and returns the answer's status and header; 0 if there is none.
func post(t *testing.T, address, id string, body io.Reader, header ...string) (code int, answered http.Header) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address, body)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	for name, value := range map[string]string{"Ce-Specversion": "1.0", "Ce-Id": id, "Ce-Source": "/test", "Ce-Type": "com.example.test"} {
		req.Header.Set(name, value)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Log(err)
		return 0, nil
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	return res.StatusCode, res.Header
}

// peakMemory returns the maximum resident memory of a process, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()

	if runtime.GOOS != "linux" {
		t.Skip("only Linux shows how much memory a process had at most")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d MiB were resident at most", kib>>10)
			return kib << 10
		}
	}
	t.Fatalf("no VmHWM in %s", status)
	return 0
}

// runNATS makes this test binary a NATS server on that port.
const runNATS = "TANDEM_TEST_RUN_NATS"

// startNATS starts a NATS server as a process that SIGSTOP can stop.
func startNATS(t *testing.T) (url string, process *os.Process) {
	t.Helper()

	address := eventtest.FreeAddress(t)
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = []string{runNATS + "=" + address, "TMPDIR=" + t.TempDir()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return "nats://" + address, cmd.Process
}

// serveNATS is the process of startNATS.
func serveNATS(address string) error {
	_, text, _ := strings.Cut(address, ":")
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: os.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		return err
	}
	srv.Start()
	if !srv.ReadyForConnections(30 * time.Second) {
		return errors.New("not ready")
	}
	srv.WaitForShutdown()
	return nil
}
