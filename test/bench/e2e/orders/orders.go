// Package orders holds the events of the benchmark and the function that handles them.
// Each event has one row of about 200 bytes and one output of about 200 bytes.
package orders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// The name of the function, and the types of the input and output events. Each event
// has one output.
const (
	Name     = "bench"
	Source   = "/bench/orders"
	Placed   = "com.example.order.placed"
	Accepted = "com.example.order.accepted"
	Spoilt   = "com.example.order.spoilt" // not a valid order
)

// Kinds of bad events, as values of TANDEM_BENCH_SPOILT.
const (
	Unavailable = "unavailable"
	Failing     = "failing"
	Rejected    = "rejected"
	Panicking   = "panic"
	Hanging     = "hang"
	Exiting     = "exit"
	SlowEvents  = "slow"
	LargeOutput = "large"
	Unreadable  = "unreadable"
	BadSQL      = "bad-sql"
	SlowSQL     = "slow-sql"
)

// note pads a row, and an output, to about 200 bytes.
const note = "to be left with the neighbours on the second floor, who are at home after six; ring twice, the dog is friendly"

// Order is the data of an event.
type Order struct {
	Order    string    `json:"order"`
	Customer string    `json:"customer"`
	Amount   int64     `json:"amount"`
	PlacedAt time.Time `json:"placed_at"`
	Note     string    `json:"note"`
}

// Output is the data of an output.
type Output struct {
	Order    string `json:"order"`
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"`
	Accepted bool   `json:"accepted"`
	Note     string `json:"note"`
}

// epoch is the time of the first order, an arbitrary time.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// ID returns the id of event n.
func ID(n int) string { return fmt.Sprintf("event-%08d", n) }

// New returns order n, always the same.
func New(n int) Order {
	return Order{
		Order:    fmt.Sprintf("order-%08d", n),
		Customer: fmt.Sprintf("customer-%05d", n%10_000),
		Amount:   int64(n % 997),
		PlacedAt: epoch.Add(time.Duration(n) * time.Second),
		Note:     note,
	}
}

// Total returns the sum of the amounts of the first n orders.
func Total(n int) int64 {
	var sum int64
	for i := range n {
		sum += int64(i % 997)
	}
	return sum
}

// Subject returns the CloudEvent subject with number n.
func Subject(n int) string { return fmt.Sprintf("subject-%05d", n) }

// Slow reports whether order n is one of the 0.1 % that sleep in a function with slow
// events.
func Slow(n int) bool { return n%1000 == 100 }

// Number returns the number of the order of an output.
func Number(output []byte) (int, error) {
	var o Output
	if err := json.Unmarshal(output, &o); err != nil {
		return 0, fmt.Errorf("read output: %w", err)
	}
	return number(o.Order)
}

// Number returns the number of the order.
func (o Order) Number() (int, error) { return number(o.Order) }

func number(order string) (int, error) {
	digits, ok := strings.CutPrefix(order, "order-")
	if !ok {
		return 0, fmt.Errorf("order %q: want order- and a number", order)
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("order %q: want order- and a number: %w", order, err)
	}
	return n, nil
}

// Validate returns an error for an invalid order.
func (o Order) Validate() error {
	if o.Order == "" {
		return errors.New("order: missing")
	}
	return nil
}

// Accept returns the output of an order.
func (o Order) Accept() Output {
	return Output{Order: o.Order, Customer: o.Customer, Amount: o.Amount, Accepted: true, Note: o.Note}
}

// Function returns the function. It calls before, which may wait, before each
// computation; nil for nothing.
func Function(before func(o Order)) functions.Function {
	return functions.Function{
		Name:    Name,
		Version: "v1",
		Types:   []string{Placed},
		Handle: functions.JSON(func(_ context.Context, _ event.Event, o Order) (functions.Effects, error) {
			if before != nil {
				before(o)
			}
			var fx functions.Effects
			fx.Insert("orders", functions.Row{
				"order_id": o.Order, "customer": o.Customer, "amount": o.Amount, "placed_at": o.PlacedAt, "note": o.Note,
			})
			fx.Emit(functions.Output{Type: Accepted, Subject: o.Customer, Data: o.Accept()})
			return fx, nil
		}),
	}
}
