package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

func ExampleNew() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	leases := lease.New(pool, "east")
	held, before, err := leases.Acquire(ctx, "orders", lease.Holder{Site: "rack-1", Replica: "source-0"}, true)
	switch {
	case err != nil:
		log.Fatal(err)
	case held.Epoch == 0:
		fmt.Println("active is", before.Replica)
		return
	}
	if err := leases.Renew(ctx, "orders", held); errors.Is(err, lease.ErrLost) {
		fmt.Println("another replica is active")
	}
}
