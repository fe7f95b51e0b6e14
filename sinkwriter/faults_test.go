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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error)
	key := ledger.NewKey("mine", "/test", "once")
	go func() {
		_, err := w.Commit(ctx, sinktest.Order("during", 1))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("a commit that ended while the database was read-only: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := w.Once(ctx, key, func(pgx.Tx) error { return nil }); err == nil {
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
	defer release()
	var offers []sinkwriter.Offer
	for i := range 20 {
		offers = append(offers, sinktest.Order(fmt.Sprint("o-", i), 1))
		if i != 7 {
			offers[i].Effects.Writes[1] = functions.Write{Op: functions.OpAdd, Table: "totals", Key: functions.Row{"region": fmt.Sprint("r-", i)}, Row: functions.Row{"orders": 1}}
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		for range 200 {
			if sinktest.Query[int](t, pool, `select count(*) from orders`) == 19 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if n := sinktest.Query[int](t, pool, `select count(*) from orders`); n != 19 {
			t.Errorf("%d orders are stored, want 19: all but the one that waits for a lock", n)
		}
		release()
	})
	for i, o := range commitTogether(t, pool.Config().ConnString(), offers...) {
		if o.err != nil {
			t.Errorf("offer %d: %v", i, o.err)
		}
	}
	all.Wait()
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
