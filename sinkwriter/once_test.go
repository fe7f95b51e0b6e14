package sinkwriter_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestOnceRunsOnceForAKey(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	var writers [2]*sinkwriter.Writer
	for i, cluster := range []string{"east", "west"} {
		writers[i] = sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: cluster})
	}
	key := ledger.NewKey("invoice", "/shop", "7")
	var won atomic.Int64
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			ok, err := sinktest.UntilDecided(func() (bool, error) {
				return writers[i%2].Once(t.Context(), key, func(tx pgx.Tx) error {
					_, err := tx.Exec(t.Context(), `insert into orders (id, amount) values ('7', 1)`)
					return err
				})
			})
			if err != nil {
				t.Error(err)
			}
			if ok {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("won %d times", won.Load())
	}
}

func TestOnceLeavesNoClaimWhenItsWorkFails(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	key := ledger.NewKey("invoice", "/shop", "7")

	broken := errors.New("broken")
	if won, err := w.Once(t.Context(), key, func(pgx.Tx) error { return broken }); won || !errors.Is(err, broken) {
		t.Errorf("%t, %v", won, err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = w.Once(t.Context(), key, func(pgx.Tx) error { panic("broken") })
		t.Error("the panic was swallowed")
	}()
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.ledger`); n != 0 {
		t.Errorf("%d claims are left", n)
	}
	if won, err := sinktest.UntilDecided(func() (bool, error) { return w.Once(t.Context(), key, func(pgx.Tx) error { return nil }) }); !won || err != nil {
		t.Errorf("the work can no longer be done: %t, %v", won, err)
	}
}

// A caller that computes while it holds the claim.
func TestOnceWhoseClaimTimedOutIsKnownNotToBeCommitted(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	key := ledger.NewKey("invoice", "/shop", "7")
	idle := true
	pause := func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `insert into orders (id, amount) values ('7', 1)`)
		if err != nil || !idle {
			return err
		}
		// Wait until the server has ended its transaction.
		for sinktest.Query[int](t, pool, `select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'`) > 0 {
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	}
	won, err := w.Once(t.Context(), key, pause)
	var answer *pgconn.PgError
	if won || !errors.As(err, &answer) || answer.Code != "25P03" || strings.Contains(err.Error(), "unknown") {
		t.Errorf("won %t, %v; want the server's answer 25P03, and no unknown outcome", won, err)
	}
	idle = false
	if won, err := sinktest.UntilDecided(func() (bool, error) { return w.Once(t.Context(), key, pause) }); !won || err != nil {
		t.Errorf("the next call: won %t, %v", won, err)
	}
}

func TestWritersOnOnePoolHaveTheirOwnTimeouts(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(sinktest.NewDatabase(t).Config().ConnString())
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for cluster, want := range map[string]struct{ claim, commit time.Duration }{"east": {time.Second, 20 * time.Second}, "west": {5 * time.Second, 10 * time.Second}} {
		w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: cluster, ClaimTimeout: want.claim, CommitTimeout: want.commit})
		var lock, statement int64
		if _, err := w.Once(t.Context(), ledger.NewKey("f", "/s", cluster), func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), `select (select setting::int from pg_settings where name = 'lock_timeout'), (select setting::int from pg_settings where name = 'statement_timeout')`).Scan(&lock, &statement)
		}); err != nil {
			t.Error(err)
		}
		// Above the claim timeout by a round trip, which takes less than a second on one
		// machine.
		if lock < want.claim.Milliseconds() || lock > (want.claim+time.Second).Milliseconds() || statement != want.commit.Milliseconds() {
			t.Errorf("%s: lock_timeout %d ms, statement_timeout %d ms, want %s and %s", cluster, lock, statement, want.claim, want.commit)
		}
	}
}
