package sinkwriter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// A consumer without Knative. It runs in two data centres on the same stream, and
// each order is stored, counted and published once.
func Example() {
	ctx := context.Background()

	// Once per deployment: migrate the ledger, and your own tables from a folder
	// of .sql files.
	url := os.Getenv("DATABASE_URL")
	if err := schema.Migrate(ctx, url, schema.MigrationSet{Name: "orders", Files: os.DirFS("migrations")}); err != nil {
		fmt.Println(err)
		return
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	writer, err := sinkwriter.New(pool, sinkwriter.Config{
		Cluster:   "east", // "west" in the other cluster
		Publisher: nil,    // publishes outputs to your stream; without it a relay does
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := writer.Close(ctx); err != nil {
			fmt.Println(err)
		}
	}()

	// Call handle for each message, from any number of goroutines: they share
	// transactions. Acknowledge the message only if handle returns nil.
	handle := func(ctx context.Context, e event.Event) error {
		var order struct {
			Customer string `json:"customer"`
			Cents    int64  `json:"cents"`
		}
		if err := json.Unmarshal(e.Data(), &order); err != nil {
			return functions.Reject(err)
		}
		var fx functions.Effects
		fx.Insert("orders", functions.Row{"id": e.ID(), "customer": order.Customer, "cents": order.Cents})
		fx.Add("customers", functions.Row{"customer": order.Customer}, functions.Row{"orders": 1, "cents": order.Cents})
		fx.Emit(functions.Output{Type: "com.example.order.stored", Subject: e.ID(), Data: order})

		receipt, err := writer.Commit(ctx, sinkwriter.Offer{Function: "orders", Version: "1", Event: e, Effects: fx})
		if rejected := new(functions.RejectError); errors.As(err, &rejected) {
			return nil // a retry cannot succeed: store the message elsewhere
		}
		if err != nil {
			return err // redeliver it
		}
		_ = receipt.Won // false if the other cluster was faster: the event is committed in both cases
		return nil
	}
	_ = handle
}

// One Writer per process is enough: concurrent commits share transactions.
func ExampleNew() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	writer, err := sinkwriter.New(pool, sinkwriter.Config{Cluster: "east"})
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := writer.Close(ctx); err != nil {
			log.Print(err)
		}
	}()
}

// Acknowledge a message only after Commit has returned a receipt, whether it won
// or lost.
func ExampleWriter_Commit() {
	var writer *sinkwriter.Writer // see New
	ctx := context.Background()

	e := event.New()
	e.SetID("order-17")
	e.SetSource("/shop")
	e.SetType("com.example.order.placed")
	var fx functions.Effects
	fx.Insert("orders", functions.Row{"id": e.ID(), "cents": 450})

	receipt, err := writer.Commit(ctx, sinkwriter.Offer{Function: "orders", Version: "v1", Event: e, Effects: fx})
	var known *sinkwriter.Error
	switch {
	case err == nil && receipt.Won:
		log.Print("committed here")
	case err == nil:
		log.Print("committed before, by this cluster or another")
	case errors.As(err, &known) && known.Fault == sinkwriter.FaultEvent:
		log.Print("it can never be committed: ", err)
	default:
		log.Print("not committed: deliver it again: ", err)
	}
}

// Any SQL, once for each key.
func ExampleWriter_Once() {
	var writer *sinkwriter.Writer // as in the package's example
	ctx := context.Background()

	key := ledger.NewKey("invoices", "/shop", "order-17")
	won, err := writer.Once(ctx, key, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into invoices (order_id, number) select $1, coalesce(max(number), 0) + 1 from invoices`, "order-17")
		return err
	})
	fmt.Println(won, err)
}
