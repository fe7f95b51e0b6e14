package ledger_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestProgressIsStoredOnlyOverWhatItsWriterKnows(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := ledger.NewCheckpoints(pool, "east")
	load := func() (ledger.Checkpoint, string) {
		t.Helper()
		saved, timeline, err := east.Load(t.Context(), "orders", "EVENTS")
		if err != nil {
			t.Fatal(err)
		}
		return saved, timeline
	}
	save := func(floor uint64, last ledger.Checkpoint, adopt, want bool) ledger.Checkpoint {
		t.Helper()
		row := ledger.CheckpointUpdate{Epoch: "e1", Floor: floor, Head: floor + 5, Hedge: "300ms", Adopt: adopt}
		now, ok, err := east.Save(t.Context(), "orders", "EVENTS", row, last)
		if err != nil || ok != want {
			t.Fatalf("saved %t, %v, want %t", ok, err, want)
		}
		return now
	}

	none, timeline := load()
	if none != (ledger.Checkpoint{}) || !strings.HasSuffix(timeline, "/00000001") {
		t.Fatalf("before the first save: %+v, timeline %q", none, timeline)
	}
	first := save(7, none, false, true)
	if want := (ledger.Checkpoint{Epoch: "e1", Floor: 7, Timeline: timeline}); first != want {
		t.Errorf("saved %+v, want %+v", first, want)
	}
	save(8, none, false, false) // another process has saved since
	second := save(1<<63+9, first, false, true)
	if saved, _ := load(); saved != second {
		t.Errorf("loaded %+v, want %+v", saved, second)
	}
	save(10, first, false, false)

	// A failover to a standby that had received only the first save.
	if _, err := pool.Exec(t.Context(), `update tandem.progress set floor = 7, timeline = 'before'`); err != nil {
		t.Fatal(err)
	}
	save(11, second, false, false)
	survived, timeline := load()
	if survived.Floor != 7 || survived.Timeline != "before" || timeline == "before" {
		t.Fatalf("survived %+v, timeline %q", survived, timeline)
	}
	save(11, survived, false, false) // the failover has to be handled first
	rewind := ledger.CheckpointUpdate{Epoch: "e1", Floor: 7, Head: 9, Hedge: "300ms", Rewind: true}
	begun, ok, err := east.Save(t.Context(), "orders", "EVENTS", rewind, survived)
	if err != nil || !ok || begun != (ledger.Checkpoint{Epoch: "e1", Floor: 7}) {
		t.Fatalf("rewind noted as %+v, %t, %v", begun, ok, err)
	}
	save(11, begun, false, false) // not before the rewind is complete
	if now := save(7, begun, true, true); now.Timeline != timeline {
		t.Errorf("saved on timeline %q, want %q", now.Timeline, timeline)
	}
	if head := sinktest.Query[string](t, pool, `select head::text from tandem.progress`); head != "9223372036854775822" {
		t.Errorf("head %s: it fell with the rewind", head)
	}

	// The row is lost.
	if _, err := pool.Exec(t.Context(), `delete from tandem.progress`); err != nil {
		t.Fatal(err)
	}
	save(12, second, false, false)
	rewind.Floor = 0
	if begun, ok, err = east.Save(t.Context(), "orders", "EVENTS", rewind, ledger.Checkpoint{}); err != nil || !ok {
		t.Fatalf("rewind noted %t, %v", ok, err)
	}
	if saved, _ := load(); saved != begun || saved != (ledger.Checkpoint{Epoch: "e1"}) {
		t.Errorf("loaded %+v, noted %+v", saved, begun)
	}
}

func TestATimelineIsKnownWhereItIsHiddenAndNoneIsOnAStandby(t *testing.T) {
	t.Parallel()
	r, _ := sinktest.NewReplicated(t)
	admin := func(server *devcluster.Postgres) *pgxpool.Pool { return sinktest.NewPool(t, server.AdminURL("tandem")) }
	if err := r.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err := ledger.New(admin(r.Standby())).Committed(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "is a standby") {
		t.Errorf("a standby answers %v", err)
	}

	// Some managed services do that.
	if _, err := admin(r.Primary()).Exec(t.Context(), `revoke execute on function pg_control_system() from public`); err != nil {
		t.Fatal(err)
	}
	if err := r.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := sinktest.Query[string](t, sinktest.NewPool(t, r.URL()), `select tandem.timeline()`)
	sinktest.FailOver(t, r, sinktest.NewPool(t, r.URL()))
	after := sinktest.Query[string](t, sinktest.NewPool(t, r.URL()), `select tandem.timeline()`)
	if !strings.HasPrefix(before, "started/") || !strings.HasPrefix(after, "started/") || after == before {
		t.Errorf("before the failover %q, after it %q", before, after)
	}
}

