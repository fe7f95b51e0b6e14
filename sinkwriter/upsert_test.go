package sinkwriter_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

func upsert(table string, row functions.Row, rule functions.Rule) func(*functions.Effects) {
	return func(fx *functions.Effects) { fx.Upsert(table, row, rule) }
}

func TestAnUpsertIsCheckedAgainstTheRowThatItLeaves(t *testing.T) {
	t.Parallel()
	const tables = `
create domain level as int check (value >= 0);
create table stock (item text primary key, n bigint not null check (n >= 0));
create table accounts (id text primary key, owner text not null, balance bigint, note text, version bigint, check (note <> owner));
create table levels (id text primary key, n level not null, m level);
create table guarded (id text primary key, n bigint);
create function guard() returns trigger language plpgsql as $$ begin if new.n < 0 then raise exception 'negative'; end if; return new; end $$;
create trigger guard before insert or update on guarded for each row execute function guard();
create table parts (id int primary key, n bigint check (n >= 0)) partition by range (id);
create table parts_0 partition of parts for values from (0) to (100);
create table per_cent (id text primary key, n int not null, part int generated always as (100 / n) stored);
insert into stock values ('a', 100), ('b', 3);
insert into accounts values ('a', 'ann', 5, null, 3);
insert into levels values ('a', 10, 1);
insert into guarded values ('a', 10);
insert into parts values (1, 10);
insert into per_cent values ('a', 10)`
	id := functions.Row{"id": "a"}
	n := func(n int) functions.Row { return functions.Row{"n": n} }
	tests := []struct {
		name  string
		fx    functions.Effects
		fault string
	}{
		{"1 of 100", effects(add("stock", functions.Row{"item": "a"}, n(-1))), ""},
		{"101 of 100", effects(add("stock", functions.Row{"item": "a"}, n(-101))), "event"},
		{"1 of none", effects(add("stock", functions.Row{"item": "none"}, n(-1))), "event"},
		{"add beside a NOT NULL", effects(add("accounts", id, functions.Row{"balance": 10})), ""},
		{"replace one of several columns", effects(replace("accounts", functions.Row{"id": "a", "balance": 10})), ""},
		{"newer, of some columns", effects(upsert("accounts", functions.Row{"id": "a", "note": "x", "version": 4}, functions.NewestWins("version"))), ""},
		{"a check of a column that is not written", effects(replace("accounts", functions.Row{"id": "a", "note": "ann"})), "event"},
		{"older, and not allowed", effects(upsert("accounts", functions.Row{"id": "a", "note": "ann", "version": 1}, functions.NewestWins("version"))), ""},
		{"insert of what is there", effects(insert("accounts", functions.Row{"id": "a", "owner": nil})), ""},
		{"insert of what is missing", effects(insert("accounts", functions.Row{"id": "b", "owner": nil})), "event"},
		{"replace of what is missing", effects(replace("accounts", functions.Row{"id": "b", "balance": 1})), "deployment"},
		{"a domain", effects(add("levels", id, functions.Row{"n": -1, "m": -1})), ""},
		{"a domain's limit", effects(add("levels", id, n(-11))), "event"},
		{"the least of a domain", effects(upsert("levels", functions.Row{"id": "a", "m": 0}, functions.Min())), ""},
		{"a trigger", effects(add("guarded", id, n(-1))), ""},
		{"a trigger's limit", effects(add("guarded", id, n(-11))), "event"},
		{"a partition", effects(add("parts", functions.Row{"id": 1}, n(-1))), ""},
		{"no partition", effects(add("parts", functions.Row{"id": 101}, n(1))), "deployment"},
		{"a generated column", effects(add("per_cent", id, n(0))), ""},
		{"a generated column's limit", effects(add("per_cent", id, n(-10))), "event"},
	}
	for _, beside := range []struct {
		name   string
		offers []sinkwriter.Offer
	}{
		{"alone", nil},
		{"beside others", []sinkwriter.Offer{
			// These offers are committed later, so the outcome of the earlier ones must
			// not depend on them.
			write("x-8", effects(add("stock", functions.Row{"item": "a"}, n(500)), add("stock", functions.Row{"item": "none"}, n(5)), add("levels", id, n(90)),
				add("guarded", id, n(90)), add("per_cent", id, n(30)))),
			write("x-9", effects(insert("accounts", functions.Row{"id": "b", "owner": "bob"}), replace("accounts", functions.Row{"id": "a", "note": "y"}))),
		}},
	} {
		t.Run(beside.name, func(t *testing.T) {
			t.Parallel()
			pool := sinktest.NewDatabase(t)
			sinktest.Execute(t, pool, tables)
			for i, tt := range tests {
				sinktest.Execute(t, pool, `truncate tandem.ledger; delete from stock where item = 'none'; delete from accounts where id = 'b';
update stock set n = 100 where item = 'a'; update accounts set note = null, version = 3; update levels set n = 10, m = 1; update guarded set n = 10; update per_cent set n = 10`)
				w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 1})
				for n, o := range w.CommitAll(t.Context(), append([]sinkwriter.Offer{write(fmt.Sprintf("%d-1", i), tt.fx)}, beside.offers...)) {
					want := ""
					if n == 0 {
						want = tt.fault
					}
					if got := (outcome{o.Receipt, o.Err}).fault(); got != want {
						t.Errorf("%s: event %d: fault %q, want %q: %v", tt.name, n, got, want, o.Err)
					}
				}
			}
			if got := rows(t, pool, "stock", "item, n", "item"); !strings.HasPrefix(got, "a ") || strings.Contains(got, "-") {
				t.Errorf("stock:\n%s", got)
			}
		})
	}
}

