package schema_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// shop returns a set of migrations whose second one can be broken.
func shop(second string) schema.MigrationSet {
	return schema.MigrationSet{Name: "shop", Files: fstest.MapFS{
		"0001_first.sql":  {Data: []byte("create table first (id int primary key);")},
		"0002_second.sql": {Data: []byte(second)},
		"README.md":       {Data: []byte("is no migration")},
	}}
}

func TestMigrationsAreAppliedOnceAndInOrder(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	set := shop("create table second (id int primary key references first);")
	var all sync.WaitGroup
	for range 4 { // concurrently: the others wait for the first
		all.Go(func() {
			if err := schema.Migrate(t.Context(), url, set); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	pool := sinktest.NewPool(t, url)
	if got := sinktest.Query[string](t, pool, `select string_agg(name, ' ' order by name) from tandem.migration where set = 'shop'`); got != "0001_first 0002_second" {
		t.Errorf("recorded: %s", got)
	}
	if err := schema.Check(t.Context(), pool, set); err != nil {
		t.Error(err)
	}
}

func TestABrokenMigrationLeavesNothingOfItself(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	err := schema.Migrate(t.Context(), url, shop("create table half (id int); select nonsense;"))
	if err == nil || !strings.Contains(err.Error(), "shop") || !strings.Contains(err.Error(), "0002_second") {
		t.Fatalf("error %v", err)
	}
	pool := sinktest.NewPool(t, url)
	if got := sinktest.Query[bool](t, pool, `select to_regclass('half') is null and to_regclass('first') is not null`); !got {
		t.Error("the broken one is half there, or the first is not")
	}
	err = schema.Check(t.Context(), pool, shop(""))
	if !errors.Is(err, schema.ErrMissing) || !strings.Contains(err.Error(), "0002_second") {
		t.Errorf("check: %v", err)
	}
}

func TestAnEditedMigrationIsRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url, shop("select 1")); err != nil {
		t.Fatal(err)
	}
	if err := schema.Migrate(t.Context(), url, shop("select 2")); err == nil || !strings.Contains(err.Error(), "0002_second has changed") {
		t.Errorf("error %v", err)
	}
	if err := schema.Check(t.Context(), sinktest.NewPool(t, url), shop("select 2")); err == nil || !strings.Contains(err.Error(), "0002_second has changed") {
		t.Errorf("check: %v", err)
	}
}

func TestAnEmptyDatabaseIsNotFit(t *testing.T) {
	t.Parallel()
	if err := schema.Check(t.Context(), sinktest.NewPool(t, pgtest.URL(t))); !errors.Is(err, schema.ErrMissing) {
		t.Errorf("error %v", err)
	}
}

func TestARoleCalledTandemKeepsItsTablesApart(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool := sinktest.NewPool(t, url)
	// The default search_path begins with the schema of the role's name: tandem, for a role
	// called tandem.
	database := sinktest.Query[string](t, pool, `select current_database()`)
	if _, err := pool.Exec(t.Context(), fmt.Sprintf(`alter database %s set search_path = tandem, public`, database)); err != nil {
		t.Fatal(err)
	}
	if err := schema.Migrate(t.Context(), url, shop("select 1")); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	if got := sinktest.Query[string](t, pool, `select relnamespace::regnamespace::text from pg_class where relname = 'first'`); got != "public" {
		t.Errorf("a function's table is in schema %s", got)
	}
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	commit := func(table string, row functions.Row) error {
		var fx functions.Effects
		fx.Insert(table, row)
		_, err := w.Commit(t.Context(), sinkwriter.Offer{Function: "shop", Version: "1", Event: sinktest.NewEvent(table), Effects: fx})
		return err
	}
	if err := commit("first", functions.Row{"id": 1}); err != nil {
		t.Error(err)
	}
	for _, table := range []string{"outbox", "tandem.outbox"} {
		var e *sinkwriter.Error
		if err := commit(table, functions.Row{"id": 1, "events": nil}); !errors.As(err, &e) || e.Fault != sinkwriter.FaultDeployment {
			t.Errorf("write to %s: %v", table, err)
		}
	}
}

func TestAMigrationDoesNotQueueOthersBehindItself(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url, shop("create table second (id int);")); err != nil {
		t.Fatal(err)
	}
	pool := sinktest.NewPool(t, url)
	longer, err := pool.Begin(t.Context()) // a transaction that stays open
	if err != nil {
		t.Fatal(err)
	}
	if _, err := longer.Exec(t.Context(), `lock table second in share mode`); err != nil {
		t.Fatal(err)
	}

	set := shop("create table second (id int);")
	set.Files.(fstest.MapFS)["0003_third.sql"] = &fstest.MapFile{Data: []byte("alter table second add column third int;")}
	done := make(chan error, 1)
	waits := `select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like 'alter table second%')`
	untilItWaits := func(want bool) {
		t.Helper()
		sinktest.Eventually(t, fmt.Sprintf("the migration waits: %t", want), func() bool { return sinktest.Query[bool](t, pool, waits) == want })
	}
	// During each wait the migration looks up which session blocks it, on another
	// connection. On a busy machine that connection may be too late; then the next wait
	// shows the session.
	for turns := 1; ; turns++ {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- schema.Migrate(ctx, url, set) }()
		for range turns {
			untilItWaits(true)
			if n := sinktest.Query[int](t, pool, `select count(*) from second`); n != 0 { // does not wait for the end of the migration
				t.Errorf("%d rows", n)
			}
			untilItWaits(false) // for a moment, in which others continue
		}
		untilItWaits(true)
		cancel()
		err := <-done
		if err == nil || !strings.Contains(err.Error(), "0003_third") {
			t.Fatalf("error %v", err)
		}
		if strings.Contains(err.Error(), "waits for a lock that other sessions hold (pid ") && strings.Contains(err.Error(), "idle in transaction") {
			break
		}
		if turns == 6 {
			t.Fatalf("error %v, want whom it waits for", err)
		}
	}

	// Migrate succeeds when the transactions that it waits for have ended.
	go func() { done <- schema.Migrate(t.Context(), url, set) }()
	untilItWaits(true)
	untilItWaits(false) // longer than one wait
	untilItWaits(true)
	if err := longer.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
