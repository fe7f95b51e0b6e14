package main

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test looks into the database

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// hedgeWorld is a database in which sources have reported.
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
	return &hedgeWorld{pool: pool, env: map[string]string{"DATABASE_URL": url}}
}

// source saves a checkpoint like a source.
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

// set returns the value that a source of the cluster would read.
func (w *hedgeWorld) set(t *testing.T, cluster string) string {
	t.Helper()
	value, err := ledger.NewCheckpoints(w.pool, cluster).Hedge(t.Context(), "flights")
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
	w.hedge(t, "--wait", "300ms", "flights", "300ms").fails(t, 2, "the value is set, but west has not switched within 300ms")
	w.source(t, "west", "300ms", 900)
	if out := w.hedge(t, "flights", "300ms").ok(t); !strings.Contains(out, "west     300ms  300ms        100 ") ||
		!strings.HasPrefix(out, "east stays at 300ms (an event is delivered after 300ms unless another cluster has committed it)\n") {
		t.Errorf("printed\n%s", out)
	}
	w.source(t, "west", "standby", 900)
	if out := w.hedge(t, "--cluster", "west", "flights", "standby").ok(t); !strings.Contains(out, "west     standby  standby ") {
		t.Errorf("printed\n%s", out)
	}
	if w.set(t, "east") != "300ms" || w.set(t, "west") != "standby" {
		t.Errorf("set are %q and %q", w.set(t, "east"), w.set(t, "west"))
	}

	got := w.hedge(t, "--wait", "100ms", "--cluster", "west", "flights", "race")
	const want = "west is switched from standby (nothing is delivered) to 0 (every event is delivered at once)\n" +
		"west leaves standby; up to 100 messages wait for it\n"
	if got.code != 2 || got.out != want || w.set(t, "west") != "race" || w.set(t, "east") != "300ms" {
		t.Errorf("%+v", got)
	}
	w.source(t, "west", "0", 900)
	if got := w.hedge(t, "--wait", "100ms", "flights", "share"); !strings.Contains(got.out, "west is switched from 0 (every event is delivered at once) to share (each event has one cluster that goes first;") {
		t.Errorf("%+v", got)
	}
	if out := w.hedge(t, "--unset", "flights").ok(t); w.set(t, "east") != "" || w.set(t, "west") != "" ||
		!strings.HasPrefix(out, "east is switched from 300ms (") || !strings.Contains(out, "west is switched from 0 (every event is delivered at once) to TANDEM_HEDGE of its source\n") {
		t.Errorf("east still has %q, west %q; printed\n%s", w.set(t, "east"), w.set(t, "west"), out)
	}
}

func TestToStandByEverywhereIsRefused(t *testing.T) {
	t.Parallel()

	w := newHedgeWorld(t)
	w.source(t, "east", "0", 1)
	w.source(t, "west", "standby", 1)
	w.hedge(t, "flights", "standby").fails(t, 2, "all clusters would stand by, and no event would be processed: switch one cluster only")
	w.hedge(t, "--cluster", "east", "flights", "standby").fails(t, 2, "would stand by, and no event would be processed: switch another one from standby first")
	// A cluster that has not reported does not count.
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
		`ever run for function "fligh"`:                        {"fligh", "0"},
		`in cluster "south": the clusters are east`:            {"--cluster", "south", "flights", "0"},
	} {
		w.hedge(t, args...).fails(t, 2, want)
	}
	writer := pgtest.Role(t, w.env["DATABASE_URL"])
	u, err := url.Parse(writer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := schema.Grant(t.Context(), w.env["DATABASE_URL"], u.User.Username()); err != nil {
		t.Fatal(err)
	}
	w.env["DATABASE_URL"] = writer
	w.hedge(t, "flights").ok(t)
	w.hedge(t, "flights", "300ms").fails(t, 2, "use the role that runs tandem migrate")
}
