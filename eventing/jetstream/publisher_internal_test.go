package jetstream

import (
	"fmt"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
)

// BenchmarkEncodeMessages encodes the messages of outputs, as a call of Publish does.
func BenchmarkEncodeMessages(b *testing.B) {
	events := make([]event.Event, 64)
	for i := range events {
		e := event.New()
		e.SetID(fmt.Sprintf("00000000-04d2-7a3e-9c55-%012d", i))
		e.SetSource("/tandem/bench")
		e.SetType("com.example.order.accepted")
		e.SetSubject("customer-01234")
		e.SetExtension("causationid", "event-00001234")
		e.SetDataContentType("application/json")
		e.DataEncoded = []byte(`{"order":"order-00001234"}`)
		events[i] = e
	}
	m := newMessage()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := encode(m, events[i%len(events)], "outputs.com.example.order.accepted"); err != nil {
			b.Fatal(err)
		}
	}
}
