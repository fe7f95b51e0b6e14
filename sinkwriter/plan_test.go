package sinkwriter_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// outcome is the result that a caller of Commit received.
type outcome struct {
	receipt sinkwriter.Receipt
	err     error
}

// fault returns the fault of the error; empty if the offer was committed.
func (o outcome) fault() string {
	if o.err == nil {
		return ""
	}
	var e *sinkwriter.Error
	if errors.As(o.err, &e) {
		return e.Fault.String()
	}
	return o.err.Error()
}

// commitTogether commits the offers in one batch of a new writer. The writer
// has one connection, which is in use while the offers arrive.
func commitTogether(t *testing.T, url string, offers ...sinkwriter.Offer) []outcome {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 1})

	only, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	outcomes := make([]outcome, len(offers))
	var all sync.WaitGroup
	// The first batch contains whatever is waiting, so send one offer ahead.
	all.Go(func() {
		if _, err := w.Commit(t.Context(), write("ahead", functions.Effects{})); err != nil {
			t.Errorf("commit what goes ahead: %v", err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	for i, o := range offers {
		all.Go(func() { outcomes[i].receipt, outcomes[i].err = w.Commit(t.Context(), o) })
	}
	time.Sleep(50 * time.Millisecond) // a late offer would have a batch of its own
	only.Release()
	all.Wait()
	return outcomes
}

// write returns an offer of the effects for the event with that id.
func write(id string, fx functions.Effects) sinkwriter.Offer {
	return sinkwriter.Offer{Function: "f", Version: "1", Event: sinktest.NewEvent(id), Effects: fx}
}

// effects collects effects in one expression.
func effects(build ...func(*functions.Effects)) functions.Effects {
	var fx functions.Effects
	for _, b := range build {
		b(&fx)
	}
	return fx
}

func insert(table string, row functions.Row) func(*functions.Effects) {
	return func(fx *functions.Effects) { fx.Insert(table, row) }
}

func replace(table string, row functions.Row) func(*functions.Effects) {
	return func(fx *functions.Effects) { fx.Upsert(table, row, functions.Replace()) }
}

func add(table string, key, amounts functions.Row) func(*functions.Effects) {
	return func(fx *functions.Effects) { fx.Add(table, key, amounts) }
}

func remove(table string, key functions.Row) func(*functions.Effects) {
	return func(fx *functions.Effects) { fx.Delete(table, key) }
}

// rows returns a query's rows as text, one per line.
func rows(t *testing.T, pool *pgxpool.Pool, table, columns, order string) string {
	t.Helper()
	return sinktest.Query[string](t, pool, fmt.Sprintf(`select coalesce(string_agg(concat_ws(' ', %s), E'\n' order by %s), '') from %s`, columns, order, table))
}

func TestATableMayBeNamedInTwoWays(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table things (id text primary key, n bigint)`)
	got := commitTogether(t, pool.Config().ConnString(),
		write("1", effects(insert("things", functions.Row{"id": "a", "n": 1}))),
		write("2", effects(insert("public.things", functions.Row{"id": "b", "n": 2}))),
		write("3", effects(insert("things", functions.Row{"id": "c", "n": 3}), remove("public.things", functions.Row{"id": "c"}))),
		write("4", effects(add("public.things", functions.Row{"id": "d"}, functions.Row{"n": 1}), add("things", functions.Row{"id": "d"}, functions.Row{"n": 3}))),
	)
	for i, o := range got {
		if o.err != nil {
			t.Errorf("event %d: %v", i+1, o.err)
		}
	}
	if got := rows(t, pool, "things", "id, n", "id"); got != "a 1\nb 2\nd 4" {
		t.Errorf("rows:\n%s", got)
	}
}

// Invariant I6: tables addressed by their primary key, without secondary unique
// indexes, triggers or deletes of parents.
func TestHotRowsRollNothingBackAndNeverDeadlock(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	needCitext(t, pool)
	sinktest.Execute(t, pool, `
create table things (id int primary key, n bigint);
create table names (name citext primary key, n bigint);
create table newest (id int primary key, version bigint, n bigint, deleted boolean not null default false);
create table parents (id int primary key, n bigint);
create table children (id text primary key, parent int not null references parents, n bigint);
insert into parents select i, 0 from generate_series(0, 5) i`)
	pool.Reset()
	var all sync.WaitGroup
	for c, cluster := range []string{"east", "west"} {
		// Long enough that a busy machine causes no timeout.
		w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: cluster, Connections: 4, BatchEvents: 16, ClaimTimeout: 10 * time.Second, CommitTimeout: 20 * time.Second})
		for g := range 32 {
			all.Go(func() {
				for i := range 30 {
					// The other cluster has the same events, and some of its own.
					id := fmt.Sprintf("%d-%d", g, i)
					random := rand.New(rand.NewPCG(uint64(g), uint64(i)))
					if i%3 == 0 {
						id += cluster
						random = rand.New(rand.NewPCG(uint64(c), uint64(g*100+i)))
					}
					if _, err := w.Commit(t.Context(), write(id, hotEffects(random, i))); err != nil {
						t.Errorf("commit: %v", err)
					}
				}
			})
		}
	}
	all.Wait()
	if got := troubles(t, pool); got != "0 0" {
		t.Errorf("rollbacks and deadlocks: %s, want none", got)
	}
}

func hotEffects(random *rand.Rand, i int) functions.Effects {
	var fx functions.Effects
	for range 5 {
		key := functions.Row{"id": random.IntN(8)}
		row := functions.Row{"id": key["id"], "n": i}
		switch random.IntN(9) {
		case 0:
			fx.Upsert("things", row, functions.Replace())
		case 1:
			fx.Delete("things", key)
		case 2:
			fx.Insert("things", row)
		case 3:
			fx.Add("things", key, functions.Row{"n": 1})
		case 4:
			fx.Upsert("newest", functions.Row{"id": key["id"], "n": i, "version": random.IntN(9)}, functions.NewestWins("version"))
		case 5:
			fx.Delete("newest", key, functions.Version{Column: "version", Value: random.IntN(9)})
		case 6:
			fx.Add("parents", functions.Row{"id": random.IntN(6)}, functions.Row{"n": 1})
		case 7:
			fx.Upsert("children", functions.Row{"id": fmt.Sprint(random.IntN(8)), "parent": random.IntN(6), "n": i}, functions.Replace())
		case 8:
			fx.Add("names", functions.Row{"name": []string{"ann", "Ann", "BOB", "bob", "Carl", "cARL"}[random.IntN(6)]}, functions.Row{"n": 1})
		}
	}
	return fx
}

// troubles counts rollbacks and deadlocks since the database was created. The
// counts are complete, because the connections have ended.
func troubles(t *testing.T, pool *pgxpool.Pool) string {
	t.Helper()
	pool.Reset()
	other := sinktest.NewPool(t, pool.Config().ConnString())
	sinktest.Eventually(t, "connections end", func() bool {
		return sinktest.Query[int](t, other, `select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`) == 0
	})
	return sinktest.Query[string](t, other, `select format('%s %s', xact_rollback, deadlocks) from pg_stat_database where datname = current_database()`)
}

func TestTwoSpellingsOfOneKeyAreOneRow(t *testing.T) {
	t.Parallel()
	keys := []struct {
		name, column string
		a, b         any
	}{
		{"citext", "citext", "Ann", "aNN"},
		{"citext beyond ASCII", "citext", "Ünal", "ünal"}, // another row in locale C
		{"padded text", "char(6)", "ann", "ann   "},
		{"numeric", "numeric", "1.0", "1.00"},
		{"zero", "float8", 0.0, -1 / negativeInfinity()},
		{"case-insensitive collation", `text collate "nocase"`, "Ann", "aNN"},
		{"jsonb", "jsonb", []byte(`{"a":1}`), []byte(`{ "a" : 1.0 }`)},
		{"domain over citext", "nick", "Ann", "aNN"},
		{"address", "inet", "10.0.0.1", "10.0.0.1/32"},
	}
	pool := sinktest.NewDatabase(t)
	needCitext(t, pool)
	sinktest.Execute(t, pool, `create domain nick as citext`)
	_, noICU := pool.Exec(t.Context(), `create collation "nocase" (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`)
	if err, ok := errors.AsType[*pgconn.PgError](noICU); noICU != nil && (!ok || err.Code != "0A000") {
		t.Fatal(noICU)
	}
	for i, k := range keys {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			if noICU != nil && strings.Contains(k.column, "collate") {
				t.Skipf("the server has no such collations, and so nothing to test: %v", noICU)
			}
			in := func(table string) string { return fmt.Sprintf("%s_%d", table, i) }
			for _, table := range []string{"counted", "replaced", "inserted", "deleted", "revived", "twice"} {
				sinktest.Execute(t, pool, `create table `+in(table)+` (k `+k.column+` primary key, n bigint)`)
			}
			one := sinktest.Query[bool](t, pool, fmt.Sprintf(`select $1::text::%[1]s = $2::text::%[1]s`, strings.TrimSuffix(k.column, ` collate "nocase"`)), text(k.a), text(k.b)) ||
				strings.Contains(k.column, "collate")
			row := func(key any, n int) functions.Row { return functions.Row{"k": key, "n": n} }
			key := func(key any) functions.Row { return functions.Row{"k": key} }
			offers := []functions.Effects{
				effects(add(in("counted"), key(k.a), functions.Row{"n": 1})),
				effects(add(in("counted"), key(k.b), functions.Row{"n": 2})),
				effects(add(in("counted"), key(k.b), functions.Row{"n": 4}), add(in("counted"), key(k.a), functions.Row{"n": 8})),
				// The later one is kept, however the keys are sorted.
				effects(replace(in("replaced"), row(k.a, 1)), replace(in("replaced"), row(k.b, 2)), replace(in("replaced"), row(k.a, 3)), replace(in("replaced"), row(k.b, 4))),
				effects(insert(in("inserted"), row(k.b, 1)), insert(in("inserted"), row(k.a, 2))),
				effects(insert(in("deleted"), row(k.a, 1)), remove(in("deleted"), key(k.b))),
				effects(insert(in("revived"), row(k.a, 1)), remove(in("revived"), key(k.b)), insert(in("revived"), row(k.a, 3))),
				effects(replace(in("twice"), row(k.b, 1)), replace(in("twice"), row(k.a, 2))),
			}
			var all []sinkwriter.Offer
			for n, fx := range offers {
				all = append(all, write(fmt.Sprintf("%d-%d", i, n), fx))
			}
			for n, o := range commitTogether(t, pool.Config().ConnString(), all...) {
				if o.err != nil {
					t.Errorf("event %d: %v", n+1, o.err)
				}
			}
			want := map[string]string{"counted": "15", "replaced": "4", "inserted": "1", "deleted": "", "revived": "3", "twice": "2"}
			if !one {
				want = map[string]string{"counted": "6 9", "replaced": "3 4", "inserted": "1 2", "deleted": "1", "revived": "1", "twice": "1 2"}
			}
			state := map[string]string{}
			for table := range want {
				state[table] = sinktest.Query[string](t, pool, `select coalesce(string_agg(n::text, ' ' order by n), '') from `+in(table))
			}
			if diff := cmp.Diff(want, state); diff != "" {
				t.Errorf("%v and %v are one key: %t; rows (-want +got):\n%s", k.a, k.b, one, diff)
			}
		})
	}
}

func negativeInfinity() float64 {
	zero := 0.0
	return -1 / zero
}

func text(v any) string {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return fmt.Sprint(v)
}

// needCitext creates the extension, or fails the test with the package to
// install.
func needCitext(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `create extension if not exists citext`); err != nil {
		t.Fatalf("this test needs PostgreSQL's extension citext, which is in the package postgresql-contrib (Debian: in the server's own): %v", err)
	}
}

func TestAnEventsWritesMayDependOnTheirOrder(t *testing.T) { //nolint:tparallel // its parts share a database, so they come one after the other
	t.Parallel()
	const tables = `
drop table if exists users, tree, children, parents;
create table users (id text primary key, email text unique);
create table tree (id text primary key, parent text references tree, n int);
create table parents (id text primary key);
create table children (id text primary key, parent text references parents);
insert into users values ('b', 'x@example.com');
insert into parents values ('old');
insert into children values ('c', 'old');`
	tests := []struct {
		name string
		fx   functions.Effects
		want string // rows of all tables
	}{
		{
			"a unique value moves on to another row",
			effects(remove("users", functions.Row{"id": "b"}), insert("users", functions.Row{"id": "a", "email": "x@example.com"})),
			"a x@example.com|||old|c old",
		},
		{
			"a unique value is given up, then taken",
			effects(replace("users", functions.Row{"id": "b", "email": "y@example.com"}), insert("users", functions.Row{"id": "a", "email": "x@example.com"})),
			"a x@example.com, b y@example.com|||old|c old",
		},
		{
			"a row refers to one of its own table that sorts behind it",
			effects(insert("tree", functions.Row{"id": "z", "n": 1}), insert("tree", functions.Row{"id": "a", "parent": "z"})),
			"b x@example.com|a z, z||old|c old",
		},
		{
			"child and parent are inserted in the wrong order",
			effects(insert("children", functions.Row{"id": "d", "parent": "new"}), insert("parents", functions.Row{"id": "new"})),
			"b x@example.com|||new, old|c old, d new",
		},
		{
			"a parent is replaced",
			effects(insert("parents", functions.Row{"id": "new"}), replace("children", functions.Row{"id": "c", "parent": "new"}), remove("parents", functions.Row{"id": "old"})),
			"b x@example.com|||new|c new",
		},
		{
			"parent and child are deleted in the wrong order",
			effects(remove("parents", functions.Row{"id": "old"}), remove("children", functions.Row{"id": "c"})),
			"b x@example.com||||",
		},
		{
			"a parent is deleted with its child and both are there again",
			effects(remove("children", functions.Row{"id": "c"}), remove("parents", functions.Row{"id": "old"}),
				insert("parents", functions.Row{"id": "old"}), insert("children", functions.Row{"id": "c", "parent": "old"})),
			"b x@example.com|||old|c old",
		},
	}
	pool := sinktest.NewDatabase(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sinktest.Execute(t, pool, tables)
			w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
			if _, err := w.Commit(t.Context(), write(fmt.Sprint(i), tt.fx)); err != nil {
				t.Fatal(err)
			}
			list := func(table, columns string) string {
				return sinktest.Query[string](t, pool, fmt.Sprintf(`select coalesce(string_agg(concat_ws(' ', %s), ', ' order by id), '') from %s`, columns, table))
			}
			got := strings.Join([]string{list("users", "id, email"), list("tree", "id, parent"), "", list("parents", "id"), list("children", "id, parent")}, "|")
			if got != tt.want {
				t.Errorf("rows %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAForeignKeyThatIsAddedLaterIsNoticed(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table children (id text primary key, parent text); create table parents (id text primary key);`)
	// Long enough that a busy machine causes no retry.
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", ClaimTimeout: 10 * time.Second})
	family := func(i int) sinkwriter.Offer {
		id := fmt.Sprint(i)
		return write(id, effects(insert("parents", functions.Row{"id": id}), insert("children", functions.Row{"id": id, "parent": id})))
	}
	if _, err := w.Commit(t.Context(), family(0)); err != nil {
		t.Fatal(err)
	}
	sinktest.Execute(t, pool, `alter table children add foreign key (parent) references parents`)
	for i := range 3 {
		if _, err := w.Commit(t.Context(), family(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.Stats().Retries; got != 0 {
		t.Errorf("%d retries", got)
	}
}

func TestAnAmountThatIsNULLIsRefused(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	got := commitTogether(t, pool.Config().ConnString(),
		write("1", effects(add("totals", functions.Row{"region": "north"}, functions.Row{"orders": 1, "amount": 1}))),
		write("2", effects(add("totals", functions.Row{"region": "north"}, functions.Row{"orders": 1, "amount": nil}))),
		write("3", effects(add("totals", functions.Row{"region": "north"}, functions.Row{"orders": 1, "amount": 2}))),
	)
	if faults := got[0].fault() + "," + got[1].fault() + "," + got[2].fault(); faults != ",event," {
		t.Errorf("faults %s, want only the second to be refused as the event's", faults)
	}
	if got := rows(t, pool, "totals", "region, orders, amount", "region"); got != "north 2 3" {
		t.Errorf("totals %q", got)
	}
}

func TestDataThatExceedLimitsOfTheServerAreTheEventsFault(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	random := rand.New(rand.NewPCG(1, 2))
	long := make([]byte, 20_000) // does not compress to the maximum of an index entry
	for i := range long {
		long[i] = byte('!' + random.IntN(90))
	}
	got := commitTogether(t, pool.Config().ConnString(),
		write("1", effects(insert("orders", functions.Row{"id": string(long), "amount": 1}))),
		write("2", effects(insert("orders", functions.Row{"id": "short", "amount": 1}))),
	)
	if got[0].fault() != "event" || got[1].err != nil {
		t.Errorf("a key beyond what an index takes: fault %q, want event; the other: %v", got[0].fault(), got[1].err)
	}
}

func TestTheWriterIsKnownAfterItsFirstBatchFailed(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	got := commitTogether(t, pool.Config().ConnString(),
		sinkwriter.Offer{Function: "other", Version: "1", Event: sinktest.NewEvent("bad"), Effects: sinktest.Order("bad", -1).Effects},
		sinkwriter.Offer{Function: "other", Version: "1", Event: sinktest.NewEvent("good"), Effects: sinktest.Order("good", 1).Effects},
	)
	if got[0].fault() != "event" || got[1].err != nil {
		t.Fatalf("outcomes %v", got)
	}
	if got := sinktest.Query[int](t, pool, `select count(*) from tandem.handled('other', '/test', 'good') where cluster = 'east'`); got != 1 {
		t.Error("the winner cannot be determined: the cluster is not in tandem.writer")
	}
}

func TestOffersOfOneKeyInOneBatchAreComparedWithTheWinner(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	one, other := sinktest.Order("o", 1), sinktest.Order("o", 2)
	for _, offers := range [][]sinkwriter.Offer{{one, other, other, one, other}, {other, one, one, one, other}} {
		sinktest.Execute(t, pool, `delete from tandem.ledger; delete from orders; delete from totals`)
		for range 2 { // the second time all offers lose
			got := commitTogether(t, pool.Config().ConnString(), offers...)
			stored := sinktest.Query[int](t, pool, `select amount from orders`)
			for i, o := range got {
				is := 1
				if offers[i].Effects.Writes[0].Row["amount"] == 2 {
					is = 2
				}
				if o.err != nil || o.receipt.Diverged != (is != stored) {
					t.Errorf("offer %d of amount %d, where %d is stored: %+v, %v", i, is, stored, o.receipt, o.err)
				}
			}
		}
	}
}

func TestTimesAreStoredInUTCHoweverTheyAreGiven(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table times (id int primary key, at timestamp, day date, many timestamp[])`)
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.FixedZone("far", 9*3600)) // the day before in UTC
	day := time.Date(2001, 2, 2, 9, 0, 0, 0, at.Location())                // midnight in UTC
	var none *time.Time
	want := "2001-02-02 19:05:06 2001-02-02 {\"2001-02-02 19:05:06\"}"
	statement := functions.Statement{Name: "times", SQL: `insert into times values ($1, $2, $3, $4)`}
	for i, row := range []functions.Row{
		{"id": 0, "at": at, "day": day, "many": []time.Time{at}},
		{"id": 1, "at": &at, "day": &day, "many": []*time.Time{&at}},
		{"id": 2, "at": at, "day": day, "many": []any{at}},
	} {
		var fx functions.Effects
		fx.Insert("times", row)
		fx.Exec(statement, 10+i, row["at"], row["day"], row["many"])
		if o := commitTogether(t, pool.Config().ConnString(), write(fmt.Sprint(i), fx))[0]; o.err != nil {
			t.Fatal(o.err)
		}
		for _, id := range []int{i, 10 + i} {
			if got := sinktest.Query[string](t, pool, `select concat_ws(' ', at, day, many) from times where id = $1`, id); got != want {
				t.Errorf("row %d: %s, want %s", id, got, want)
			}
		}
	}
	var fx functions.Effects
	fx.Insert("times", functions.Row{"id": 99, "at": none, "many": []*time.Time{nil}})
	if o := commitTogether(t, pool.Config().ConnString(), write("99", fx))[0]; o.err != nil {
		t.Fatal(o.err)
	}
	if got := sinktest.Query[string](t, pool, `select format('%s|%s', at, many) from times where id = 99`); got != "|{NULL}" {
		t.Errorf("row of NULLs: %s", got)
	}
}

// As docs/postgres.md describes: the server cannot reject a value that it never
// receives.
func TestAWriteThatIsOverwrittenInItsBatchIsChecked(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	offer := func(id string, amount int) sinkwriter.Offer {
		var fx functions.Effects
		fx.Upsert("orders", functions.Row{"id": "x", "amount": amount}, functions.Replace())
		return sinkwriter.Offer{Function: "orders", Version: "1", Event: sinktest.NewEvent(id), Effects: fx}
	}
	// In the order of their keys: the digits at the end.
	var refused *sinkwriter.Error
	together := w.CommitAll(t.Context(), []sinkwriter.Offer{offer("o-1", -1), offer("o-2", 5)})
	if !errors.As(together[0].Err, &refused) || refused.Constraint != "orders_amount_check" || together[1].Err != nil {
		t.Errorf("together: %+v", together)
	}
	if _, err := w.Commit(t.Context(), offer("o-3", -1)); !errors.As(err, &refused) || refused.Fault != sinkwriter.FaultEvent {
		t.Errorf("alone: %v", err)
	}
	outcomes := w.CommitAll(t.Context(), []sinkwriter.Offer{offer("o-4", 6), offer("o-5", -1)})
	if outcomes[0].Err != nil || !errors.As(outcomes[1].Err, &refused) || refused.Constraint != "orders_amount_check" {
		t.Errorf("overwritten by one that is refused: %+v", outcomes)
	}
	if got := sinktest.Query[int](t, pool, "select amount from orders where id = 'x'"); got != 6 {
		t.Errorf("amount %d", got)
	}
}