func TestEarlier(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		timeline, other string
		want            bool
	}{
		{"17/00000002", "17/00000002", false},
		{"17/00000003", "17/00000002", false},
		{"17/0000000A", "17/0000000B", true},
		{"18/00000001", "17/00000002", false},
		{"started/1", "17/00000001", false},
		{"started/1", "started/2", false},
		{"", "17/00000001", false},
	} {
		if got := ledger.Earlier(tt.timeline, tt.other); got != tt.want {
			t.Errorf("Earlier(%q, %q) is %t", tt.timeline, tt.other, got)
		}
	}
}

func TestAClusterStandsByOnlyWhileAnotherOneIsAtWork(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east, west := ledger.NewCheckpoints(pool, "east"), ledger.NewCheckpoints(pool, "west")
	heads := map[string]uint64{"10s": 30}
	save := func(p *ledger.Checkpoints, hedge string) {
		t.Helper()
		last, _, err := p.Load(t.Context(), "orders", "EVENTS")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := p.Save(t.Context(), "orders", "EVENTS", ledger.CheckpointUpdate{Epoch: "e1", Floor: 7, Head: heads[hedge], Hedge: hedge}, last); err != nil || !ok {
			t.Fatalf("saved %t, %v", ok, err)
		}
	}
	ask := func(p *ledger.Checkpoints, want bool) {
		t.Helper()
		granted, err := p.StandBy(t.Context(), "orders")
		if err != nil || granted != want {
			t.Errorf("granted %t, %v, want %t", granted, err, want)
		}
	}
	age := func(cluster string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), `update tandem.progress set saved_at = now() - interval '4 minutes' where cluster = $1`, cluster); err != nil {
			t.Fatal(err)
		}
	}

	end := func(p *ledger.Checkpoints) {
		t.Helper()
		if err := p.EndStandBy(t.Context(), "orders"); err != nil {
			t.Error(err)
		}
	}

	end(west)        // nothing to end
	ask(west, false) // no other cluster has reported
	save(east, "0")
	ask(west, true) // before its own first checkpoint
	ask(east, false)
	save(west, "300ms") // a report
	ask(east, false)
	ask(west, true) // still granted
	age("east")
	ask(west, true) // already granted
	end(west)
	ask(west, false) // east has not reported for a while
	save(east, "standby")
	ask(west, false) // east has not decided yet
	save(east, "10s")
	ask(west, true)
	end(east) // the grant of another cluster
	ask(east, false)

	got, err := east.Clusters(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Age < 0 || got[i].Age > time.Hour {
			t.Errorf("%s was heard of %s ago", got[i].Cluster, got[i].Age)
		}
		got[i].Age = 0
	}
	if diff := cmp.Diff([]ledger.ClusterStatus{{Cluster: "east", Hedge: "10s", Behind: 23}, {Cluster: "west", Hedge: "standby", Behind: 23}}, got); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
}

func TestOfClustersThatAskAtOnceNeverAllStandBy(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	for round := range 20 {
		var clusters []*ledger.Checkpoints
		for _, name := range []string{"east", "west", "north"} {
			c := ledger.NewCheckpoints(pool, name)
			row := ledger.CheckpointUpdate{Epoch: "e1", Hedge: "0"}
			if _, _, err := c.Save(t.Context(), fmt.Sprint("f", round), "EVENTS", row, ledger.Checkpoint{}); err != nil {
				t.Fatal(err)
			}
			clusters = append(clusters, c)
		}
		granted := make(chan bool, len(clusters))
		for _, c := range clusters {
			go func() {
				for {
					if ok, err := c.StandBy(t.Context(), fmt.Sprint("f", round)); err == nil {
						granted <- ok
						return
					}
				}
			}()
		}
		n := 0
		for range clusters {
			if <-granted {
				n++
			}
		}
		if n != len(clusters)-1 {
			t.Fatalf("%d of %d clusters stand by", n, len(clusters))
		}
	}
}