// The resulting rows do not depend on the order of the events, nor on their batches.
func TestRulesCommute(t *testing.T) {
	t.Parallel()
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	day := at.Truncate(24 * time.Hour)
	values := map[string][]any{
		"bigint":                 {3, 1, int64(1) << 60, -5},
		"numeric":                {"1.0", "1", "1.00", "0.999", "NaN", "-3"},
		"numeric(6, 2)":          {"1.010", "1", "1.01", "0.99", "1.0"},
		"float8":                 {0.0, math.Copysign(0, -1), 1.5, "NaN"},
		"interval":               {"1 mon", "30 days", "720 hours", "29 days 24 hours", "1 day"},
		"text":                   {"a", "B", "b", "ä", "Z", ""},
		`text collate "C"`:       {"a", "B", "b", "ä"},
		"citext":                 {"Ann", "ann", "ANN", "bob", "Äb", "äb"},
		"char(4)":                {"a", "a ", "B", "b"},
		"varchar(5)":             {"a", "b", "B"},
		"timestamptz":            {at, at.Add(time.Microsecond), at.In(time.FixedZone("", 3600))},
		"timestamptz(0)":         {at, at.Add(time.Second), at.In(time.FixedZone("", 3600))},
		"date":                   {day, day.AddDate(0, 0, 1)},
		"uuid":                   {"00000000-0000-0000-0000-00000000000b", "00000000-0000-0000-0000-00000000000A"},
		"bytea":                  {[]byte{}, []byte{1}, []byte{0xff}},
		"boolean":                {true, false},
		"money":                  {"1.50", "1.5", "-2"},
		"inet":                   {"10.0.0.1", "10.0.0.1/32", "10.0.0.0/24"},
		"jsonb":                  {map[string]any{"a": 1}, map[string]any{"a": 1.5}, []int{2}, "x"},
		"text[]":                 {[]string{"a", "B"}, []string{"a", "b"}, []string{}},
		"level":                  {3, 0, 2},
		"bigint check (x < 100)": {3, 1, 99},
	}
	pool := sinktest.NewDatabase(t)
	needCitext(t, pool)
	sinktest.Execute(t, pool, `create domain level as int check (value >= 0)`)
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range values {
			if !yield(name) {
				return
			}
		}
	})
	var offers []sinkwriter.Offer
	var tables []string
	for i, kind := range names {
		var fx [3]functions.Effects
		for order := range 3 {
			name := fmt.Sprintf("rules_%d_%d", i, order)
			tables = append(tables, name)
			sinktest.Execute(t, pool, fmt.Sprintf(`create table %s (k text primary key, x %s, n bigint, deleted boolean)`, name, kind))
			list := slices.Clone(values[kind])
			list = append(list, list...) // again, like redelivered events
			rand.New(rand.NewPCG(uint64(i), uint64(order))).Shuffle(len(list), func(a, b int) { list[a], list[b] = list[b], list[a] })
			for n, x := range list {
				of := func(rule string) functions.Row { return functions.Row{"k": rule, "x": x} }
				versioned := func(rule string) functions.Row {
					// Equal versions with other values.
					return functions.Row{"k": rule, "x": x, "n": slices.IndexFunc(values[kind], func(v any) bool { return cmp.Equal(v, x) || text(v) == text(x) }) % 3}
				}
				write1 := effects(
					upsert(name, of("max"), functions.Max()), upsert(name, of("min"), functions.Min()),
					upsert(name, versioned("newest"), functions.NewestWins("x")), upsert(name, versioned("oldest"), functions.OldestWins("x")),
					upsert(name, versioned("newest n"), functions.NewestWins("n")), upsert(name, versioned("oldest n"), functions.OldestWins("n")),
				)
				if order < 2 {
					offers = append(offers, write(fmt.Sprintf("r%d-%d-%d", i, order, n), write1))
				} else {
					fx[order].Writes = append(fx[order].Writes, write1.Writes...)
				}
			}
		}
		offers = append(offers, write(fmt.Sprintf("r%d-all", i), fx[2])) // all in one event
	}
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", BatchEvents: 32})
	for i, o := range w.CommitAll(t.Context(), offers) {
		if o.Err != nil {
			t.Errorf("event %s: %v", offers[i].Event.ID(), o.Err)
		}
	}
	for i, kind := range names {
		var got []string
		for order := range 3 {
			got = append(got, rows(t, pool, tables[3*i+order], "k, x::text, n", "k"))
		}
		if got[0] != got[1] || got[0] != got[2] || strings.Count(got[0], "\n") != 5 {
			t.Errorf("%s: the rows depend on the order:\n%s", kind, strings.Join(got, "\n\n"))
		}
	}
}

