package sinkwriter_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// Invariant I4 with a synchronous standby that is unreachable: no cluster may
// acknowledge an event that the standby does not have, neither the winner nor
// one that finds the event committed.
func TestNobodyAcknowledgesWhatTheSynchronousStandbyDoesNotHave(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	if err := schema.Migrate(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	admin, err := pgx.Connect(t.Context(), server.AdminURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	standbys := func(names string) {
		t.Helper()
		for _, sql := range []string{"alter system set synchronous_standby_names = '" + names + "'", "select pg_reload_conf()"} {
			if _, err := admin.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
	pool, err := pgxpool.New(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), "create table orders (id text primary key, amount int)"); err != nil {
		t.Fatal(err)
	}
	offer := func(id string) sinkwriter.Offer {
		o := sinkwriter.Offer{Function: "orders", Version: "1", Event: sinktest.NewEvent(id)}
		o.Effects.Insert("orders", functions.Row{"id": id, "amount": 1})
		return o
	}
	newWriter := func(cluster string) *sinkwriter.Writer {
		w, err := sinkwriter.New(pool, sinkwriter.Config{Cluster: cluster, CommitTimeout: 300 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	writers := []*sinkwriter.Writer{newWriter("east"), newWriter("west")}
	t.Cleanup(func() {
		for _, w := range writers {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			_ = w.Close(ctx)
			cancel()
		}
	})
	// Each writer looks up the table while the standby still answers.
	if _, err := writers[0].Commit(t.Context(), offer("first")); err != nil {
		t.Fatal(err)
	}

	standbys("nobody")
	// The server applies the setting some time later: wait until a commit waits
	// for the standby.
	probing, stop := context.WithCancel(t.Context())
	probed := make(chan struct{})
	go func() {
		defer close(probed)
		for probing.Err() == nil {
			_, _ = pool.Exec(probing, "create table if not exists probe (); drop table probe")
		}
	}()
	sinktest.Eventually(t, "a commit waits for the standby", func() bool {
		var waits bool
		if err := admin.QueryRow(t.Context(), "select exists (select from pg_stat_activity where wait_event = 'SyncRep')").Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits
	})
	stop()
	<-probed
	// More events than connections may stay unanswered, for many commit timeouts.
	ids := []string{"a", "b", "c", "d", "e"}
	key := ledger.NewKey("orders", "/test", "once")
	once := func(ctx context.Context, w *sinkwriter.Writer) (bool, error) {
		return w.Once(ctx, key, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into orders values ('once', 1)")
			return err
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, w := range writers {
		for i, id := range ids {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 50 * time.Millisecond) // so that each has a batch of its own
				for range 2 {
					if r, err := w.Commit(ctx, offer(id)); err == nil {
						t.Errorf("%s was acknowledged, won: %t", id, r.Won)
					}
				}
			})
		}
		all.Go(func() {
			for ctx.Err() == nil {
				if won, err := once(ctx, w); err == nil {
					t.Errorf("Once was acknowledged, won: %t", won)
				}
			}
		})
	}
	all.Wait()
	var visible int
	if err := pool.QueryRow(t.Context(), "select count(*) from orders where id <> 'first'").Scan(&visible); err != nil || visible != 0 {
		t.Errorf("%d rows can be seen that no standby has, %v", visible, err)
	}

	standbys("")
	for i, w := range writers {
		for _, id := range ids {
			if _, err := w.Commit(t.Context(), offer(id)); err != nil {
				t.Errorf("%s after the standby was given up: %v", id, err)
			}
		}
		if won, err := sinktest.UntilDecided(func() (bool, error) { return once(t.Context(), w) }); err != nil || won && i > 0 {
			t.Errorf("Once after the standby was given up: won %t, %v", won, err)
		}
	}
	var rows int
	if err := pool.QueryRow(t.Context(), "select count(*) from orders").Scan(&rows); err != nil || rows != len(ids)+2 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// COMMITs without an answer on some connections do not stop commits on others.
func TestCOMMITsWithoutAnAnswerHoldUpNoOthers(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	var freezes atomic.Int64
	p := newProxy(t, pool.Config().ConnString(), func(m *message) pass {
		if !m.fromServer && m.kind == 'S' && len(m.pending) > 0 && m.pending[len(m.pending)-1] == "commit" && freezes.Add(-1) >= 0 {
			return pass{act: (*link.Conn).Freeze}
		}
		return pass{}
	})
	proxied := sinktest.NewPool(t, p.url)
	w := sinktest.NewWriter(t, proxied, sinkwriter.Config{Cluster: "east", Connections: 1, CommitTimeout: time.Second})
	if _, err := w.Commit(t.Context(), sinktest.Order("warm", 1)); err != nil {
		t.Fatal(err)
	}
	if err := w.Ready(); err != nil {
		t.Error(err)
	}
	const frozen = 3
	freezes.Store(frozen)
	// The server executes the COMMITs; whether the event is won is unknown.
	if _, err := w.Commit(t.Context(), sinktest.Order("one", 1)); err != nil {
		t.Errorf("the event whose COMMITs have no answer: %v", err)
	}
	sinktest.Eventually(t, "the writer is not ready", func() bool { return w.Ready() != nil })
	freezes.Store(frozen)
	key := ledger.NewKey("orders", "/test", "once")
	for range frozen {
		begin := time.Now()
		if won, err := w.Once(t.Context(), key, func(pgx.Tx) error { return nil }); err == nil {
			t.Errorf("a COMMIT that has no answer is decided: won %t", won)
		} else if took := time.Since(begin); took > heldUp {
			t.Errorf("Once returned after %s: %v", took, err)
		}
	}
	if r, err := w.Commit(t.Context(), sinktest.Order("two", 1)); err != nil || !r.Won {
		t.Errorf("another event: %+v, %v", r, err)
	}
	p.close() // the frozen connections end
	sinktest.Eventually(t, "the writer is ready again", func() bool { return w.Ready() == nil })
}
