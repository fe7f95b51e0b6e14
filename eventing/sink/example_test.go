package sink_test

import (
	"context"
	"log"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/sink"
)

// Outputs are sent to a broker over HTTP, up to 100 in a request, instead of to a
// stream.
func ExampleNewPublisher() {
	publisher, err := sink.NewPublisher("http://broker-ingress.knative-eventing/default/orders", sink.PublisherConfig{Batch: 100})
	if err != nil {
		log.Fatal(err)
	}
	e := event.New()
	e.SetID("order-17")
	e.SetSource("/shop")
	e.SetType("com.example.order.stored")
	if err := publisher.Publish(context.Background(), []event.Event{e}); err != nil {
		log.Fatal(err) // not accepted: publish again
	}
}