// Invariant I6 where rows are found first, and for rows of different columns.
func TestRowsThatAreFoundFirstNeverDeadlock(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `
create table stock (id int primary key, n bigint not null check (n > -1000000), owner text, version bigint, check (version >= 0));
create table things (id int primary key, a int, b int, c int)`)
	pool.Reset()
	var all sync.WaitGroup
	for c, cluster := range []string{"east", "west"} {
		w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: cluster, Connections: 4, BatchEvents: 16, ClaimTimeout: 10 * time.Second, CommitTimeout: 20 * time.Second})
		for g := range 32 {
			all.Go(func() {
				for i := range 30 {
					random := rand.New(rand.NewPCG(uint64(c*100+g), uint64(i)))
					var fx functions.Effects
					for range 4 {
						key := functions.Row{"id": random.IntN(12)}
						switch random.IntN(8) {
						case 0, 1:
							fx.Add("stock", key, functions.Row{"n": random.IntN(9) - 4})
						case 2:
							fx.Insert("stock", functions.Row{"id": key["id"], "n": 1})
						case 3:
							fx.Upsert("stock", functions.Row{"id": key["id"], "n": 2, "version": i}, functions.NewestWins("version"))
						case 4:
							fx.Delete("stock", key)
						case 5:
							fx.Delete("things", key)
						default:
							row := functions.Row{"id": key["id"]}
							for _, name := range []string{"a", "b", "c"} {
								if random.IntN(2) == 0 {
									row[name] = i
								}
							}
							fx.Upsert("things", row, functions.Replace())
						}
					}
					if _, err := w.Commit(t.Context(), write(fmt.Sprintf("%s-%d-%d", cluster, g, i), fx)); err != nil {
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

// A row that appears after the statement's snapshot is found nevertheless.
func TestAnUpsertDoesNotLoseARace(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table stock (item int primary key, n bigint not null check (n >= 0), m bigint)`)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 2})
	other, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Release()
	for i := range 20 {
		tx, err := other.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `insert into stock values ($1, 5, 1)`, i); err != nil {
			t.Fatal(err)
		}
		outcomes := make(chan outcome, 1)
		go func() {
			r, err := w.Commit(t.Context(), write(fmt.Sprint(i), effects(
				add("stock", functions.Row{"item": i}, functions.Row{"n": 3}), replace("stock", functions.Row{"item": i + 1000, "n": 1}),
			)))
			outcomes <- outcome{r, err}
		}()
		sinktest.Eventually(t, "the writer waits for the row", func() bool {
			return sinktest.Query[int](t, pool, `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`) > 0
		})
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if o := <-outcomes; o.err != nil || !o.receipt.Won {
			t.Errorf("%+v", o)
		}
	}
	if got := sinktest.Query[string](t, pool, `select format('%s %s %s', count(*), min(n), max(n)) from stock where item < 1000`); got != "20 8 8" {
		t.Errorf("rows, least and greatest: %s, want 20 8 8", got)
	}
}

// The number of statements depends on the number of shapes, not of rows.
func TestRowsOfDifferentColumnsAreFewStatements(t *testing.T) {
	t.Parallel()
	const events = 200
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table things (id int primary key, a int, b int, n numeric)`)
	var sql []string
	var mu sync.Mutex
	p := newProxy(t, pool.Config().ConnString(), func(m *message) pass {
		if !m.fromServer && m.kind == 'B' && strings.Contains(m.sql, "things") {
			mu.Lock()
			sql = append(sql, m.sql)
			mu.Unlock()
		}
		return pass{}
	})
	w := sinktest.NewWriter(t, sinktest.NewPool(t, p.url), sinkwriter.Config{Cluster: "east", Connections: 1})
	var offers []sinkwriter.Offer
	for i := range events {
		row := functions.Row{"id": i / 2 * 7 % events, "a": i}
		if i%3 == 0 {
			row["b"] = i
		}
		fx := effects(replace("things", row), add("things", functions.Row{"id": -1}, functions.Row{"n": fmt.Sprintf("%d.25", i)}))
		if i%5 == 0 {
			fx.Delete("things", functions.Row{"id": -2 - i})
		}
		offers = append(offers, write(fmt.Sprint("e-", i), fx))
	}
	for _, o := range w.CommitAll(t.Context(), offers) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	if len(sql) == 0 || len(sql) > 12 {
		t.Errorf("%d statements for %d events: %q", len(sql), events, sql)
	}
	if got := sinktest.Query[string](t, pool, `select n::text from things where id = -1`); got != "19950.00" {
		t.Errorf("the sum is %s", got)
	}
}
