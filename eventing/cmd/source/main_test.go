package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// runMain makes this test binary the source, so that tests have a process to kill.
const runMain = "TANDEM_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestReadConfigHasDefaults(t *testing.T) {
	t.Parallel()

	got, err := readConfig(t.Context(), envconfig.MapLookuper(map[string]string{
		"TANDEM_CLUSTER": "east", "TANDEM_FUNCTION": "flights", "K_SINK": "http://flights/",
		"DATABASE_URL": "postgres://x", "NATS_URL": "nats://x", "TANDEM_STREAMS": "EAST, WEST",
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := config{
		Cluster: "east", Function: "flights", Sink: "http://flights/", DeadLetterSink: "http://flights/dead-letters",
		Streams: []string{"EAST", "WEST"}, OutputStream: "OUTPUTS", Replicas: 1, InFlight: 1024, Batch: 1000,
		MaxBytes: 64 << 20, Hedge: "0", ShareDelay: 100 * time.Millisecond, Ordering: "none", TryFor: 15 * time.Minute, Retention: 7 * 24 * time.Hour,
		DatabaseURL: "postgres://x", NATSURL: "nats://x",
		OutputBatch: 1, SinkKind: "function", SinkConfig: sink.Config{TokenFile: "/oidc/token"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestDeadLettersGoToEachInstance(t *testing.T) {
	t.Parallel()

	for sink, want := range map[string]string{
		"http://a:8080, http://b:8080/": "http://a:8080/dead-letters,http://b:8080/dead-letters",
		"http://a/orders":               "http://a/orders/dead-letters",
		"://":                           "://",
	} {
		if got := deadLetterSink(sink); got != want {
			t.Errorf("%q: dead letters go to %q, want %q", sink, got, want)
		}
	}
}

func TestReadConfigTakesWhatKnativeSaysAboutTheSink(t *testing.T) {
	t.Parallel()

	got, err := readConfig(t.Context(), envconfig.MapLookuper(map[string]string{
		"TANDEM_CLUSTER": "east", "TANDEM_FUNCTION": "flights", "K_SINK": "https://flights/",
		"DATABASE_URL": "postgres://x", "NATS_URL": "nats://x",
		"K_CA_CERTS": "PEM", "K_CE_OVERRIDES": `{"extensions":{"tenant":"acme"}}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := sink.Config{CACerts: "PEM", TokenFile: "/oidc/token", Overrides: map[string]string{"tenant": "acme"}}
	if diff := cmp.Diff(want, got.SinkConfig); diff != "" {
		t.Errorf("what belongs to the sink (-want +got):\n%s", diff)
	}
}

func TestReadConfigOfARelayAlone(t *testing.T) {
	t.Parallel()

	bound := sink.Config{CACerts: "PEM", TokenFile: "/oidc/token"}
	for _, tt := range []struct {
		env        map[string]string
		wantSink   string
		wantConfig sink.Config
		wantError  string
	}{
		{env: map[string]string{"K_SINK": "http://broker"}, wantSink: "http://broker", wantConfig: bound},
		{env: map[string]string{"K_SINK": "http://broker", "TANDEM_OUTPUT_SINK": "http://other"}, wantSink: "http://other", wantConfig: sink.Config{CACerts: "PEM"}},
		{env: map[string]string{"NATS_URL": "nats://x"}},
		{env: map[string]string{}, wantError: "NATS_URL: missing"},
		{env: map[string]string{"K_SINK": "http://f", "TANDEM_STREAMS": "EVENTS", "TANDEM_FUNCTION": "f"}, wantError: "NATS_URL: missing"},
		{env: map[string]string{"K_SINK": "http://f", "TANDEM_STREAMS": "EVENTS", "TANDEM_FUNCTION": "f", "NATS_URL": "nats://x"}},
		{env: map[string]string{"NATS_URL": "nats://x", "TANDEM_STREAMS": "EVENTS"}, wantError: "TANDEM_FUNCTION: missing\nK_SINK: missing"},
	} {
		env := map[string]string{"TANDEM_CLUSTER": "east", "TANDEM_STREAMS": "none", "DATABASE_URL": "postgres://x", "K_CA_CERTS": "PEM"}
		maps.Copy(env, tt.env)
		got, err := readConfig(t.Context(), envconfig.MapLookuper(env))
		if tt.wantError != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wantError) {
				t.Errorf("%v: error %v, want %q in it", tt.env, err, tt.wantError)
			}
			continue
		}
		if err != nil || got.OutputSink != tt.wantSink {
			t.Errorf("%v: outputs go to %q, %v", tt.env, got.OutputSink, err)
		}
		if diff := cmp.Diff(tt.wantConfig, got.OutputConfig); diff != "" {
			t.Errorf("%v: what belongs to it (-want +got):\n%s", tt.env, diff)
		}
	}
}

func TestReadConfigSaysWhatIsWrong(t *testing.T) {
	t.Parallel()

	tests := []struct{ name, variable, value, more, want string }{
		{name: "a variable is missing", variable: "K_SINK", want: "K_SINK"},
		{name: "a cluster with a space", variable: "TANDEM_CLUSTER", value: "the east", want: `TANDEM_CLUSTER "the east": want lower-case`},
		{name: "several functions", variable: "TANDEM_FUNCTION", value: "a,b", want: `TANDEM_FUNCTION "a,b": want lower-case`},
		{name: "too many at once", variable: "TANDEM_IN_FLIGHT", value: "100000", want: "TANDEM_IN_FLIGHT 100000: want 1 to 16384"},
		{name: "overrides that are none", variable: "K_CE_OVERRIDES", value: "tenant=acme", want: `K_CE_OVERRIDES: want {"extensions"`},
		{name: "too little memory", variable: "TANDEM_IN_FLIGHT_BYTES", value: "1000", want: "TANDEM_IN_FLIGHT_BYTES 1000: want at least"},
		{name: "a hedge that is none", variable: "TANDEM_HEDGE", value: "soon", want: `TANDEM_HEDGE "soon": want 0 (race), a delay`},
		{name: "a delay too long", variable: "TANDEM_HEDGE", value: "2m", want: `TANDEM_HEDGE "2m": want 0 (race), a delay`},
		{name: "a share without a delay", variable: "TANDEM_SHARE_DELAY", value: "-1ms", want: "TANDEM_SHARE_DELAY -1ms: want more than 0, and up to 1m0s"},
		{name: "a hedge with a Broker", variable: "TANDEM_HEDGE", value: "share", more: "TANDEM_SINK_KIND=broker", want: `TANDEM_HEDGE "share": a Broker commits nothing`},
		{name: "a rate below nothing", variable: "TANDEM_RATE", value: "-1", want: "TANDEM_RATE -1: want 0 (no limit) or more"},
		{name: "no time to try", variable: "TANDEM_TRY_FOR", value: "-1s", want: "TANDEM_TRY_FOR -1s: want more than 0"},
		{name: "types that are none", variable: "TANDEM_TYPES", value: "com.*.made", want: `TANDEM_TYPES: event type "com.*.made": '*' may only be at its end`},
		{name: "too large a batch", variable: "TANDEM_BATCH", value: "1001", want: "TANDEM_BATCH 1001: want 1 to 1000"},
		{name: "a batch of less than nothing", variable: "TANDEM_BATCH", value: "-1", want: "TANDEM_BATCH -1: want 1 to 1000"},
		{name: "another kind of sink", variable: "TANDEM_SINK_KIND", value: "queue", want: `TANDEM_SINK_KIND "queue": want function, or broker`},
		{name: "another order", variable: "TANDEM_ORDERING", value: "id", want: `TANDEM_ORDERING "id": want subject, or none`},
		{name: "no number", variable: "TANDEM_IN_FLIGHT", value: "many", want: `TANDEM_IN_FLIGHT "many": want a whole number`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			env := map[string]string{
				"TANDEM_CLUSTER": "east", "TANDEM_FUNCTION": "flights", "K_SINK": "http://flights",
				"DATABASE_URL": "postgres://x", "NATS_URL": "nats://x",
			}
			env[tt.variable] = tt.value
			if tt.value == "" {
				delete(env, tt.variable)
			}
			if name, value, ok := strings.Cut(tt.more, "="); ok {
				env[name] = value
			}
			_, err := readConfig(t.Context(), envconfig.MapLookuper(env))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// The horizon is unknown, and the function could not commit.
func TestNothingIsDeliveredWhileTheDatabaseHasBeenAwayFromTheBeginning(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	f := newFunction(t)
	publish(t, server, 10)
	p := start(t, server.URL(), f.server.URL) // at an address without a database
	eventtest.Eventually(t, "that is said", func() bool { return strings.Contains(p.Log.String(), "acquire the lease") })
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.done) != 0 {
		t.Errorf("%d events were delivered", len(f.done))
	}
	if log := p.Log.String(); strings.Contains(log, "secret") {
		t.Errorf("a password in the log:\n%s", log)
	}
}

func TestTheProcessIsKilledAndStoppedAndLosesNothing(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	f := newFunction(t)
	publish(t, server, 4000)
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}

	p := start(t, server.URL(), f.server.URL, "DATABASE_URL="+url)
	f.waitFor(t, 500)
	p.end(t, syscall.SIGKILL)

	p = start(t, server.URL(), f.server.URL, "DATABASE_URL="+url)
	f.waitFor(t, 1500)
	stalls := eventtest.Stalls(t)
	if took := p.end(t, syscall.SIGTERM); took > 14*time.Second && stalls() < time.Second {
		t.Errorf("ended %s after SIGTERM", took)
	}
	if p.Cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("SIGTERM: %s", p.Cmd.ProcessState)
	}

	p = start(t, server.URL(), f.server.URL, "DATABASE_URL="+url)
	f.waitFor(t, 4000)
	eventtest.Eventually(t, "everything is counted", func() bool {
		text, err := get(t, p.metrics+"/metrics")
		return err == nil && strings.Contains(text, "\ntandem_source_pending{cluster=\"east\",function=\"flights\"} 0\n")
	})

	text, err := get(t, p.metrics+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`tandem_source_delivered_total{cluster="east",function="flights"} `,
		`tandem_source_receipts_total{cluster="east",function="flights",receipt="won"} `,
		`tandem_source_receipts_total{cluster="east",function="flights",receipt="lost"} 0`,
		`tandem_source_rejected_total{cluster="east",function="flights"} 0`,
		`tandem_source_failed_total{cluster="east",function="flights"} 0`,
		`tandem_source_commit_seconds_bucket{cluster="east",function="flights",le="0.0005"} `,
		`tandem_source_commit_seconds_bucket{cluster="east",function="flights",le="30"} `,
		`tandem_source_commit_seconds_count{cluster="east",function="flights"} `,
		`tandem_source_unacknowledged{cluster="east",function="flights"} `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no metric %s", want)
		}
	}
	eventtest.Eventually(t, "it is ready", func() bool { _, err := get(t, p.metrics+"/health"); return err == nil })
	log := p.Log.String()
	if n := strings.Count(log, `"msg":"source started"`); n != 1 || !strings.Contains(log, `"streams":["EVENTS"]`) || !strings.Contains(log, `"version":`) {
		t.Errorf("log:\n%s", log)
	}
	if strings.Contains(log, "secret") {
		t.Errorf("a password in the log:\n%s", log)
	}
}

func TestTheProcessSaysWhatKeepsItFromStarting(t *testing.T) {
	t.Parallel()

	taken := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(taken.Close)
	tests := []struct{ name, variable, value, want string }{
		{name: "a variable is missing", variable: "TANDEM_CLUSTER", value: "", want: "TANDEM_CLUSTER"},
		{name: "the sink is no URL", variable: "K_SINK", value: "flights:8080", want: "URL of the function: want http://"},
		{name: "the database is no URL", variable: "DATABASE_URL", value: "postgres://user:secret@x:y/z", want: "DATABASE_URL: want postgres://"},
		{name: "NATS is no URL", variable: "NATS_URL", value: "nats://user:secret@x:y", want: "want a URL as nats://"},
		{name: "the stream has no name", variable: "TANDEM_STREAMS", value: "a b", want: `stream name \"a b\"`},
		{name: "the port is taken", variable: "METRICS_ADDRESS", value: strings.TrimPrefix(taken.URL, "http://"), want: "METRICS_ADDRESS: listen tcp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			p := eventtest.StartProcess(t, command("nats://127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1:0", tt.variable+"="+tt.value))
			eventtest.Eventually(t, "it ends", p.HasEnded)
			if code := p.Cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			out := p.Log.String()
			lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, tt.want) || strings.Contains(out, "secret") {
				t.Errorf("said %s, want %q in the last line", out, tt.want)
			}
			if len(lines) > 1 && tt.variable != "TANDEM_STREAMS" { // which is checked after connecting
				t.Errorf("said %s, want one line", out)
			}
		})
	}
}

func TestTheProcessIsNotReadyWithAWrongURLAndKeepsTrying(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct{ name, nats, sink, want string }{
		{name: "NATS", nats: "nats://127.0.0.1:1", sink: "running", want: "cannot connect to NATS; retrying"},
		{name: "function", nats: "running", sink: "http://127.0.0.1:1", want: `"doing":"delivering to the function; its events are retried","url":"http://127.0.0.1:1"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if tt.nats == "running" {
				tt.nats = natstest.Start(t).URL()
			} else {
				tt.sink = newFunction(t).server.URL
			}
			p := start(t, tt.nats, tt.sink)
			var reason error
			eventtest.Eventually(t, "it says so", func() bool {
				_, reason = get(t, p.metrics+"/health")
				return reason != nil && strings.Contains(reason.Error(), "503") && strings.Contains(p.Log.String(), tt.want)
			})
			if got := strings.Count(p.Log.String(), tt.want); got != 1 {
				t.Errorf("%d lines:\n%s", got, p.Log.String())
			}
			if p.end(t, syscall.SIGTERM); p.Cmd.ProcessState.ExitCode() != 0 {
				t.Errorf("it did not run on: %s\n%s", p.Cmd.ProcessState, p.Log.String())
			}
		})
	}
}

type process struct {
	*eventtest.Process

	metrics string
}

func start(t *testing.T, nats, sink string, more ...string) *process {
	t.Helper()

	address := eventtest.FreeAddress(t)
	return &process{Process: eventtest.StartProcess(t, command(nats, sink, address, more...)), metrics: "http://" + address}
}

func command(nats, sink, metrics string, more ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append([]string{
		runMain + "=1", "TANDEM_CLUSTER=east", "TANDEM_FUNCTION=flights",
		"NATS_URL=" + nats, "K_SINK=" + sink, "METRICS_ADDRESS=" + metrics,
		"DATABASE_URL=postgres://user:secret@127.0.0.1:1/tandem",
	}, more...)
	return cmd
}

// end sends a signal, waits for the end and returns how long that took.
func (p *process) end(t *testing.T, signal syscall.Signal) time.Duration {
	t.Helper()

	begun := time.Now()
	_ = p.Cmd.Process.Signal(signal)
	eventtest.Eventually(t, "it ends on "+signal.String(), p.HasEnded)
	return time.Since(begun)
}

type function struct {
	server *httptest.Server
	mu     sync.Mutex
	done   map[string]bool
}

func newFunction(t *testing.T) *function {
	t.Helper()

	f := &function{done: map[string]bool{}}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.done[r.Header.Get("Ce-Id")] = true
		w.Header().Set("Tandem-Receipt", "won")
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(f.server.Close)
	return f
}

func (f *function) waitFor(t *testing.T, n int) {
	t.Helper()

	eventtest.Reaches(t, "events are done", n, func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.done)
	})
}

func publish(t *testing.T, server *natstest.Server, n int) {
	t.Helper()

	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]event.Event, n)
	for i := range events {
		events[i] = event.New()
		events[i].SetID(fmt.Sprintf("test-%06d", i))
		events[i].SetSource("/test")
		events[i].SetType("com.example.test")
	}
	eventtest.Eventually(t, "events are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
}

func get(t *testing.T, url string) (string, error) {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return string(body), err
}
