// Command orders is the function of docs/adopt.md: it replaces a service that reads the same
// stream and writes the same tables.
package main

import (
	"context"
	"embed"
	"fmt"
	"os"

	"github.com/cloudevents/sdk-go/v2/event"
	"knative.dev/func-go/http"

	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
)

//go:embed *.sql
var tables embed.FS

type order struct {
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"`
}

func handle(_ context.Context, e event.Event, o order) (fx functions.Effects, err error) {
	fx.Insert("orders", functions.Row{"id": e.ID(), "customer": o.Customer, "amount": o.Amount})
	fx.Add("customers", functions.Row{"customer": o.Customer}, functions.Row{"orders": 1, "spent": o.Amount})
	return fx, nil
}

func main() {
	function := functions.Function{
		Name: "orders", Version: "v1", Types: []string{"com.example.order.placed"}, Handle: functions.JSON(handle), Migrations: tables,
	}
	if err := http.Start(process.New(function)); err != nil {
		fmt.Fprintln(os.Stderr, err.Error())
		os.Exit(1)
	}
}
