package sinkwriter

import (
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/cloudevent"
)

// encodeEvents appends events in the CloudEvents JSON batch format.
func encodeEvents(buf []byte, events []event.Event) ([]byte, error) {
	return cloudevent.AppendBatch(buf, events)
}
