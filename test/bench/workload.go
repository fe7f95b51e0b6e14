package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const (
	functionName    = "bench"
	functionVersion = "1"
	eventSource     = "/bench/orders"
	inputType       = "com.example.order.placed"
	outputType      = "com.example.order.accepted"

	// note pads a row, and an output, to about 200 bytes.
	note = "to be left with the neighbours on the second floor, who are at home after six; ring twice, the dog is friendly"

	hotRows = 100
)

// workload determines the effects of an event. Event n is always the same.
type workload struct {
	first  int  // number of the first event
	random bool // ids without an order, so that their keys are random
	hot    bool // add to one of few rows instead of writing a row of its own
	money  bool // the amounts are of type numeric
}

// counters returns the table with few rows.
func (w workload) counters() string {
	if w.money {
		return "revenues"
	}
	return "counters"
}

// order is the event's content.
type order struct {
	eventID  string
	orderID  string
	customer string
	amount   int64
	placedAt time.Time
}

// epoch is the time of the first order, an arbitrary time.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (w workload) order(n int) order {
	n += w.first
	o := order{
		eventID:  numbered("event-", n, 8),
		orderID:  numbered("order-", n, 8),
		customer: numbered("customer-", n%10_000, 5),
		amount:   amount(n),
		placedAt: epoch.Add(time.Duration(n) * time.Second),
	}
	if w.random {
		sum := sha256.Sum256([]byte(o.eventID))
		o.eventID = hex.EncodeToString(sum[:16]) + "-event" // it ends with a letter: no order
	}
	return o
}

func amount(n int) int64 { return int64(n % 997) }

// total returns the sum of the amounts of n events.
func (w workload) total(n int) int64 {
	var sum int64
	for i := range n {
		sum += amount(w.first + i)
	}
	return sum
}

// output returns the data of the order's output event.
func (o *order) output() json.RawMessage {
	b := make([]byte, 0, 224)
	b = append(b, `{"order":"`...)
	b = append(b, o.orderID...)
	b = append(b, `","customer":"`...)
	b = append(b, o.customer...)
	b = append(b, `","amount":`...)
	b = appendInt(b, int(o.amount), 1)
	b = append(b, `,"accepted":true,"note":"`...)
	b = append(b, note...)
	return append(b, `"}`...)
}

// offer returns the offer that a function would compute from an event.
func (w workload) offer(n int) sinkwriter.Offer {
	o := w.order(n)
	e := event.Event{Context: &event.EventContextV1{
		ID: o.eventID, Source: sourceRef, Type: inputType, Time: &types.Timestamp{Time: o.placedAt},
	}}
	var fx functions.Effects
	if w.hot {
		var added any = o.amount
		if w.money {
			added = string(appendInt(nil, int(o.amount), 1)) + ".00"
		}
		fx.Add(w.counters(),
			functions.Row{"counter": numbered("counter-", n%hotRows, 3)},
			functions.Row{"events": int64(1), "amount": added})
	} else {
		fx.Insert("orders", functions.Row{
			"order_id": o.orderID, "customer": o.customer, "amount": o.amount, "placed_at": o.placedAt, "note": note,
		})
	}
	fx.Emit(functions.Output{Type: outputType, Subject: o.customer, Data: o.output()})
	return sinkwriter.Offer{Function: functionName, Version: functionVersion, Event: e, Effects: fx}
}

var sourceRef = types.URIRef{URL: url.URL{Path: eventSource}}

// numbered returns a prefix and a number of at least that many digits.
func numbered(prefix string, n, digits int) string {
	var space [32]byte
	return string(appendInt(append(space[:0], prefix...), n, digits))
}

func appendInt(b []byte, n, digits int) []byte {
	var space [20]byte
	i := len(space)
	for n > 0 || digits > 0 {
		i--
		space[i] = byte('0' + n%10)
		n /= 10
		digits--
	}
	return append(b, space[i:]...)
}
