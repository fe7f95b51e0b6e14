package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test looks into the database

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// hedgeWorld is a database in which sources have reported, and a server with the bucket.
type hedgeWorld struct {
	pool *pgxpool.Pool
	env  map[string]string
}

func newHedgeWorld(t *testing.T) *hedgeWorld {
	t.Helper()
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return &hedgeWorld{pool: pool, env: map[string]string{"DATABASE_URL": url, "NATS_URL": natstest.Start(t).URL()}}
}

// source saves the progress that a source would.
func (w *hedgeWorld) source(t *testing.T, cluster, hedge string, floor uint64) {
	t.Helper()
	p := ledger.NewCheckpoints(w.pool, cluster)
	last, _, err := p.Load(t.Context(), "flights", "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	row := ledger.CheckpointUpdate{Epoch: "e1", Floor: floor, Head: floor, Hedge: hedge}
	if _, ok, err := p.Save(t.Context(), "flights", "EVENTS", row, last); err != nil || !ok {
		t.Fatalf("saved %t, %v", ok, err)
	}
}

func (w *hedgeWorld) hedge(t *testing.T, args ...string) ran {
	t.Helper()
	return invoke(t, w.env, append([]string{"hedge"}, args...)...)
}

// hedgeInTime repeats the command until the servers have answered within the time that it waits:
// on a busy machine they may not.
func (w *hedgeWorld) hedgeInTime(t *testing.T, args ...string) (got ran) {
	t.Helper()
	eventtest.Eventually(t, "the servers answer in time", func() bool {
		got = w.hedge(t, args...)
		return !strings.Contains(got.err, "not connected to NATS") && !strings.Contains(got.err, "as the database does not answer")
	})
	return got
}

// set returns the value that a source of the cluster would read.
func (w *hedgeWorld) set(t *testing.T, cluster string) string {
	t.Helper()
	conn, err := jetstream.Connect(t.Context(), w.env["NATS_URL"], jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if err := conn.Wait(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	value, err := jetstream.NewHedgeSwitch(conn, cluster, "").Hedge(t.Context(), "flights")
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestItShowsAndSwitches(t *testing.T) {
	t.Parallel()

	w := newHedgeWorld(t)
	w.source(t, "east", "0", 1000)
	w.source(t, "west", "0", 900)
	shown := regexp.MustCompile(`east     0      -            0    [0-9ms]+ ago\nwest     0      -            100  [0-9ms]+ ago\n`)
	if out := w.hedge(t, "flights").ok(t); !shown.MatchString(out) {
		t.Errorf("printed\n%s", out)
	}
	var status hedgeStatus
	if out := w.hedge(t, "flights", "-o", "json").ok(t); strings.Count(out, "\n") != 2 || json.Unmarshal([]byte(out[strings.Index(out, "\n"):]), &status) != nil ||
		status.Cluster != "west" || status.Hedge != "0" || status.Lag != 100 || status.Age < 0 {
		t.Errorf("printed\n%s", out)
	}

	// East's source switches, west's does not.
	w.source(t, "east", "300ms", 1000)
	w.hedgeInTime(t, "--wait", "300ms", "flights", "300ms").fails(t, 2, "the value is set, but west has not switched within 300ms")
	w.source(t, "west", "300ms", 900)
	if out := w.hedge(t, "flights", "300ms").ok(t); !strings.Contains(out, "west     300ms  300ms        100 ") {
		t.Errorf("printed\n%s", out)
	}
	w.source(t, "west", "standby", 900)
	if out := w.hedge(t, "--cluster", "west", "flights", "standby").ok(t); !strings.Contains(out, "west     standby  standby ") {
		t.Errorf("printed\n%s", out)
	}
	if w.set(t, "east") != "300ms" || w.set(t, "west") != "standby" {
		t.Errorf("set are %q and %q", w.set(t, "east"), w.set(t, "west"))
	}

	// The backlog comes first.
	got := w.hedgeInTime(t, "--wait", "100ms", "flights", "race")
	if got.code != 2 || !strings.HasPrefix(got.out, "west leaves standby; up to 100 messages wait for it\n") || w.set(t, "west") != "race" {
		t.Errorf("%+v", got)
	}
	if w.hedge(t, "--unset", "flights").ok(t); w.set(t, "east") != "" {
		t.Errorf("east still has %q", w.set(t, "east"))
	}
}

func TestToStandByEverywhereIsRefused(t *testing.T) {
	t.Parallel()

	w := newHedgeWorld(t)
	w.source(t, "east", "0", 1)
	w.source(t, "west", "standby", 1)
	for _, args := range [][]string{{"flights", "standby"}, {"--cluster", "east", "flights", "standby"}} {
		w.hedge(t, args...).fails(t, 2, "would stand by in every cluster")
	}
	// A cluster that has not reported does not help.
	w.source(t, "west", "0", 1)
	if _, err := w.pool.Exec(t.Context(), "update tandem.progress set saved_at = now() - interval '4 minutes' where cluster = 'west'"); err != nil {
		t.Fatal(err)
	}
	w.hedge(t, "--cluster", "east", "flights", "standby").fails(t, 2, "reported in the last 3m0s")
	if w.set(t, "east") != "" {
		t.Errorf("set to %q", w.set(t, "east"))
	}
}

func TestAWrongSwitchIsExplained(t *testing.T) {
	t.Parallel()

	w := newHedgeWorld(t)
	w.source(t, "east", "0", 1)
	for want, args := range map[string][]string{
		"want the name of a function: see tandem hedge --help": {},
		`"soon": want 0 (race)`:                                {"flights", "soon"},
		`argument "more"`:                                      {"flights", "0", "more"},
		"want one of them":                                     {"--unset", "flights", "0"},
		"--cluster without a value":                            {"--cluster", "east", "flights"},
		"--replicas 7: want 1 to 5":                            {"--replicas", "7", "flights"},
		`ever worked for function "fligh"`:                     {"fligh", "0"},
		`in cluster "south": the clusters are east`:            {"--cluster", "south", "flights", "0"},
	} {
		w.hedge(t, args...).fails(t, 2, want)
	}
	w.env["NATS_URL"] = "nats://127.0.0.1:1"
	w.hedge(t, "--wait", "50ms", "flights").fails(t, 2, "not connected to NATS at nats://127.0.0.1:1")
}
