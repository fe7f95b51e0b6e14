package sinkwriter

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

func TestOutputsAreReadAsTheyWereCommitted(t *testing.T) {
	t.Parallel()
	input := event.New()
	input.SetSource("/orders?a=b#c")
	input.SetID("o-1")
	input.SetType("com.example.placed")
	input.SetTime(time.Date(2001, 1, 2, 3, 4, 5, 600, time.FixedZone("x", 3600)))
	input.SetExtension("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")

	outputs := map[string]functions.Output{
		"no data":       {Type: "t"},
		"value":         {Type: "t", Subject: `sub "ject" ü`, Data: map[string]any{"a": []int{1}}, Extensions: map[string]string{"b": "2", "a": "<1>"}},
		"raw JSON":      {Type: "t", Data: json.RawMessage(`{"a": 1.50, "b": "<&>"}`)},
		"JSON suffix":   {Type: "t", DataContentType: "application/vnd.x+json", Data: json.RawMessage(`[1]`)},
		"parameter":     {Type: "t", DataContentType: "application/json; charset=utf-8", Data: json.RawMessage(`[1]`)},
		"text":          {Type: "t", DataContentType: "text/plain; charset=utf-8", Data: []byte("a\n\"b\" ü")},
		"bytes":         {Type: "t", DataContentType: "image/png", Data: []byte{0, 1, 0xff}},
		"time of own":   {Type: "t", Time: time.Date(1999, 12, 31, 23, 59, 59, 123456789, time.UTC)},
		"control chars": {Type: "t", Data: "a\x01b\u2028"},
	}
	for name, o := range outputs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, err := o.Event("f", input, 0)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := cloudevent.AppendBatch(nil, []event.Event{e, e})
			if err != nil {
				t.Fatal(err)
			}
			read, err := cloudevent.ReadBatch(ours, cloudevent.Rules{})
			if err != nil || len(read) != 2 {
				t.Fatalf("%s: %d events, error %v", ours, len(read), err)
			}
			for _, m := range read {
				if m.Err != nil {
					t.Fatalf("%s: %v", ours, m.Err)
				}
				if diff := cmp.Diff(e, m.Event); diff != "" {
					t.Errorf("event (-committed +read):\n%s", diff)
				}
			}
		})
	}
}
