package sinkwriter

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// benchOffer is one row of about 200 bytes and one output.
func benchOffer() Offer {
	e := event.New()
	e.SetSource("/bench")
	e.SetID("event-00001234")
	e.SetType("com.example.bench")
	e.SetTime(time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC))
	var fx functions.Effects
	fx.Insert("rows", functions.Row{"id": "event-00001234", "n": 1234, "payload": strings.Repeat("x", 160)})
	fx.Emit(functions.Output{Type: "com.example.bench.done", Subject: "event-00001234", Data: []byte(`{"id":"event-00001234","text":"` + strings.Repeat("y", 120) + `"}`)})
	return Offer{Function: "bench", Version: "1", Event: e, Effects: fx}
}

func BenchmarkFillOffer(b *testing.B) {
	w := &Writer{config: Config{Cluster: "east"}}
	offered := benchOffer()
	b.ReportAllocs()
	for b.Loop() {
		var o offer
		if err := w.fill(b.Context(), &o, &offered); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeEvents(b *testing.B) {
	w := &Writer{config: Config{Cluster: "east"}}
	var o offer
	offered := benchOffer()
	err := w.fill(b.Context(), &o, &offered)
	events, err2 := o.appendOutputs(nil)
	if err = errors.Join(err, err2); err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = cloudevent.AppendBatch(buf[:0], events); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNewRows creates the rows of a batch of 256 outputs.
func BenchmarkNewRows(b *testing.B) {
	w := &Writer{config: Config{Cluster: "east"}}
	var events []event.Event
	for range 256 {
		var o offer
		offered := benchOffer()
		err := w.fill(b.Context(), &o, &offered)
		var err2 error
		events, err2 = o.appendOutputs(events)
		if err = errors.Join(err, err2); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newRows(events, new(scratch)); err != nil {
			b.Fatal(err)
		}
	}
}
