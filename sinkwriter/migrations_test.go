package sinkwriter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// rollout is a version of a function that is deployed while its tables change. Its fields are
// the values that only this version writes.
type rollout struct {
	n          int    // column n of m and log
	at         string // the time of day in column d
	f          float64
	gone       bool
	note       string // the column's name; empty for none
	carrier    bool
	odd, even  string // labels
	partitions int
}

// effects returns the effects that a version computes for an event.
func (r rollout) effects(version, i int) functions.Effects {
	var fx functions.Effects
	at, err := time.Parse(time.RFC3339, "2001-02-03T"+r.at+"Z")
	if err != nil {
		panic(err)
	}
	id, mood := fmt.Sprint("e-", i), r.even
	if i%2 == 1 {
		mood = r.odd
	}
	row := functions.Row{"id": id, "version": version, "n": r.n + i, "d": at, "f": r.f, "mood": mood}
	if r.gone {
		row["gone"] = "x"
	}
	if r.note != "" {
		row[r.note] = "x"
	}
	if r.carrier {
		row["carrier"] = "x"
	}
	fx.Insert("child", functions.Row{"id": id, "m": id})
	fx.Insert("m", row)
	fx.Insert("p", functions.Row{"id": id, "part": i % r.partitions})
	fx.Add("hits", functions.Row{"k": "all"}, functions.Row{"n": 1})
	fx.Exec(functions.Statement{Name: "log", SQL: "insert into log (id, n, mood) values ($1, $2, $3) returning *"}, id, r.n, mood)
	return fx
}

// The tables of the function under load. Child is created before m: once it
// references m, its rows have to be written later.
const loadedSQL = `create type mood as enum ('glad');
create table child (id text primary key, m text);
create table m (id text primary key, version int not null, n int, d date, f real, gone text, mood mood);
create table p (id text, part int, primary key (id, part)) partition by list (part);
create table p_0 partition of p for values in (0); create table p_1 partition of p for values in (1);
create table hits (k text primary key, n bigint not null);
create table log (id text primary key, n int, mood mood)`

// loaded is a function under load: two clusters race for its events, and offer each one
// until it is committed.
type loaded struct {
	version   atomic.Int64
	versions  [100]rollout
	committed atomic.Int64 // events, by either cluster
	waiting   atomic.Int64 // answers that report a missing migration
	dead      atomic.Int64
	last      atomic.Int64 // the first event that is not offered
}

