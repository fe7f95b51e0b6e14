package sinkwriter_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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
	// Whether it was committed is not to be known; it must be one or the other.
	r, err := w.Commit(t.Context(), sinktest.Order("o-1", 1))
	if err != nil || r.Diverged {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := sinktest.Query[string](t, pool, `select format('%s %s', (select count(*) from tandem.ledger), (select orders from totals where region = 'north'))`); got != "1 1" {
		t.Errorf("ledger and total: %s", got)
	}
}

// holdTotals locks the row that all orders add to, and gives what ends that.
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

// becomeStandby makes the server a standby at its next start.
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

// An operator's transaction that is forgotten in a terminal is no reason to hold
// up what has nothing to do with its row.
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
	defer release() // if that does not come
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

			for range 3 { // whatever order the columns come in
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

// Whose fault an error is, where its SQLSTATE alone does not decide that.
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

// A statement with a fault in it has that for every event.
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

// Tandem's own statements write nothing that is the event's.
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

// A migration that locks a table for long holds up the events that need the table, no others.
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

// A statement of one event cannot end the transaction, or change the connection, of others.
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
