package schema_test

import (
	"context"
	"errors"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// Migrate creates the ledger and a function's own tables. It is safe to run in several
// clusters at once; it does not repeat applied migrations.
func ExampleMigrate() {
	err := schema.Migrate(context.Background(), "postgres://owner@localhost:5432/orders",
		schema.MigrationSet{Name: "orders", Files: os.DirFS("migrations")})
	if err != nil {
		log.Fatal(err)
	}
}

// A program reports what its database lacks instead of failing at the first event.
func ExampleCheck() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	err = schema.Check(ctx, pool, schema.MigrationSet{Name: "orders", Files: os.DirFS("migrations")})
	switch {
	case errors.Is(err, schema.ErrMissing):
		log.Print("migrate first: ", err)
	case errors.Is(err, schema.ErrGrants):
		log.Print("the role lacks privileges: ", err) // its text contains the missing grants
	case err != nil:
		log.Print("the database is unreachable: ", err)
	}
}

// One role migrates, another one writes and has no other privileges.
func ExampleGrant() {
	granted, err := schema.Grant(context.Background(), "postgres://owner@localhost:5432/orders", "tandem")
	if err != nil {
		log.Fatal(err)
	}
	for _, warning := range granted.Warnings {
		log.Print(warning)
	}
}
