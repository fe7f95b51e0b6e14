package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// world is a database in which sources have said what they do, and a server with
// the bucket.
type world struct {
	pool *pgxpool.Pool
	env  map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	url := pgtest.URL(t)
	if err := sinkwriter.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	nats, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	nats.Start()
	t.Cleanup(func() { nats.Shutdown(); nats.WaitForShutdown() })
	return &world{pool: pool, env: map[string]string{"DATABASE_URL": url, "NATS_URL": nats.ClientURL()}}
}

// source says what a source would.
func (w *world) source(t *testing.T, cluster, hedge string, floor uint64) {
	t.Helper()
	p := sinkwriter.NewProgress(w.pool, cluster)
	last, _, err := p.Load(t.Context(), "flights", "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	row := sinkwriter.NewProgressRow{Epoch: "e1", Floor: floor, Head: floor, Hedge: hedge}
	if _, ok, err := p.Save(t.Context(), "flights", "EVENTS", row, last); err != nil || !ok {
		t.Fatalf("saved %t, %v", ok, err)
	}
}

func (w *world) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, envconfig.MapLookuper(w.env), &out)
	return out.String(), err
}

// set is what a source of the cluster would read.
func (w *world) set(t *testing.T, cluster string) string {
	t.Helper()
	conn, err := jetstream.Connect(t.Context(), w.env["NATS_URL"], jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if err := conn.Wait(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	value, err := jetstream.NewSwitch(conn, cluster, "").Hedge(t.Context(), "flights")
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestItShowsAndSwitches(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.source(t, "east", "0", 1000)
	w.source(t, "west", "0", 900)
	out, err := w.run(t, "flights")
	if err != nil || !strings.Contains(out, "east     0      -            0       0s ago\nwest     0      -            100     0s ago\n") {
		t.Errorf("%v\n%s", err, out)
	}

	// East's source does what it is told, west's does not.
	w.source(t, "east", "300ms", 1000)
	_, err = w.run(t, "--wait", "300ms", "flights", "300ms")
	if err == nil || !strings.Contains(err.Error(), "it is set, but west has not done it within 300ms") {
		t.Errorf("error %v", err)
	}
	w.source(t, "west", "300ms", 900)
	if out, err = w.run(t, "flights", "300ms"); err != nil || !strings.Contains(out, "west     300ms  300ms        100 ") {
		t.Errorf("%v\n%s", err, out)
	}
	w.source(t, "west", "standby", 900)
	if out, err = w.run(t, "--cluster", "west", "flights", "standby"); err != nil || !strings.Contains(out, "west     standby  standby ") {
		t.Errorf("%v\n%s", err, out)
	}
	if w.set(t, "east") != "300ms" || w.set(t, "west") != "standby" {
		t.Errorf("set are %q and %q", w.set(t, "east"), w.set(t, "west"))
	}

	// The backlog comes first.
	out, err = w.run(t, "--wait", "100ms", "flights", "race")
	if err == nil || !strings.HasPrefix(out, "west stops standing by; up to 100 messages have been left lying\n") || w.set(t, "west") != "race" {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = w.run(t, "--unset", "flights"); err != nil || w.set(t, "east") != "" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestToStandByEverywhereIsRefused(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.source(t, "east", "0", 1)
	w.source(t, "west", "standby", 1)
	for _, args := range [][]string{{"flights", "standby"}, {"--cluster", "east", "flights", "standby"}} {
		if _, err := w.run(t, args...); err == nil || !strings.Contains(err.Error(), "would stand by in every cluster") {
			t.Errorf("%v: error %v", args, err)
		}
	}
	// A cluster that was not heard of does not help.
	w.source(t, "west", "0", 1)
	if _, err := w.pool.Exec(t.Context(), "update tandem.progress set saved_at = now() - interval '4 minutes' where cluster = 'west'"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.run(t, "--cluster", "east", "flights", "standby"); err == nil || !strings.Contains(err.Error(), "heard of in the last 3m0s") {
		t.Errorf("error %v", err)
	}
	if w.set(t, "east") != "" {
		t.Errorf("set to %q", w.set(t, "east"))
	}
}

func TestItSaysWhatIsWrong(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.source(t, "east", "0", 1)
	for want, args := range map[string][]string{
		"which function?":                           {},
		`"soon": want 0 (race)`:                     {"flights", "soon"},
		`what is "more"?`:                           {"flights", "0", "more"},
		"take one of them":                          {"--unset", "flights", "0"},
		"which value is it to have?":                {"--cluster", "east", "flights"},
		"--replicas 7: want 1 to 5":                 {"--replicas", "7", "flights"},
		`ever worked for function "fligh"`:          {"fligh", "0"},
		`in cluster "south": the clusters are east`: {"--cluster", "south", "flights", "0"},
	} {
		if _, err := w.run(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q in it", args, err, want)
		}
	}
	if out, err := w.run(t, "--help"); err == nil || out != help {
		t.Errorf("--help: %v", err)
	}
	w.env["DATABASE_URL"] = "postgres://user:secret@x:port/name"
	if _, err := w.run(t, "flights"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	w.env["NATS_URL"] = "nats://127.0.0.1:1"
	w.env["DATABASE_URL"] = "postgres://127.0.0.1:1/x"
	if _, err := w.run(t, "--wait", "50ms", "flights"); err == nil || !strings.Contains(err.Error(), "not connected to NATS at nats://127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
}
