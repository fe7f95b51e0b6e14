package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tandem-fn/tandem/hack/feed"

	"github.com/tandem-fn/tandem/test/peers/consume"
)

// smallWorkload is few enough events to finish quickly, and enough that two
// clusters race for most of them.
const smallWorkload = 600

func TestMain(m *testing.M) {
	if consume.Child() {
		return
	}
	os.Exit(m.Run())
}

func TestTheWorkloadComesToTheTruth(t *testing.T) {
	t.Parallel()

	truth, err := feed.Truth()
	if err != nil {
		t.Fatal(err)
	}
	w, err := makeWorkload(feed.Flights)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(truth, w.want); diff != "" {
		t.Errorf("the expected totals of all flights differ from those of the other program (-truth +workload):\n%s", diff)
	}
	twice, err := makeWorkload(2 * feed.Flights)
	if err != nil {
		t.Fatal(err)
	}
	identities := map[[2]string]bool{}
	for _, m := range twice.messages {
		identities[[2]string{m.Header.Get("ce-source"), m.Header.Get("ce-id")}] = true
	}
	if len(identities) != 2*feed.Flights || len(twice.messages) != 2*feed.Flights+2*feed.Flights/repeatEvery {
		t.Errorf("%d messages with %d identities, want %d with one in %d again", len(twice.messages), len(identities), 2*feed.Flights, repeatEvery)
	}
}

// One server for all subtests, because starting it is the slow part.
func TestPeers(t *testing.T) { //nolint:tparallel // they share the server and a database
	t.Parallel()

	var log bytes.Buffer
	d, err := deploy(t.Context(), "", false, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	t.Cleanup(d.close)
	load, err := makeWorkload(smallWorkload)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range allPeers() {
		t.Run(p.name+" does everything exactly once", func(t *testing.T) {
			got, err := d.throughput(t.Context(), p, p.concurrencies[0], load)
			if err != nil {
				t.Fatal(err)
			}
			if got.EventsPerSecond <= 0 || got.WALPerEvent < 100 || got.Connections == 0 {
				t.Errorf("measured %+v", got)
			}
		})
	}
	t.Run("latency is that of each event", func(t *testing.T) {
		got, err := d.latency(t.Context(), allPeers()[1], 4, load, 150)
		if err != nil {
			t.Fatal(err)
		}
		if got.Samples == 0 || got.Samples >= smallWorkload || got.CommitP50 <= 0 || got.CommitP99 < got.CommitP50 || got.OutputP50 <= 0 || got.OutputP99 < got.OutputP50 {
			t.Errorf("measured %+v", got)
		}
	})
	t.Run("a killed cluster loses nothing by hand", func(t *testing.T) {
		got, err := d.killed(t.Context(), allPeers()[1], 4, load)
		if err != nil {
			t.Fatal(err)
		}
		if got.Alone.wrong() || got.Back.wrong() || got.CaughtUp == 0 {
			t.Errorf("found %+v", got)
		}
	})
	t.Run("lost and doubled events are detected", func(t *testing.T) {
		testHarmIsSeen(t, d, load)
	})
}

func testHarmIsSeen(t *testing.T, d *deployment, load workload) {
	t.Helper()
	tr, err := d.begin(t.Context(), allPeers()[1], 4, load)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.end()
	if err := publish(t.Context(), d.JS, load.messages, 0); err != nil {
		t.Fatal(err)
	}
	if err := tr.start(t.Context(), east); err != nil {
		t.Fatal(err)
	}
	if err := tr.await(t.Context(), tr.through); err != nil {
		t.Fatal(err)
	}
	tr.kill(east)
	if err := tr.exact(t.Context()); err != nil {
		t.Fatalf("before the harm: %v", err)
	}
	for _, sql := range []string{
		"delete from flights where flight_id = 'flight-2001-000007'",
		"update airports set flights = flights + 2 where airport = 'ORD'",
	} {
		if _, err := tr.admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.JS.DeleteStream(t.Context(), consume.OutputStream); err != nil {
		t.Fatal(err)
	}
	if err := d.Conn.EnsureStream(t.Context(), outputs); err != nil {
		t.Fatal(err)
	}
	got, err := tr.outcome(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !got.wrong() || got.Lost != 1 || got.Doubled != 3 || got.OutputsLost != load.total().Delayed {
		t.Errorf("a row is deleted, two are added to a total, all outputs are gone, but found: %+v", got)
	}
	if tr.exact(t.Context()) == nil {
		t.Error("a wrong outcome is no error")
	}
}

func TestTheVerdictSaysWhoIsAhead(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name           string
		tandem, others []float64
		want           string
	}{
		{"goal", []float64{5000, 6000, 500}, []float64{1000, 1000, 100}, "The goal is reached"},
		{"ahead", []float64{2000, 2000, 2000}, []float64{1000, 900, 1000}, "Tandem is ahead, but the goal is not reached"},
		{"behind", []float64{900, 900, 900}, []float64{1000, 1000, 1000}, "Other is ahead"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			r := report{Rows: []*row{
				{Title: "Slow", peer: peer{consumer: "slow"}, Rounds: rounds(1, 1, 1)},
				{Title: "Other", peer: peer{consumer: "other"}, Rounds: rounds(tt.others...)},
				{Title: "Tandem", peer: peer{factor: tandemFactor}, Rounds: rounds(tt.tandem...)},
			}}
			if got := r.verdict(); !strings.Contains(got, tt.want) {
				t.Errorf("verdict is %q, want %q in it", got, tt.want)
			}
			for _, text := range []string{r.markdown(), r.chart()} {
				for _, title := range []string{"Slow", "Other", "Tandem"} {
					if !strings.Contains(text, title) {
						t.Errorf("%s is missing in\n%s", title, text)
					}
				}
			}
		})
	}
}

func TestAReportIsWrittenAgainFromItsJSON(t *testing.T) {
	t.Parallel()

	r := report{Begun: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Rate: 200, Rows: []*row{
		{Name: "river", Title: "River", peer: allPeers()[8], Rounds: rounds(1000), Latency: &latency{CommitP99: 5}, Killed: &killed{CaughtUp: 3}},
		{Name: "tandem", Title: "Tandem", peer: allPeers()[10], Rounds: rounds(7000), Tried: []attempt{{256, 6000}}},
	}}
	dir := t.TempDir()
	if _, err := r.write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	again, err := readReport(t.Context(), filepath.Join(dir, "peers.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.markdown(), again.markdown()); diff != "" {
		t.Errorf("the report differs (-first +again):\n%s", diff)
	}
	if again.chart() != r.chart() {
		t.Error("the chart differs")
	}
}

func rounds(list ...float64) []throughput {
	var all []throughput
	for _, f := range list {
		all = append(all, throughput{EventsPerSecond: f, Events: 1})
	}
	return all
}

func TestFlagsThatAreWrongAreExplained(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{{"--events", "7"}, {"--rounds", "-1"}, {"--rate", "0"}, {"--latency", "1s"}, {"--only", "nobody"}, {"--only", "("}, {"what"}, {"--no-such-flag"}} {
		var said bytes.Buffer
		if _, err := parseOptions(args, &said); err == nil || said.Len() == 0 {
			t.Errorf("flags %q: error %v, said %q", args, err, said.String())
		}
	}
}
