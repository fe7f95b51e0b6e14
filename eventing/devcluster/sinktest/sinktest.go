// Package sinktest is shared by the tests of sinkwriter's packages: a migrated database
// with tables, a writer, events and queries.
package sinktest

import (
	"cmp"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest/patience"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// TablesSQL creates the tests' tables.
const TablesSQL = `
create table orders (id text primary key, amount bigint not null check (amount >= 0), placed timestamptz, note jsonb, tags text[]);
create table totals (region text primary key, orders bigint not null, amount bigint);
create table lines (order_id text references orders, line int, primary key (order_id, line));`

// NewDatabase returns a pool on a migrated database with the tests' tables.
func NewDatabase(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	url := pgtest.URL(tb)
	if err := schema.Migrate(tb.Context(), url); err != nil {
		tb.Fatal(err)
	}
	pool := NewPool(tb, url)
	if _, err := pool.Exec(tb.Context(), TablesSQL); err != nil {
		tb.Fatal(err)
	}
	return pool
}

// NewPool returns a pool of up to 8 connections, until the test ends.
func NewPool(tb testing.TB, url string) *pgxpool.Pool {
	tb.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		tb.Fatal(err)
	}
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(tb.Context(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// NewWriter returns a writer that logs to the test and is closed when it ends. Without a
// publisher its attempts default to 20 s, because a busy machine may delay a COMMIT for
// longer than the usual 5 s, and a winner that does not learn its outcome has lost. The
// timeout of a writer with a publisher does not change: it is part of the lease of its
// outputs.
func NewWriter(tb testing.TB, pool *pgxpool.Pool, config sinkwriter.Config) *sinkwriter.Writer {
	tb.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(tb.Output(), nil))
	}
	if config.Publisher == nil {
		config.CommitTimeout = cmp.Or(config.CommitTimeout, 20*time.Second)
	}
	w, err := sinkwriter.New(pool, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Close(ctx); err != nil {
			tb.Errorf("close writer: %v", err)
		}
	})
	return w
}

// NewEvent returns an event of source /test.
func NewEvent(id string) event.Event {
	e := event.New()
	e.SetSource("/test")
	e.SetID(id)
	e.SetType("com.example.order.placed")
	e.SetTime(time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC))
	return e
}

// Order returns the offer of the test function: a row, the region's total, and an
// output.
func Order(id string, amount int) sinkwriter.Offer {
	var fx functions.Effects
	fx.Insert("orders", functions.Row{"id": id, "amount": amount, "placed": time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC)})
	fx.Add("totals", functions.Row{"region": "north"}, functions.Row{"orders": 1, "amount": amount})
	fx.Emit(functions.Output{Type: "com.example.order.stored", Subject: id, Data: map[string]any{"id": id}})
	return sinkwriter.Offer{Function: "orders", Version: "1", Event: NewEvent(id), Effects: fx}
}

// Query returns the only value of the first row of a query.
func Query[T any](tb testing.TB, pool *pgxpool.Pool, sql string, args ...any) T {
	tb.Helper()
	var v T
	if err := pool.QueryRow(tb.Context(), sql, args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return v
}

// Eventually waits until ok returns true. It fails the test after a minute and a thousand
// attempts; what describes the claim that was not met.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	patience.Until(tb, what, ok)
}

// NewReplicated is NewDatabase on a primary that has a standby, with a pool to the
// server that accepts writes.
func NewReplicated(tb testing.TB) (*devcluster.Replicated, *pgxpool.Pool) {
	tb.Helper()
	r := pgtest.Replicated(tb)
	if err := schema.Migrate(tb.Context(), r.URL()); err != nil {
		tb.Fatal(err)
	}
	pool := NewPool(tb, r.URL())
	if _, err := pool.Exec(tb.Context(), TablesSQL); err != nil {
		tb.Fatal(err)
	}
	return r, pool
}

// FailOver promotes the standby after the primary is lost.
func FailOver(tb testing.TB, r *devcluster.Replicated, pool *pgxpool.Pool) {
	tb.Helper()
	r.LosePrimary()
	if err := r.Promote(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	pool.Reset() // otherwise the test itself would have to retry
}

// Execute runs a statement, and fails the test on an error.
func Execute(tb testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	tb.Helper()
	if _, err := pool.Exec(tb.Context(), sql, args...); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}
