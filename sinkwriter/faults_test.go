package sinkwriter_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// trap is a value that panics when it is encoded.
type trap struct{ text string }

func (trap) Value() (driver.Value, error) { panic("sprung") }

func (t trap) MarshalJSON() ([]byte, error) { return []byte(`"` + t.text + `"`), nil }

func TestAPanicLeavesNoClaimAndHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	offers := []sinkwriter.Offer{sinktest.Order("trap", 1)}
	offers[0].Effects.Writes[0].Row["note"] = nil
	offers[0].Effects.Writes[0].Row["placed"] = trap{"x"}
	for i := range 20 {
		offers = append(offers, sinktest.Order(fmt.Sprint("good-", i), 1))
	}
	got := commitTogether(t, pool.Config().ConnString(), offers...)
	for i, o := range got {
		if i == 0 && o.fault() != "function" || i > 0 && (o.err != nil || !o.receipt.Won) {
			t.Errorf("offer %d: %+v, %v", i, o.receipt, o.err)
		}
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.ledger where key = tandem.key('orders', '/test', 'trap')`); n != 0 {
		t.Error("the one that panicked is in the ledger")
	}
	if n := sinktest.Query[int](t, pool, `select orders from totals`); n != 20 {
		t.Errorf("%d orders, want 20", n)
	}
}

func TestAnOfferThatNobodyWaitsForLeavesNoClaimBehind(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 1})
	release := holdTotals(t, pool.Config().ConnString())
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := w.Commit(ctx, sinktest.Order("o-1", 1)); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want the context's", err)
		}
	})
	waitUntilBlocked(t, pool)
	cancel()
	all.Wait()
	release()
	// Whether it was committed is unknown; it must be one or the other.
	r, err := w.Commit(t.Context(), sinktest.Order("o-1", 1))
	if err != nil || r.Diverged {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := sinktest.Query[string](t, pool, `select format('%s %s', (select count(*) from tandem.ledger), (select orders from totals where region = 'north'))`); got != "1 1" {
		t.Errorf("ledger and total: %s", got)
	}
}

// holdTotals locks the row that all orders add to. It returns a function that
// releases the row.
func holdTotals(t *testing.T, databaseURL string) func() {
	t.Helper()
	sinktest.Execute(t, sinktest.NewPool(t, databaseURL), `insert into totals values ('north', 0, 0) on conflict do nothing`)
	return holdRow(t, databaseURL, `update totals set orders = orders where region = 'north'`)
}

// A primary that becomes a standby, and a standby that becomes the primary.
func TestACommitWaitsWhileTheDatabaseIsReadOnly(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	if err := schema.Migrate(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	pool := sinktest.NewPool(t, server.URL())
	sinktest.Execute(t, pool, sinktest.TablesSQL)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	if _, err := w.Commit(t.Context(), sinktest.Order("before", 1)); err != nil {
		t.Fatal(err)
	}

	becomeStandby(t, server.DataDir())
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	key := ledger.NewKey("mine", "/test", "once")
	go func() {
		_, err := w.Commit(t.Context(), sinktest.Order("during", 1))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("a commit that ended while the database was read-only: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := w.Once(t.Context(), key, func(pgx.Tx) error { return nil }); err == nil {
		t.Error("Once succeeded while the database was read-only")
	}
	admin := sinktest.NewPool(t, server.AdminURL("postgres"))
	sinktest.Execute(t, admin, `select pg_promote()`)
	promoted := time.Now()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("committed %s after the promotion", time.Since(promoted).Round(time.Millisecond))
	if n := sinktest.Query[int](t, pool, `select orders from totals`); n != 2 {
		t.Errorf("%d orders, want 2", n)
	}
}

// becomeStandby turns the server into a standby at its next start.
func becomeStandby(t *testing.T, dataDir string) {
	t.Helper()
	file := filepath.Join(dataDir, "standby.signal")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if account := unprivileged(t); account != nil {
		if err := os.Chown(file, int(account.UID), int(account.GID)); err != nil {
			t.Fatal(err)
		}
	}
}

// A transaction that an operator forgot in a terminal must only delay events
// that need its row.
func TestOneEventThatWaitsForALockDoesNotHoldUpItsBatch(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `insert into totals values ('south', 0, 0)`)
	release := holdTotals(t, pool.Config().ConnString())
	var offers []sinkwriter.Offer
	for i := range 20 {
		offers = append(offers, sinktest.Order(fmt.Sprint("o-", i), 1))
		if i != 7 {
			offers[i].Effects.Writes[1] = functions.Write{Op: functions.OpAdd, Table: "totals", Key: functions.Row{"region": fmt.Sprint("r-", i)}, Row: functions.Row{"orders": 1}}
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		for i, o := range commitTogether(t, pool.Config().ConnString(), offers...) {
			if o.err != nil {
				t.Errorf("offer %d: %v", i, o.err)
			}
		}
	})
	defer all.Wait()
	defer release() // if the test ends early
	sinktest.Eventually(t, "19 orders are stored: all but the one that waits for a lock", func() bool {
		return sinktest.Query[int](t, pool, `select count(*) from orders`) == 19
	})
}

func TestFingerprintIdentifiesWhatADeploymentLacks(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	if _, err := pool.Exec(t.Context(), "create table keyless (id int)"); err != nil {
		t.Fatal(err)
	}
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	tests := []struct {
		name   string
		change func(*functions.Effects)
		want   string
	}{
		{"table", func(fx *functions.Effects) { fx.Insert("gates", functions.Row{"id": 1}) }, "42P01 gates"},
		{"columns", func(fx *functions.Effects) {
			fx.Insert("orders", functions.Row{"id": "1", "zone": 1, "gate": 1, "hall": 2})
		}, "42703 orders.gate"},
		{"column that marks deleted rows", func(fx *functions.Effects) {
			fx.Delete("orders", functions.Row{"id": "1"}, functions.Version{Column: "amount", Value: 1})
		}, "42703 orders.deleted"},
		{"primary key", func(fx *functions.Effects) { fx.Insert("keyless", functions.Row{"id": 1}) }, "42P10 keyless"},
		{"function", func(fx *functions.Effects) {
			fx.Exec(functions.Statement{Name: "close", SQL: "select close_order($1::text)"}, "1")
		}, "42883 (statement close)"},
		{"none: it is the event's fault", func(fx *functions.Effects) { fx.Insert("orders", functions.Row{"id": nil}) }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			for range 3 { // the order of the columns varies
				var fx functions.Effects
				tt.change(&fx)
				_, err := w.Commit(t.Context(), sinkwriter.Offer{Function: "orders", Version: "1", Event: sinktest.NewEvent(tt.name), Effects: fx})
				var refused *sinkwriter.Error
				if !errors.As(err, &refused) {
					t.Fatalf("committed: %v", err)
				}
				if got := refused.Fingerprint(); got != tt.want {
					t.Errorf("fingerprint is %q, want %q: %v", got, tt.want, err)
				}
			}
		})
	}
}

// The faults of errors whose SQLSTATE alone is ambiguous.
func TestWhatAMigrationCanFixIsTheDeploymentsFault(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create type mood as enum ('glad');
create table moods (id text primary key, mood mood, query tsquery);
create table parts (id int primary key) partition by range (id);
create table parts_1 partition of parts for values from (0) to (10);
create table later (id text primary key, n int, zone text not null);
create sequence short maxvalue 2;
create table numbered (id text primary key, n int default nextval('short'));
insert into numbered values ('first'), ('second');
create table computed (id text primary key, n int generated always as (1) stored);`)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	tests := []struct {
		name, table string
		row         functions.Row
		want        string
		fingerprint string
	}{
		{"a label", "moods", functions.Row{"id": "1", "mood": "sad"}, "deployment", "22P02 moods"},
		{"a partition", "parts", functions.Row{"id": 10}, "deployment", "23514 parts"},
		{"a column without a default", "later", functions.Row{"id": "1"}, "deployment", "23502 later.zone"},
		{"the end of a sequence", "numbered", functions.Row{"id": "third"}, "deployment", "2200H numbered"},
		{"NULL that the function writes", "later", functions.Row{"id": "1", "zone": nil}, "event", ""},
		{"a value that is no number", "later", functions.Row{"id": "1", "zone": "x", "n": "x"}, "event", ""},
		{"a value that is no query", "moods", functions.Row{"id": "1", "query": "a b"}, "event", ""},
		{"a value of a column that is computed", "computed", functions.Row{"id": "1", "n": 2}, "event", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var fx functions.Effects
			fx.Insert(tt.table, tt.row)
			_, err := w.Commit(t.Context(), sinkwriter.Offer{Function: "f", Version: "1", Event: sinktest.NewEvent(tt.name), Effects: fx})
			var refused *sinkwriter.Error
			if !errors.As(err, &refused) {
				t.Fatalf("error %v", err)
			}
			if refused.Fault.String() != tt.want || refused.Fingerprint() != tt.fingerprint {
				t.Errorf("fault %s, fingerprint %q, want %s, %q: %v", refused.Fault, refused.Fingerprint(), tt.want, tt.fingerprint, err)
			}
		})
	}
}

