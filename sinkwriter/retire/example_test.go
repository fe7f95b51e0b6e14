package retire_test

import (
	"context"
	"errors"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/retire"
)

func ExampleNew() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://owner@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	west := retire.New(pool, "orders", "west")
	var plan retire.Plan
	err = west.Reserve(ctx, func(p retire.Plan) error {
		if plan = p; len(p.Losses) > 0 {
			return errors.New("west holds events that no other cluster has")
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	deleted, err := west.Remove(ctx, plan, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, rows := range deleted {
		log.Print(rows.Count, " ", rows.What)
	}
}
