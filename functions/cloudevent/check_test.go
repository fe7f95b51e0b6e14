package cloudevent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

func TestCheckSaysWhatIsWrong(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name   string
		change func(*event.EventContextV1)
		says   string
	}{
		{"nothing is wrong", func(*event.EventContextV1) {}, ""},
		{"no attribute at all", func(c *event.EventContextV1) { *c = event.EventContextV1{} }, "id, source, type: missing"},
		{"blank type", func(c *event.EventContextV1) { c.Type = " " }, "type: it is blank"},
		{"blank subject", func(c *event.EventContextV1) { c.Subject = text("") }, "subject: it is blank"},
		{"NUL", func(c *event.EventContextV1) { c.ID = "\x00" }, "id: control character U+0000 at byte 0"},
		{"line break in an extension", func(c *event.EventContextV1) { c.Extensions = map[string]any{"a": "b\n"} }, "a: control character U+000A at byte 1"},
		{"name of an extension", func(c *event.EventContextV1) { c.Extensions = map[string]any{"A": "b"} }, `attribute name "A"`},
		{"value of an extension", func(c *event.EventContextV1) { c.Extensions = map[string]any{"a": struct{}{}} }, "extension a: "},
		{"event in an event", func(c *event.EventContextV1) { c.DataContentType = text("Application/CloudEvents+json") }, "cannot hold another one"},
		{"no media type", func(c *event.EventContextV1) { c.DataContentType = text("///") }, `datacontenttype "///": want a media type`},
		{"empty media type", func(c *event.EventContextV1) { c.DataContentType = text("") }, `datacontenttype "": want a media type`},
		{"year", func(c *event.EventContextV1) { c.Time = &types.Timestamp{Time: time.Unix(1e12, 0)} }, "time: year 33658"},
		{"schema", func(c *event.EventContextV1) { c.DataSchema = &types.URI{} }, `dataschema "": want an absolute URI`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			c := &event.EventContextV1{ID: "1", Source: *types.ParseURIRef("/s"), Type: "t"}
			tt.change(c)
			err := cloudevent.Check(event.Event{Context: c})
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want %q", err, tt.says)
			}
		})
	}
	if err := cloudevent.Check(event.Event{}); err == nil || err.Error() != "the event has no attributes" {
		t.Errorf("no context: error is %v", err)
	}
	if err := cloudevent.Check(event.New(event.CloudEventsVersionV03)); err == nil || err.Error() != `specversion "0.3": want 1.0` {
		t.Errorf("version 0.3: error is %v", err)
	}
}

func text(s string) *string { return &s }
