package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
)

// freedWithin is below the 15 s that the driver allows for the end of a
// connection.
const freedWithin = 10 * time.Second

// A server that is frozen, by SIGSTOP or because its packets are lost, answers neither a cancel
// request nor the end of a connection.
func TestThePlaceOfAConnectionToAFrozenServerIsFreeWithinSeconds(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	l := link.New()
	t.Cleanup(l.Close)
	linked, err := l.URL(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg := parse(t, linked)
	cfg.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	one, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	two, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.Set(link.Condition{Silent: true})
	for _, conn := range []*pgxpool.Conn{one, two} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := conn.Exec(ctx, "select 1"); err == nil {
			t.Error("the frozen server answered")
		}
		cancel()
		conn.Release()
	}
	begin := time.Now()
	sinktest.Eventually(t, "the places are free", func() bool { return pool.Stat().TotalConns() == 0 })
	if took := time.Since(begin); took > freedWithin {
		t.Errorf("that took %s", took)
	}
	l.Heal()
	if err := pool.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
