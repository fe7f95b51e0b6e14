package sinkwriter_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/test/pgtest"
)

// shop is a set of migrations of which the second can be broken.
func shop(second string) sinkwriter.MigrationSet {
	return sinkwriter.MigrationSet{Name: "shop", Files: fstest.MapFS{
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
	for range 4 { // at once: the others wait for the first
		all.Go(func() {
			if err := sinkwriter.Migrate(t.Context(), url, set); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	pool := newPool(t, url)
	if got := query[string](t, pool, `select string_agg(name, ' ' order by name) from tandem.migration where set = 'shop'`); got != "0001_first 0002_second" {
		t.Errorf("recorded: %s", got)
	}
	if err := sinkwriter.CheckSchema(t.Context(), pool, set); err != nil {
		t.Error(err)
	}
}

func TestABrokenMigrationLeavesNothingOfItself(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	err := sinkwriter.Migrate(t.Context(), url, shop("create table half (id int); select nonsense;"))
	if err == nil || !strings.Contains(err.Error(), "shop") || !strings.Contains(err.Error(), "0002_second") {
		t.Fatalf("error %v", err)
	}
	pool := newPool(t, url)
	if got := query[bool](t, pool, `select to_regclass('half') is null and to_regclass('first') is not null`); !got {
		t.Error("the broken one is half there, or the first is not")
	}
	err = sinkwriter.CheckSchema(t.Context(), pool, shop(""))
	if !errors.Is(err, sinkwriter.ErrSchema) || !strings.Contains(err.Error(), "0002_second") {
		t.Errorf("check: %v", err)
	}
}

func TestAnEditedMigrationIsRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	if err := sinkwriter.Migrate(t.Context(), url, shop("select 1")); err != nil {
		t.Fatal(err)
	}
	if err := sinkwriter.Migrate(t.Context(), url, shop("select 2")); err == nil || !strings.Contains(err.Error(), "0002_second has changed") {
		t.Errorf("error %v", err)
	}
}

func TestAnEmptyDatabaseIsNotFit(t *testing.T) {
	t.Parallel()
	if err := sinkwriter.CheckSchema(t.Context(), newPool(t, pgtest.URL(t))); !errors.Is(err, sinkwriter.ErrSchema) {
		t.Errorf("error %v", err)
	}
}

func TestARoleCalledTandemKeepsItsTablesApart(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool := newPool(t, url)
	// As with a role called tandem, whose first schema is that of its name.
	database := query[string](t, pool, `select current_database()`)
	if _, err := pool.Exec(t.Context(), fmt.Sprintf(`alter database %s set search_path = tandem, public`, database)); err != nil {
		t.Fatal(err)
	}
	if err := sinkwriter.Migrate(t.Context(), url, shop("select 1")); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	if got := query[string](t, pool, `select relnamespace::regnamespace::text from pg_class where relname = 'first'`); got != "public" {
		t.Errorf("a function's table is in schema %s", got)
	}
	w := newWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	commit := func(table string, row functions.Row) error {
		var fx functions.Effects
		fx.Insert(table, row)
		_, err := w.Commit(t.Context(), sinkwriter.Offer{Function: "shop", Version: "1", Event: newEvent(table), Effects: fx})
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