// A statement with an error in it fails for every event.
func TestAStatementThatCannotBePreparedIsTheDeploymentsFault(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	for i, sql := range []string{"selct 1", "select 'x'::int", "select nothing"} {
		var fx functions.Effects
		fx.Exec(functions.Statement{Name: "s", SQL: sql})
		_, err := w.Commit(t.Context(), write(fmt.Sprint(i), fx))
		var refused *sinkwriter.Error
		if !errors.As(err, &refused) || refused.Fault != sinkwriter.FaultDeployment {
			t.Errorf("%s: %v, want the deployment's fault", sql, err)
		}
	}
}

// Tandem's own statements write nothing that depends on the event's content.
func TestOurOwnStatementsFailForNoEventsFault(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	for _, table := range []string{"tandem.writer", "tandem.ledger", "tandem.outbox"} {
		sinktest.Execute(t, pool, "alter table "+table+" add constraint broken check (false) not valid")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := w.Commit(ctx, sinktest.Order(table, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s cannot be written: %v, want the deadline", table, err)
		}
		cancel()
		sinktest.Execute(t, pool, "alter table "+table+" drop constraint broken")
		if _, err := w.Commit(t.Context(), sinktest.Order(table, 1)); err != nil {
			t.Errorf("%s can be written again: %v", table, err)
		}
	}
}

// A migration that locks a table for long only delays events that need the table.
func TestALockedTableHoldsUpNoEventsOfOthers(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table locked (id text primary key)`)
	release := holdRow(t, pool.Config().ConnString(), `lock table locked`)
	defer release()
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	var waiting, all sync.WaitGroup
	for i, sql := range []string{`insert into locked values ($1)`, `insert into locked select $1::text`} {
		var fx functions.Effects
		fx.Exec(functions.Statement{Name: "fill", SQL: sql}, fmt.Sprint(i))
		waiting.Go(func() {
			if r, err := w.Commit(ctx, write(fmt.Sprint("waits ", i), fx)); err != nil || !r.Won {
				t.Errorf("an event that waits for the table: %+v, %v", r, err)
			}
		})
	}
	for i := range 100 {
		all.Go(func() {
			time.Sleep(time.Duration(i) * 5 * time.Millisecond)
			if r, err := w.Commit(ctx, sinktest.Order(fmt.Sprint("o-", i), 1)); err != nil || !r.Won {
				t.Errorf("an event that does not: %+v, %v", r, err)
			}
		})
	}
	begin := time.Now()
	all.Wait()
	t.Logf("the others are committed after %s", time.Since(begin).Round(time.Millisecond))
	release()
	waiting.Wait()
}

// A statement of one event cannot end the transaction, or change the connection, that
// others use.
func TestAStatementDoesNotActOnTheTransactionOfOthers(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	for n, sql := range []string{
		"commit", " ROLLBACK;", "-- done\nend", "/* a /* b */ c */ set search_path to nowhere", "discard all", "copy orders from stdin",
	} {
		offers := []sinkwriter.Offer{sinktest.Order(fmt.Sprint("before ", n), 1), sinktest.Order(fmt.Sprint("with ", n), 1), sinktest.Order(fmt.Sprint("behind ", n), 1)}
		offers[1].Effects.Exec(functions.Statement{Name: "s", SQL: sql})
		for i, o := range w.CommitAll(t.Context(), offers) {
			var refused *sinkwriter.Error
			if i != 1 && o.Err != nil || i == 1 && (!errors.As(o.Err, &refused) || refused.Fault != sinkwriter.FaultFunction) {
				t.Errorf("%s, offer %d: %v", sql, i, o.Err)
			}
		}
		if stored := sinktest.Query[int](t, pool, `select count(*) from orders where id like '% ' || $1`, fmt.Sprint(n)); stored != 2 {
			t.Errorf("%s: %d orders are stored, want 2", sql, stored)
		}
	}
	var fx functions.Effects
	fx.Exec(functions.Statement{Name: "s", SQL: "(select 1)"})
	fx.Exec(functions.Statement{Name: "t", SQL: "/* keep */ update totals set orders = orders"})
	if _, err := w.Commit(t.Context(), write("allowed", fx)); err != nil {
		t.Errorf("statements that act on rows: %v", err)
	}
}

// faultCase is an error of the server with its fault.
type faultCase struct {
	name, setup string
	change      func(*functions.Effects)
	fault       string
	print       string // fingerprint
	repair      string // after which the same event is committed; empty if it never is
}

func execs(sql string, args ...any) func(*functions.Effects) {
	return func(fx *functions.Effects) { fx.Exec(functions.Statement{Name: "s", SQL: sql}, args...) }
}

var faultCases = []faultCase{
	{
		name: "23514 with a constraint", setup: `create table t (id text primary key, n int check (n > 0))`,
		change: inserts("t", functions.Row{"id": "a", "n": 0}), fault: "event",
	},
	{
		name: "23514 of a domain", setup: `create domain positive int check (value > 0); create table t (id text primary key, n positive)`,
		change: inserts("t", functions.Row{"id": "a", "n": 0}), fault: "event",
	},
	{
		name: "23514 without a constraint", setup: `create table t (id int primary key) partition by range (id)`,
		change: inserts("t", functions.Row{"id": 1}), fault: "deployment", print: "23514 t",
		repair: `create table t_1 partition of t for values from (0) to (10)`,
	},
	{
		name: "23514 that a trigger raises",
		setup: `create table t (id text primary key); create function no() returns trigger language plpgsql as $$ begin raise check_violation; end $$;
			create trigger no before insert on t for each row execute function no()`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "event",
	},
	{
		name: "23502 of a column that the function writes", setup: `create table t (id text primary key, n int not null)`,
		change: inserts("t", functions.Row{"id": "a", "n": nil}), fault: "event",
	},
	{
		name: "23502 of a column that it does not write", setup: `create table t (id text primary key, n int not null)`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "23502 t.n", repair: `alter table t alter n set default 1`,
	},
	{
		name: "23502 of a column of a partition that it does not write",
		setup: `create table t (id text primary key, n int not null) partition by hash (id);
			create table t_0 partition of t for values with (modulus 1, remainder 0)`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "23502 t_0.n", repair: `alter table t_0 alter n set default 1; alter table t alter n set default 1`,
	},
	{
		name: "23502 of a column that a statement writes", setup: `create table t (id text primary key, n int not null)`,
		change: execs(`insert into t (id, n) values ($1, $2)`, "a", nil), fault: "event",
	},
	{
		name: "23502 of a column that a statement does not write", setup: `create table t (id text primary key, n int not null)`,
		change: execs(`insert into t values ($1)`, "a"), fault: "deployment", print: "23502 t.n", repair: `alter table t alter n set default 1`,
	},
	{
		name: "23502 of a table that a trigger writes",
		setup: `create table t (id text primary key); create table log (id text, n int not null);
			create function log() returns trigger language plpgsql as $$ begin insert into log (id) values (new.id); return new; end $$;
			create trigger log before insert on t for each row execute function log()`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "23502 log.n", repair: `alter table log alter n set default 1`,
	},
	{
		name: "23503", setup: `create table parent (id text primary key); create table t (id text primary key, parent text references parent)`,
		change: inserts("t", functions.Row{"id": "a", "parent": "p"}), fault: "order", repair: `insert into parent values ('p')`,
	},
	{
		name: "42501 of a row policy",
		setup: `create table t (id text primary key); alter table t enable row level security; alter table t force row level security;
			create policy p on t with check (id <> 'a')`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "event",
	},
	{
		name: "42501 without a row policy", setup: `create table t (id text primary key); alter table t enable row level security; alter table t force row level security`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "42501 t", repair: `create policy p on t using (true)`,
	},
	{
		name: "42501 of a grant", setup: `create table t (id text primary key); revoke all on t from current_user`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "42501 t", repair: `grant all on t to current_user`,
	},
	{
		name: "42601 of a value", setup: `create table t (id text primary key, p jsonpath)`,
		change: inserts("t", functions.Row{"id": "a", "p": "$.["}), fault: "event",
	},
	{
		name: "42601 of a statement", change: execs(`insert into t values ($1, $2)`, "a", "b"), setup: `create table t (id text)`,
		fault: "deployment", print: "42601 (statement s)", repair: `alter table t add n text`,
	},
	{
		name: "42601 of a function of the database",
		setup: `create table t (id text primary key); create function broken() returns trigger language plpgsql as $$ begin execute 'selct 1'; return new; end $$;
			create trigger broken before insert on t for each row execute function broken()`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "42601 t", repair: `drop trigger broken on t`,
	},
	{
		name: "42P01 of a function of the database",
		setup: `create table t (id text primary key); create function broken() returns trigger language plpgsql as $$ begin insert into nowhere values (1); return new; end $$;
			create trigger broken before insert on t for each row execute function broken()`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "42P01 t", repair: `create table nowhere (n int)`,
	},
	{
		name: "54000 of a value", setup: `create table t (id text primary key)`,
		change: func(fx *functions.Effects) {
			key := make([]byte, 20_000) // does not compress to the size of an index page
			state := uint32(1)
			for i := range key {
				state = state*1664525 + 1013904223
				key[i] = 'a' + byte(state>>24)%26
			}
			fx.Insert("t", functions.Row{"id": string(key)})
		}, fault: "event",
	},
	{
		name: "2200H", setup: `create sequence short maxvalue 2; select nextval('short'), nextval('short'); create table t (id text primary key, n int default nextval('short'))`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "2200H t", repair: `alter sequence short maxvalue 10`,
	},
	{
		name: "22P02 of a malformed value", setup: `create table t (id text primary key, r int4range)`,
		change: inserts("t", functions.Row{"id": "a", "r": "[x"}), fault: "event",
	},
	{
		name: "22P02 of a missing label", setup: `create type mood as enum ('glad'); create table t (id text primary key, mood mood)`,
		change: inserts("t", functions.Row{"id": "a", "mood": "sad"}), fault: "deployment", print: "22P02 t", repair: `alter type mood add value 'sad'`,
	},
	{
		name: "22P02 of a missing label in a statement", setup: `create type mood as enum ('glad'); create table t (id text primary key, mood mood)`,
		change: execs(`insert into t (id, mood) values ($1, $2)`, "a", "sad"), fault: "deployment", print: "22P02 (statement s)", repair: `alter type mood add value 'sad'`,
	},
	{
		name: "22P02 of a missing label in an array", setup: `create type mood as enum ('glad'); create table t (id text primary key, moods mood[])`,
		change: inserts("t", functions.Row{"id": "a", "moods": "{sad}"}), fault: "deployment", print: "22P02 t", repair: `alter type mood add value 'sad'`,
	},
	{
		name: "a column that is missing", setup: `create table t (id text primary key)`,
		change: inserts("t", functions.Row{"id": "a", "n": 1}), fault: "deployment", print: "42703 t.n", repair: `alter table t add n int`,
	},
	{
		name: "a table that is missing", change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "42P01 t",
		repair: `create table t (id text primary key)`,
	},
	{
		name: "a table of a statement that is missing", change: execs(`insert into t values ($1)`, "a"), fault: "deployment", print: "42P01 (statement s)",
		repair: `create table t (id text primary key)`,
	},
	{
		name: "a value that is too large for a column", setup: `create table t (id text primary key, n int)`,
		change: inserts("t", functions.Row{"id": "a", "n": 1 << 40}), fault: "event", repair: `alter table t alter n type bigint`,
	},
	{
		name: "an argument that is too large for a column", setup: `create table t (id text primary key, n int)`,
		change: execs(`insert into t (id, n) values ($1, $2)`, "a", 1<<40), fault: "event", repair: `alter table t alter n type bigint`,
	},
	{
		name: "a key that has changed", setup: `create table t (id text, day int, primary key (id, day))`,
		change: upserts("t", functions.Row{"id": "a"}), fault: "function", repair: `alter table t drop constraint t_pkey, alter day drop not null, add primary key (id)`,
	},
	{
		name: "a primary key that is missing", setup: `create table t (id text)`,
		change: inserts("t", functions.Row{"id": "a"}), fault: "deployment", print: "42P10 t", repair: `alter table t add primary key (id)`,
	},
}

// The fault of each error, alone and in a batch. After the repair the same event is committed
// at once, without a restart.
func TestWhoseFaultAnErrorIs(t *testing.T) {
	t.Parallel()

	// To create and drop a database takes longer than a case, so cases take turns in a few.
	const databases = 4
	free := make(chan *pgxpool.Pool, databases)
	for range databases {
		free <- sinktest.NewDatabase(t)
	}
	for _, tt := range faultCases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			pool := <-free
			t.Cleanup(func() { free <- pool })
			sinktest.Execute(t, pool, `drop schema public cascade; create schema public; truncate tandem.ledger;`+sinktest.TablesSQL)
			if tt.setup != "" {
				sinktest.Execute(t, pool, tt.setup)
			}
			speakGerman(t, pool)
			w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
			for i, beside := range []bool{false, true} {
				commitToTable(t, w, tableOffer{change: tt.change, fault: tt.fault, print: tt.print}, i, beside)
			}
			if tt.repair == "" {
				return
			}
			sinktest.Execute(t, pool, tt.repair)
			commitToTable(t, w, tableOffer{change: tt.change}, 2, false)
		})
	}
}

// speakGerman sets German as the language of the server's messages on later
// connections, if the server has it: the classification must not depend on an error's
// text.
func speakGerman(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	admin := sinktest.NewPool(t, pgtest.SuperuserURL(t, pool.Config().ConnString()))
	_, err := admin.Exec(t.Context(), "alter role "+pool.Config().ConnConfig.User+" set lc_messages = 'de_DE.UTF-8'")
	admin.Close()
	pool.Reset()
	var answer *pgconn.PgError
	_, failed := pool.Exec(t.Context(), "select nothing")
	switch {
	case err != nil:
		t.Logf("the server has no German: %v", err)
	case !errors.As(failed, &answer) || !strings.Contains(answer.Message, "Spalte"):
		t.Logf("the server has German, but no German messages: %v", failed)
	}
}

// An error of one of Tandem's own statements is an outage, whatever its SQLSTATE is.
func TestAnErrorOfOurOwnStatementsIsNoEventsFault(t *testing.T) {
	t.Parallel()

	const raiseSQL = `create function no() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '%[2]s'; end $$;
create trigger no before insert on tandem.%[1]s for each row execute function no()`
	for name, tt := range map[string]struct{ breaks, repair string }{
		"grant on the outbox":  {`revoke insert on tandem.outbox from %[1]s`, `grant insert on tandem.outbox to %[1]s`},
		"grant on the ledger":  {`revoke insert on tandem.ledger from %[1]s`, `grant insert on tandem.ledger to %[1]s`},
		"trigger on ledger":    {fmt.Sprintf(raiseSQL, "ledger", "P0001"), `drop trigger no on tandem.ledger`},
		"trigger on outbox":    {fmt.Sprintf(raiseSQL, "outbox", "22003"), `drop trigger no on tandem.outbox`},
		"trigger on writer":    {fmt.Sprintf(raiseSQL, "writer", "XX000"), `drop trigger no on tandem.writer`},
		"column of the outbox": {`alter table tandem.outbox rename events to eventz`, `alter table tandem.outbox rename eventz to events`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			owner := sinktest.NewDatabase(t)
			url := pgtest.Role(t, owner.Config().ConnString())
			config, err := pgx.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			role := config.User
			if _, err := schema.Grant(t.Context(), owner.Config().ConnString(), role); err != nil {
				t.Fatal(err)
			}
			sinktest.Execute(t, owner, "grant all on all tables in schema public to "+role)
			pool := sinktest.NewPool(t, url)
			w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
			run := func(sql string) {
				if strings.Contains(sql, "%[1]s") {
					sql = fmt.Sprintf(sql, role)
				}
				sinktest.Execute(t, owner, sql)
			}
			run(tt.breaks)
			orders := func(ctx context.Context, batch string) []sinkwriter.Outcome {
				var offers []sinkwriter.Offer
				for i := range 10 {
					offers = append(offers, sinktest.Order(fmt.Sprint(batch, i), 1))
				}
				return w.CommitAll(ctx, offers)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			for i, o := range orders(ctx, "broken ") {
				var refused *sinkwriter.Error
				if o.Err == nil || errors.As(o.Err, &refused) && refused.Fault != sinkwriter.FaultTransient {
					t.Errorf("offer %d: %v, want an outage", i, o.Err)
				}
			}
			run(tt.repair)
			for i, o := range orders(t.Context(), "broken ") {
				if o.Err != nil {
					t.Errorf("offer %d, repaired: %v", i, o.Err)
				}
			}
		})
	}
}

// pausing is a process that pauses before each query that looks up a table.
type pausing struct{ pause time.Duration }

func (p pausing) TraceQueryStart(ctx context.Context, _ *pgx.Conn, query pgx.TraceQueryStartData) context.Context {
	if strings.Contains(query.SQL, "pg_catalog") {
		time.Sleep(p.pause)
	}
	return ctx
}

func (pausing) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Nothing is claimed while a table is looked up, so the claim timeout does not end the
// lookup.
func TestABusyProcessLooksATableUp(t *testing.T) {
	t.Parallel()

	const claimTimeout = 100 * time.Millisecond
	config := sinktest.NewDatabase(t).Config()
	config.ConnConfig.Tracer = pausing{2 * claimTimeout}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", ClaimTimeout: claimTimeout})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if r, err := w.Commit(ctx, sinktest.Order("o-1", 1)); err != nil || !r.Won {
		t.Errorf("%+v, %v", r, err)
	}
}

// A role may have timeouts of its own, for people who use it.
func TestTimeoutsOfTheRoleEndNothing(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	config := pool.Config()
	sinktest.Execute(t, pool, `create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.1); return new; end $$;
create trigger slow before insert on orders for each row execute function slow()`)
	for _, setting := range []string{"statement_timeout = '50ms'", "lock_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'"} {
		sinktest.Execute(t, pool, "alter role "+config.ConnConfig.User+" set "+setting)
	}
	w := sinktest.NewWriter(t, sinktest.NewPool(t, config.ConnString()), sinkwriter.Config{Cluster: "east"})
	if r, err := w.Commit(t.Context(), sinktest.Order("o-1", 1)); err != nil || !r.Won {
		t.Errorf("%+v, %v", r, err)
	}
}
