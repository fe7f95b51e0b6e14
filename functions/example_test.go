package functions_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// purchase is the data of com.example.order.placed.
type purchase struct {
	Customer string `json:"customer"`
	Lines    []item `json:"lines"`
}

type item struct {
	Item  string `json:"item"`
	Cents int64  `json:"cents"`
}

// Validate is called before the function.
func (o purchase) Validate() error {
	if o.Customer == "" {
		return errors.New("customer: missing")
	}
	return nil
}

// placed stores an order, counts it and emits an event. It uses the event alone,
// so that it computes the same effects in every cluster.
func placed(_ context.Context, e event.Event, data purchase) (functions.Effects, error) {
	var fx functions.Effects
	id := functions.ID(e, "order")
	var cents int64
	for i, l := range data.Lines {
		fx.Insert("lines", functions.Row{"id": functions.ID(e, "line", i), "order_id": id, "item": l.Item, "cents": l.Cents})
		cents += l.Cents
	}
	fx.Insert("orders", functions.Row{"id": id, "customer": data.Customer, "placed_at": functions.Time(e), "cents": cents})
	fx.Add("customers", functions.Row{"customer": data.Customer}, functions.Row{"orders": 1, "cents": cents})
	fx.Emit(functions.Output{Type: "com.example.order.stored", Subject: id, Data: map[string]any{"customer": data.Customer, "cents": cents}})
	return fx, nil
}

// orderPlaced returns an event as a producer sends it.
func orderPlaced(data string) event.Event {
	e := event.New()
	e.SetID("order-17")
	e.SetSource("/shop")
	e.SetType("com.example.order.placed")
	e.SetTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	if err := e.SetData(event.ApplicationJSON, json.RawMessage(data)); err != nil {
		panic(err)
	}
	return e
}

