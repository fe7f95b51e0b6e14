package ledger_test

import (
	stdcmp "cmp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestTheHedgeOfOneClusterWinsOverThatOfAll(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east, west := ledger.NewCheckpoints(pool, "east"), ledger.NewCheckpoints(pool, "west")
	set := func(cluster, value string) {
		t.Helper()
		if err := east.SetHedge(t.Context(), "orders", cluster, value); err != nil {
			t.Fatal(err)
		}
	}
	unset := func(cluster string) {
		t.Helper()
		if err := east.UnsetHedge(t.Context(), "orders", cluster); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(wantEast, wantWest string) {
		t.Helper()
		for s, want := range map[*ledger.Checkpoints]string{east: wantEast, west: wantWest} {
			if got, err := s.Hedge(t.Context(), "orders"); err != nil || got != want {
				t.Errorf("hedge %q, %v, want %q", got, err, want)
			}
		}
	}

	expect("", "")
	set("", "300ms")
	expect("300ms", "300ms")
	set("west", "10s")
	expect("300ms", "10s")
	if err := east.SetHedge(t.Context(), "payments", "", "0"); err != nil {
		t.Fatal(err)
	}
	expect("300ms", "10s") // the value belonged to another function
	got, err := west.Hedges(t.Context(), "orders")
	if diff := cmp.Diff(map[string]string{"": "300ms", "west": "10s"}, got); err != nil || diff != "" {
		t.Errorf("set, %v (-want +got):\n%s", err, diff)
	}
	set("", "0") // all in one call
	expect("0", "0")
	set("west", "1s")
	unset("west")
	expect("0", "0")
	set("west", "1s")
	unset("")
	expect("", "")
}

// A reader sees the row of its cluster or the row of all clusters, and never
// neither.
func TestASwitchOfAllClustersIsOneStepForReaders(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	west := ledger.NewCheckpoints(pool, "west")
	set := func(cluster, value string) {
		t.Helper()
		if err := west.SetHedge(t.Context(), "orders", cluster, value); err != nil {
			t.Error(err)
		}
	}
	set("west", "1s")
	ended := make(chan struct{})
	var switching sync.WaitGroup
	switching.Go(func() {
		defer close(ended)
		for range 100 {
			set("", "0")
			set("west", "1s")
		}
	})
	for reading := true; reading; {
		select {
		case <-ended:
			reading = false
		default:
		}
		if got, err := west.Hedge(t.Context(), "orders"); err != nil || got != "0" && got != "1s" {
			t.Fatalf("hedge %q, %v", got, err)
		}
	}
	switching.Wait()
}

func TestStandbyInEveryClusterIsNotSet(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	s := ledger.NewCheckpoints(pool, "")
	report := func(cluster, hedge string) {
		t.Helper()
		c := ledger.NewCheckpoints(pool, cluster)
		last, _, err := c.Load(t.Context(), "orders", "EVENTS")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := c.Save(t.Context(), "orders", "EVENTS", ledger.CheckpointUpdate{Epoch: "e1", Hedge: hedge}, last); err != nil || !ok {
			t.Fatalf("saved %t, %v", ok, err)
		}
	}
	expect := func(cluster, wantErr string) {
		t.Helper()
		err := s.SetHedge(t.Context(), "orders", cluster, "standby")
		if wantErr == "" && err != nil || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
			t.Errorf("standby of %q: %v, want %q", cluster, err, wantErr)
		}
	}

	report("east", "0")
	expect("", "switch one cluster only")
	expect("east", "switch another one from standby first") // it is the only cluster
	report("west", "standby")                               // by its configuration, or not decided yet
	expect("east", "switch another one from standby first")
	report("west", "0")
	expect("west", "")
	expect("east", "switch another one from standby first") // west has not switched yet
	if err := s.SetHedge(t.Context(), "orders", "west", "0"); err != nil {
		t.Fatal(err)
	}
	if granted, err := ledger.NewCheckpoints(pool, "west").StandBy(t.Context(), "orders"); err != nil || !granted {
		t.Fatalf("granted %t, %v", granted, err)
	}
	expect("east", "switch another one from standby first") // west still stands by
	if err := ledger.NewCheckpoints(pool, "west").EndStandBy(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	sinktest.Execute(t, pool, `update tandem.progress set saved_at = now() - interval '4 minutes' where cluster = 'west'`)
	expect("east", "reported in the last 3m0s")
	report("west", "0")
	expect("east", "")
	got, err := s.Hedges(t.Context(), "orders")
	if diff := cmp.Diff(map[string]string{"east": "standby", "west": "0"}, got); err != nil || diff != "" {
		t.Errorf("set, %v (-want +got):\n%s", err, diff)
	}
}

func TestOfTwoClustersThatAreSetToStandbyAtOnceOneIsRefused(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	s := ledger.NewCheckpoints(pool, "")
	clusters := []string{"east", "west"}
	for _, cluster := range clusters {
		c := ledger.NewCheckpoints(pool, cluster)
		if _, ok, err := c.Save(t.Context(), "orders", "EVENTS", ledger.CheckpointUpdate{Epoch: "e1", Hedge: "0"}, ledger.Checkpoint{}); err != nil || !ok {
			t.Fatalf("saved %t, %v", ok, err)
		}
	}
	for range 20 {
		refused := make(chan error, len(clusters))
		for _, cluster := range clusters {
			go func() { refused <- s.SetHedge(t.Context(), "orders", cluster, "standby") }()
		}
		first, second := <-refused, <-refused
		err := stdcmp.Or(first, second)
		if (first == nil) == (second == nil) || !strings.Contains(err.Error(), "would stand by") {
			t.Fatalf("%v and %v, want one to be refused", first, second)
		}
		if err := s.UnsetHedge(t.Context(), "orders", ""); err != nil {
			t.Fatal(err)
		}
	}
}