func TestACheckpointSavedLateDoesNotEndStandby(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east, west := ledger.NewCheckpoints(pool, "east"), ledger.NewCheckpoints(pool, "west")
	save := func(p *ledger.Checkpoints, stream string) {
		t.Helper()
		last, _, err := p.Load(t.Context(), "orders", stream)
		if err != nil {
			t.Fatal(err)
		}
		update := ledger.CheckpointUpdate{Epoch: "e1", Floor: last.Floor + 1, Head: 9, Hedge: "0"}
		if _, ok, err := p.Save(t.Context(), "orders", stream, update, last); err != nil || !ok {
			t.Fatalf("saved %t, %v", ok, err)
		}
	}
	standBy := func(p *ledger.Checkpoints, want bool) {
		t.Helper()
		if granted, err := p.StandBy(t.Context(), "orders"); err != nil || granted != want {
			t.Errorf("granted %t, %v, want %t", granted, err, want)
		}
	}

	save(east, "EVENTS")
	save(west, "EVENTS")
	standBy(east, true)
	save(east, "EVENTS") // computed before
	standBy(west, false)
	save(east, "MORE") // when a stream is opened
	standBy(west, false)
	if _, err := pool.Exec(t.Context(), `delete from tandem.progress where cluster = 'east' and stream = 'EVENTS'`); err != nil {
		t.Fatal(err)
	}
	save(east, "EVENTS") // the first checkpoint again
	standBy(west, false)

	// A grant remains until it is ended, even if the process that received it
	// crashed before it switched.
	standBy(ledger.NewCheckpoints(pool, "east"), true)
	if err := east.EndStandBy(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	standBy(west, true)
	standBy(east, false)
}

func TestTheLedgerSaysWhatIsDone(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	var keys []ledger.Key
	for i := range 3000 {
		id := fmt.Sprintf("o-%d", i)
		keys = append(keys, ledger.NewKey("orders", "/test", id))
		if i%3 == 0 {
			o := sinktest.Order(id, 1)
			if i%2 == 0 {
				o.Effects.Writes, o.Effects.Outputs = nil, nil // an event without effects is committed, too
			}
			if i < 30 {
				if _, err := east.Commit(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	done, timeline, err := ledger.New(pool).Committed(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(timeline, "/00000001") {
		t.Errorf("on timeline %q", timeline)
	}
	if len(done) != 10 {
		t.Errorf("%d are done, want 10", len(done))
	}
	for i, k := range keys {
		if done[k] != (i < 30 && i%3 == 0) {
			t.Errorf("event %d: done is %t", i, done[k])
		}
	}
	if done, _, err := ledger.New(pool).Committed(t.Context(), nil); err != nil || len(done) != 0 {
		t.Errorf("nothing asked: %v, %v", done, err)
	}
}

func TestTriesAreKeptUntilTheEventIsSettled(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east, west := ledger.NewAttempts(pool, "east"), ledger.NewAttempts(pool, "west")
	save := func(epoch string, tries []ledger.EventAttempts, settled ...uint64) {
		t.Helper()
		if err := east.Save(t.Context(), "orders", "EVENTS", epoch, tries, settled); err != nil {
			t.Fatal(err)
		}
	}
	stale := 0
	expect := func(p *ledger.Attempts, epoch string, want ...ledger.EventAttempts) {
		t.Helper()
		got, gone, err := p.Load(t.Context(), "orders", "EVENTS", epoch)
		if err != nil {
			t.Fatal(err)
		}
		if gone != stale {
			t.Errorf("%d events of another epoch, want %d", gone, stale)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("tries (-want +got):\n%s", diff)
		}
	}

	save("e1", nil)
	save("e1", []ledger.EventAttempts{{Sequence: 3, Attempts: 1}, {Sequence: 1<<64 - 1, Attempts: 2, For: 1500 * time.Millisecond}})
	save("e1", []ledger.EventAttempts{{Sequence: 3, Attempts: 4, For: time.Hour}, {Sequence: 5, Attempts: 1}}, 1<<64-1)
	expect(east, "e1", ledger.EventAttempts{Sequence: 3, Attempts: 4, For: time.Hour}, ledger.EventAttempts{Sequence: 5, Attempts: 1})
	expect(west, "e1")
	save("e1", nil, 5)
	expect(east, "e1", ledger.EventAttempts{Sequence: 3, Attempts: 4, For: time.Hour})
	stale = 1
	expect(east, "e2")
	stale = 0
	expect(east, "e1") // of another epoch of the stream
}

func TestReplicationGivesTheStandbyServersAndHowFarTheyAreBehind(t *testing.T) {
	t.Parallel()
	r, pool := sinktest.NewReplicated(t)
	if list, err := ledger.Replication(t.Context(), pool); err != nil || len(list) != 0 {
		t.Errorf("a role without the privilege receives %v, %v", list, err)
	}
	admin := sinktest.NewPool(t, r.Primary().AdminURL("tandem"))
	if _, err := admin.Exec(t.Context(), `grant pg_monitor to tandem`); err != nil {
		t.Fatal(err)
	}
	if err := r.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The standby receives changes, and does not apply them.
	if _, err := sinktest.NewPool(t, r.Standby().AdminURL("tandem")).Exec(t.Context(), `select pg_wal_replay_pause()`); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `create table big as select repeat('x', 100) from generate_series(1, 10000)`); err != nil {
		t.Fatal(err)
	}
	list, err := ledger.Replication(t.Context(), pool)
	if err != nil || len(list) != 1 || list[0].Name != "standby" || list[0].Mode != "async" || list[0].Bytes < 1_000_000 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestATruncatedStreamLowersItsHorizonWithItsFloor(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := ledger.NewCheckpoints(pool, "east")
	save := func(row ledger.CheckpointUpdate, last ledger.Checkpoint) ledger.Checkpoint {
		t.Helper()
		row.Epoch, row.Head, row.Hedge = "e1", 160, "0"
		now, ok, err := east.Save(t.Context(), "orders", "events/0", row, last)
		if err != nil || !ok {
			t.Fatalf("saved %t, %v", ok, err)
		}
		return now
	}
	first := save(ledger.CheckpointUpdate{Floor: 150}, ledger.Checkpoint{})
	if _, err := pool.Exec(t.Context(), `insert into tandem.horizon (function, stream, epoch, floor)
values ('orders', 'events/0', 'e1', 150), ('orders', 'events/1', 'e1', 150), ('orders', 'events/0', 'e0', 150)`); err != nil {
		t.Fatal(err)
	}
	begun := save(ledger.CheckpointUpdate{Floor: 100, Rewind: true, Truncated: true}, first)
	if now := save(ledger.CheckpointUpdate{Floor: 100, Adopt: true}, begun); now.Floor != 100 {
		t.Errorf("floor %d, want 100", now.Floor)
	}
	for _, tt := range []struct {
		stream, epoch string
		want          uint64
	}{{"events/0", "e1", 100}, {"events/1", "e1", 150}, {"events/0", "e0", 150}} {
		if got, err := east.Horizon(t.Context(), "orders", tt.stream, tt.epoch); err != nil || got != tt.want {
			t.Errorf("horizon of %s in epoch %s is %d, %v, want %d", tt.stream, tt.epoch, got, err, tt.want)
		}
	}
}

func TestAClusterIsFitForAsLongAsItsCheckpointsAreFresh(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	east := ledger.NewCheckpoints(pool, "east")
	update := ledger.CheckpointUpdate{Epoch: "e1", Hedge: "share", Fit: true, CommitP99: 7 * time.Millisecond}
	status := func(age string) ledger.ClusterStatus {
		t.Helper()
		last, _, err := east.Load(t.Context(), "orders", "EVENTS")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := east.Save(t.Context(), "orders", "EVENTS", update, last); err != nil || !ok {
			t.Fatalf("saved %t, %v", ok, err)
		}
		if _, err := pool.Exec(t.Context(), `update tandem.progress set saved_at = now() - $1::interval`, age); err != nil {
			t.Fatal(err)
		}
		clusters, err := east.Clusters(t.Context(), "orders")
		if err != nil || len(clusters) != 1 {
			t.Fatalf("clusters %v, %v", clusters, err)
		}
		return clusters[0]
	}
	for age, want := range map[string]bool{"-1 hour": true, "4 s": false} {
		got := status(age)
		if got.Hedge != "share" || got.Fit != want || (got.CommitP99 == update.CommitP99) != want {
			t.Errorf("a checkpoint of %s ago: %+v, want fit %t", age, got, want)
		}
	}
	update.Fit = false
	if got := status("-1 hour"); got.Fit {
		t.Errorf("%+v, want not fit", got)
	}
}
