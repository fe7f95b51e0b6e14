package functionstest

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// Events reads events from a file, as a function receives them: in the JSON batch
// format of CloudEvents, or one event in the JSON format on each line. Blank lines
// are ignored. An invalid event ends the test, with its line or index.
func Events(tb testing.TB, file string) []event.Event {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	events, err := readEvents(text)
	if err != nil {
		tb.Fatalf("read events from %s: %v", file, err)
	}
	return events
}

func readEvents(text []byte) ([]event.Event, error) {
	var events []event.Event
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		members, err := cloudevent.ReadBatch(text, cloudevent.Rules{})
		if err != nil {
			return nil, err
		}
		for i, m := range members {
			if m.Err != nil {
				return nil, fmt.Errorf("event %d: %w", i+1, m.Err)
			}
			events = append(events, m.Event)
		}
		return events, nil
	}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		e, err := cloudevent.ReadJSON(line, cloudevent.Rules{})
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		events = append(events, e)
	}
	return events, nil
}
