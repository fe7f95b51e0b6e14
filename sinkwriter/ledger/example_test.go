package ledger_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// Look up whether an event is committed, and on which timeline of the database.
func ExampleNew() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	key := ledger.NewKey("orders", "/shop", "order-17")
	committed, timeline, err := ledger.New(pool).Committed(ctx, []ledger.Key{key})
	if err != nil {
		log.Fatal(err)
	}
	log.Print(committed[key], " on timeline ", timeline)
}

// The key is the same in every cluster, and in SQL: select tandem.key('orders', '/shop', 'order-17').
func ExampleNewKey() {
	fmt.Println(ledger.NewKey("orders", "/shop", "order-17"))
	// Output: 00000000-0011-8e43-a7cb-c9f0eea9d8f5
}

// The ledger forgets events a week after their commit, unless a cluster lags.
func ExampleNewRetention() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	retention, err := ledger.NewRetention(pool, ledger.RetentionConfig{Keep: 7 * 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	for range time.Tick(10 * time.Minute) {
		if _, err := retention.Sweep(ctx); err != nil {
			log.Print(err)
		}
	}
}

// Look up how far each cluster lags.
func ExampleNewCheckpoints() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	clusters, err := ledger.NewCheckpoints(pool, "east").Clusters(ctx, "orders")
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range clusters {
		log.Print(c.Cluster, " is ", c.Behind, " messages behind, and was seen ", c.Age, " ago")
	}
}

// Switch a cluster to standby, if another one is active.
func ExampleCheckpoints_SetHedge() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	if err := ledger.NewCheckpoints(pool, "").SetHedge(ctx, "orders", "west", "standby"); err != nil {
		log.Fatal(err)
	}
}

// A source that restarts continues to count the failed attempts of an event.
func ExampleNewAttempts() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	attempts := ledger.NewAttempts(pool, "east")
	failed := []ledger.EventAttempts{{Sequence: 1200, Attempts: 3, For: 40 * time.Second}}
	if err := attempts.Save(ctx, "orders", "EVENTS", "2026-11-29T12:00:00Z", failed, nil); err != nil {
		log.Fatal(err)
	}
}

// Look up which subjects are blocked by a dead letter.
func ExampleNewBlocked() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	events, err := ledger.NewBlocked(pool, "east").List(ctx, "orders")
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range events {
		log.Print(e.Subject, " waits for the verdict on ", e.ID)
	}
}