// A function with its name, version and event types. The package next to
// func.yaml passes it to process.New.
func Example() {
	f := functions.Function{
		Name:    "orders",
		Version: "v1",
		Types:   []string{"com.example.order.placed"},
		Handle:  functions.JSON(placed),
	}
	fmt.Println(f.Validate())

	fx, err := f.Handle(context.Background(), orderPlaced(`{"customer": "Ada", "lines": [{"item": "tea", "cents": 450}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, w := range fx.Writes {
		fmt.Println(w.Table, w.Key, w.Row)
	}
	for _, o := range fx.Outputs {
		fmt.Println(o.Type, o.Subject, o.Data)
	}
	// Output:
	// <nil>
	// lines map[] map[cents:450 id:019ca945-0a00-70f7-bdea-3f1c85e66b40 item:tea order_id:019ca945-0a00-7d71-9b4e-3a3de15d96dd]
	// orders map[] map[cents:450 customer:Ada id:019ca945-0a00-7d71-9b4e-3a3de15d96dd placed_at:2026-03-01 12:00:00 +0000 UTC]
	// customers map[customer:Ada] map[cents:450 orders:1]
	// com.example.order.stored 019ca945-0a00-7d71-9b4e-3a3de15d96dd map[cents:450 customer:Ada]
}

// Event data that do not match the type are rejected before the function is called.
// The reason names the field, and becomes that of the dead letter.
func ExampleJSON() {
	handle := functions.JSON(placed)

	_, err := handle(context.Background(), orderPlaced(`{"customer": "Ada", "lines": [{"item": "tea", "cents": "4.50"}]}`))
	fmt.Println(err)

	_, err = handle(context.Background(), orderPlaced(`{"lines": []}`))
	fmt.Println(err)

	var rejected *functions.RejectError
	fmt.Println(errors.As(err, &rejected))
	// Output:
	// read data: lines[0].cents: it is a string: want a whole number of 64 bits
	// read data: customer: missing
	// true
}

// One function for several event types, each with data of its own.
func ExampleByType() {
	canceled := func(_ context.Context, e event.Event, data struct {
		Order string `json:"order"`
	},
	) (functions.Effects, error) {
		var fx functions.Effects
		fx.Delete("orders", functions.Row{"id": data.Order}, functions.Version{Column: "changed_at", Value: functions.Time(e)})
		return fx, nil
	}
	handlers := functions.ByType{
		"com.example.order.placed":   functions.JSON(placed),
		"com.example.order.canceled": functions.JSON(canceled),
	}
	f := functions.Function{Name: "orders", Version: "v2", Types: handlers.Types(), Handle: handlers.Handle}
	fmt.Println(f.Types)
	// Output:
	// [com.example.order.canceled com.example.order.placed]
}

// An id that is equal in every cluster and on every retry, and different for every
// event, name and index.
func ExampleID() {
	e := orderPlaced(`{}`)
	fmt.Println(functions.ID(e, "order"))
	for i := range 2 {
		fmt.Println(functions.ID(e, "line", i))
	}
	// Output:
	// 019ca945-0a00-7d71-9b4e-3a3de15d96dd
	// 019ca945-0a00-70f7-bdea-3f1c85e66b40
	// 019ca945-0a00-772d-919a-4efd099f5663
}

// A number, for a table without a uuid.
func ExampleInt64() {
	fmt.Println(functions.Int64(orderPlaced(`{}`), "order"))
	// Output:
	// 3716921740492964200
}

// A random choice that is the same in every cluster.
func ExampleRand() {
	r := functions.Rand(orderPlaced(`{}`), "lottery")
	fmt.Println(r.IntN(49)+1, r.IntN(49)+1)
	// Output:
	// 11 14
}

// A function never reads a clock. If it needs a time, it rejects events without one.
func ExampleTime() {
	handle := func(_ context.Context, e event.Event) (functions.Effects, error) {
		at := functions.Time(e)
		if at.IsZero() {
			return functions.Effects{}, functions.Reject(errors.New("time: missing"))
		}
		var fx functions.Effects
		fx.Add("orders_per_day", functions.Row{"day": at.Format(time.DateOnly)}, functions.Row{"orders": 1})
		return fx, nil
	}

	fx, err := handle(context.Background(), orderPlaced(`{}`))
	fmt.Println(fx.Writes[0].Key, err)

	late := orderPlaced(`{}`)
	late.SetTime(time.Time{})
	_, err = handle(context.Background(), late)
	fmt.Println(err)
	// Output:
	// map[day:2026-03-01] <nil>
	// time: missing
}

// An event that can never succeed is rejected: it becomes a dead letter immediately.
// Any other error is retried.
func ExampleReject() {
	handle := func(_ context.Context, e event.Event) (functions.Effects, error) {
		if e.Subject() == "" {
			return functions.Effects{}, functions.Reject(errors.New("subject: missing"))
		}
		return functions.Effects{}, nil
	}
	_, err := handle(context.Background(), orderPlaced(`{}`))
	fmt.Println(err)
	// Output: subject: missing
}

// Events may be applied in any order, so the row keeps the version that it was written
// with: an older price never overwrites a newer one.
func ExampleEffects_Upsert() {
	priced := func(_ context.Context, e event.Event, data struct {
		Item  string `json:"item"`
		Cents int64  `json:"cents"`
	},
	) (functions.Effects, error) {
		var fx functions.Effects
		fx.Upsert("prices", functions.Row{
			"item":       data.Item,
			"cents":      data.Cents,
			"changed_at": functions.Time(e),
		}, functions.NewestWins("changed_at"))
		return fx, nil
	}
	fx, err := functions.JSON(priced)(context.Background(), orderPlaced(`{"item": "tea", "cents": 450}`))
	fmt.Println(fx.Writes[0].Table, fx.Writes[0].Version, err)
	// Output: prices changed_at <nil>
}

// The first order of a customer is kept, however late its event is applied.
func ExampleOldestWins() {
	e := orderPlaced(`{}`)
	var fx functions.Effects
	fx.Upsert("first_orders", functions.Row{"customer": "ada", "placed_at": functions.Time(e)}, functions.OldestWins("placed_at"))
	fmt.Println(fx.Writes[0].Table, fx.Writes[0].Version)
	// Output: first_orders placed_at
}

// The highest and the lowest price of an item, in whatever order events are applied.
func ExampleMax() {
	var fx functions.Effects
	fx.Upsert("prices", functions.Row{"item": "tea", "highest": 450}, functions.Max())
	fx.Upsert("prices", functions.Row{"item": "tea", "lowest": 450}, functions.Min())
	fmt.Println(fx.Writes[0].Row["highest"], fx.Writes[1].Row["lowest"])
	// Output: 450 450
}

// Counters add up in whatever order events are applied. The row is created if it is
// missing.
func ExampleEffects_Add() {
	var fx functions.Effects
	fx.Add("stock", functions.Row{"item": "tea"}, functions.Row{"available": -1, "reserved": 1})
	fmt.Println(fx.Writes[0].Key, fx.Writes[0].Row)
	// Output: map[item:tea] map[available:-1 reserved:1]
}

// A delete with a version leaves the row, marked as deleted, so that an older write that
// is applied later does not restore it.
func ExampleEffects_Delete() {
	e := orderPlaced(`{}`)
	var fx functions.Effects
	fx.Delete("prices", functions.Row{"item": "tea"}, functions.Version{Column: "changed_at", Value: functions.Time(e)})
	fmt.Println(fx.Writes[0].Key, fx.Writes[0].Version)
	// Output: map[item:tea] changed_at
}

// A statement for a change that depends on rows the function cannot see.
func ExampleEffects_Exec() {
	number := functions.Statement{
		Name: "number-invoice",
		SQL:  `insert into invoices (order_id, number) select $1, coalesce(max(number), 0) + 1 from invoices`,
	}
	e := orderPlaced(`{}`)
	var fx functions.Effects
	fx.Exec(number, functions.ID(e, "order"))
	fmt.Println(fx.Writes[0].Statement.Name)
	// Output: number-invoice
}

// The event is published after the commit, at least once, always with the same source and
// id: consumers deduplicate on these.
func ExampleEffects_Emit() {
	input := orderPlaced(`{}`)
	output := functions.Output{
		Type:    "com.example.order.stored",
		Subject: "Ada",
		Data:    map[string]any{"cents": 450},
	}
	var fx functions.Effects
	fx.Emit(output)

	published, err := output.Event("orders", input, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(published.Source(), published.ID())
	fmt.Println(published.Extensions()["causationid"], string(published.Data()))
	// Output:
	// /tandem/orders 00000000-0011-77fd-81f6-3e183a64b41b
	// order-17 {"cents":450}
}