// offer offers blocks of events until the load ends, and then until all are committed.
func (l *loaded) offer(ctx context.Context, t *testing.T, w *sinkwriter.Writer, next *atomic.Int64) {
	t.Helper()
	const block = 8
	for ctx.Err() == nil {
		from := next.Add(block) - block
		if last := l.last.Load(); last > 0 && from >= last {
			return
		}
		todo := make([]int, block)
		for i := range todo {
			todo[i] = int(from) + i
		}
		for len(todo) > 0 && ctx.Err() == nil {
			version := int(l.version.Load())
			offers := make([]sinkwriter.Offer, len(todo))
			for i, n := range todo {
				offers[i] = sinkwriter.Offer{
					Function: "loaded", Version: fmt.Sprint(version), Event: sinktest.NewEvent(fmt.Sprint(n)), Effects: l.versions[version].effects(version, n),
				}
			}
			request, cancel := context.WithTimeout(ctx, 10*time.Second)
			outcomes := w.CommitAll(request, offers)
			cancel()
			again := todo[:0]
			for i, o := range outcomes {
				var refused *sinkwriter.Error
				switch {
				case o.Err == nil:
					if o.Receipt.Won {
						l.committed.Add(1)
					}
					continue
				case errors.As(o.Err, &refused) && (refused.Fault == sinkwriter.FaultEvent || refused.Fault == sinkwriter.FaultFunction):
					if l.dead.Add(1) < 5 {
						t.Errorf("an event is dead: %v", o.Err)
					}
					continue
				case refused != nil && refused.Fault == sinkwriter.FaultDeployment:
					l.waiting.Add(1)
				}
				again = append(again, todo[i])
			}
			todo = again
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// migrationsUnderLoad returns the changes to the tables and to the function, in order. After
// each change of the tables, events are committed.
func (l *loaded) migrationsUnderLoad(t *testing.T, pool *pgxpool.Pool) []func() {
	t.Helper()
	more := func(counter *atomic.Int64, n int64, what string) {
		t.Helper()
		until := counter.Load() + n
		sinktest.Eventually(t, what, func() bool { return counter.Load() >= until })
	}
	commits := func() { t.Helper(); more(&l.committed, 60, "more events are committed") }
	waits := func() { t.Helper(); more(&l.waiting, 3, "events wait for the deployment") }
	migrate := func(sql string) func() {
		return func() {
			t.Helper()
			begin := time.Now()
			for { // like a migration with a short lock timeout
				_, err := pool.Exec(t.Context(), sql)
				if err == nil {
					break
				}
				if t.Context().Err() != nil || time.Since(begin) > time.Minute {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			t.Logf("%s: %s", time.Since(begin).Round(time.Millisecond), sql)
		}
	}
	deploy := func(change func(*rollout)) func() {
		return func() {
			next := l.versions[l.version.Load()]
			change(&next)
			l.versions[l.version.Load()+1] = next
			l.version.Add(1)
		}
	}
	return []func(){
		commits,
		migrate(`alter table m alter n type bigint`), commits, migrate(`alter table log alter n type bigint`), deploy(func(r *rollout) { r.n = 1 << 40 }), commits,
		migrate(`alter table m alter d type timestamptz`), deploy(func(r *rollout) { r.at = "10:30:00" }), commits,
		migrate(`alter table m alter f type float8`), deploy(func(r *rollout) { r.f = 0.1 }), commits,
		migrate(`alter table m add column note text not null default ''`), commits, deploy(func(r *rollout) { r.note = "note" }), commits,
		migrate(`alter table m drop column gone`), waits, deploy(func(r *rollout) { r.gone = false }), commits,
		migrate(`alter table m rename column note to remark`), waits, deploy(func(r *rollout) { r.note = "remark" }), commits,
		migrate(`alter table m add column carrier text; update m set carrier = ''; alter table m alter carrier set not null`), waits,
		deploy(func(r *rollout) { r.carrier = true }), commits,
		migrate(`alter table log add column at timestamptz default now()`), commits, // the statement has another result
		deploy(func(r *rollout) { r.odd = "sad" }), waits, migrate(`alter type mood add value 'sad'`), commits,
		migrate(`alter type mood rename value 'glad' to 'happy'`), waits, deploy(func(r *rollout) { r.even = "happy" }), commits,
		migrate(`alter table m alter mood type text; alter table log alter mood type text; drop type mood; create type mood as enum ('happy', 'sad');
			alter table m alter mood type mood using mood::mood; alter table log alter mood type mood using mood::mood`), commits,
		deploy(func(r *rollout) { r.partitions = 3 }), waits,
		migrate(`create table p_2 (id text, part int, primary key (id, part)); alter table p attach partition p_2 for values in (2)`), commits,
		migrate(`alter table p detach partition p_1`), waits, migrate(`alter table p attach partition p_1 for values in (1)`), commits,
		migrate(`alter table m drop constraint m_pkey, add primary key (id, version)`), commits,
		migrate(`alter table m drop constraint m_pkey, add primary key (id)`), commits,
		migrate(`alter table child add foreign key (m) references m`), commits,
		migrate(`create index concurrently on m (n)`), commits,
		migrate(`alter table log rename to log_1; create table log (mood mood, n numeric, id text primary key)`), commits,
		migrate(`alter table hits rename to hits_1; create table hits (n bigint not null, k text primary key)`), commits,
		migrate(`alter table m add check (n >= 0) not valid; alter table m validate constraint m_n_check`), commits,
	}
}

// A migration causes no dead letter, loses no event and requires no restart.
func TestMigrationsUnderLoadHarmNoEvent(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, loadedSQL)
	l := &loaded{}
	l.versions[0] = rollout{at: "00:00:00", f: 0.5, gone: true, odd: "glad", even: "glad", partitions: 2}
	var all sync.WaitGroup
	for _, cluster := range []string{"east", "west"} {
		w := sinktest.NewWriter(t, sinktest.NewPool(t, pool.Config().ConnString()), sinkwriter.Config{Cluster: cluster})
		next := new(atomic.Int64)
		for range 3 {
			all.Go(func() { l.offer(t.Context(), t, w, next) })
		}
		defer func() { l.last.CompareAndSwap(0, next.Load()) }() // if the test ends early
	}
	defer all.Wait()
	for _, act := range l.migrationsUnderLoad(t, pool) {
		act()
		if t.Failed() {
			break
		}
	}
	offered := sinktest.Query[int64](t, pool, `select count(*) from tandem.ledger`) + 100
	offered += -offered & 7 // whole blocks
	l.last.Store(offered)
	all.Wait()

	events := sinktest.Query[int64](t, pool, `select count(*) from tandem.ledger`)
	if events < offered || l.committed.Load() != events || l.dead.Load() != 0 {
		t.Errorf("%d events are in the ledger, %d receipts, %d dead; want %d or more, and none dead", events, l.committed.Load(), l.dead.Load(), offered)
	}
	for _, sql := range []string{
		`select count(*) from m`, `select count(*) from p`, `select count(*) from child`, `select (select n from hits) + (select n from hits_1)`,
		`select count(*) from (select id from log union all select id from log_1) all_of_them`,
	} {
		if n := sinktest.Query[int64](t, pool, sql); n != events {
			t.Errorf("%s: %d, want %d", sql, n, events)
		}
	}
	// The effects that a version computes are stored unchanged, from its first
	// event on.
	for what, sql := range map[string]string{
		"a time of day": `select count(*) from m where version >= 2 and (d at time zone 'UTC')::time <> '10:30'`,
		"a float":       `select count(*) from m where version >= 3 and f <> 0.1::float8`,
		"a number":      `select count(*) from m where version >= 1 and n < 1::bigint << 40`,
	} {
		if n := sinktest.Query[int](t, pool, sql); n != 0 {
			t.Errorf("%s is stored as another one %d times", what, n)
		}
	}
}

// A flood of offers that do not fit reads the catalogs at most once per batch.
func TestAFloodOfBadOffersIsNoFloodOfCatalogReads(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	var reads atomic.Int64
	p := newProxy(t, pool.Config().ConnString(), func(m *message) pass {
		if m.kind == 'B' && !m.fromServer && strings.Contains(m.sql, "pg_catalog.pg_class c") && !strings.Contains(m.sql, "1 / ") {
			reads.Add(1)
		}
		return pass{}
	})
	w := sinktest.NewWriter(t, sinktest.NewPool(t, p.url), sinkwriter.Config{Cluster: "east", Connections: 1})
	if _, err := w.Commit(t.Context(), sinktest.Order("first", 1)); err != nil {
		t.Fatal(err)
	}
	before := reads.Load()
	const batches = 10
	for b := range batches {
		var offers []sinkwriter.Offer
		for i := range 20 {
			offer := sinktest.Order(fmt.Sprint(b, "-", i), 1)
			switch i % 4 {
			case 0:
				offer.Effects.Writes[0].Row["colour"] = "red"
			case 1:
				offer.Effects.Writes[0].Row["amount"] = "many"
			case 2:
				offer.Effects.Insert("nowhere", functions.Row{"id": 1})
			}
			offers = append(offers, offer)
		}
		for i, o := range w.CommitAll(t.Context(), offers) {
			if good := i%4 == 3; good != (o.Err == nil) {
				t.Errorf("offer %d: %v", i, o.Err)
			}
		}
	}
	// One read of the existing tables, and one that looks for the missing table, in each of
	// the two parts into which a batch may be split.
	if n := reads.Load() - before; n == 0 || n > 4*batches {
		t.Errorf("the catalogs were read %d times for %d batches", n, batches)
	}
}
