package cloudevent_test

import (
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

func TestContentTypeTellsTheMode(t *testing.T) {
	t.Parallel()

	for contentType, want := range map[string]cloudevent.Mode{
		"":                                   cloudevent.Binary,
		"application/json":                   cloudevent.Binary,
		"nonsense":                           cloudevent.Binary,
		"application/cloudevents+json":       cloudevent.Structured,
		"Application/CloudEvents+JSON ; a=b": cloudevent.Structured,
		"application/cloudevents-batch+json": cloudevent.Batch,
		`application/cloudevents+json; charset="UTF-8"; a=b`: cloudevent.Structured,
	} {
		if got, err := cloudevent.ModeOf(contentType); err != nil || got != want {
			t.Errorf("%q is mode %d, error %v, want %d", contentType, got, err, want)
		}
	}
	for contentType, says := range map[string]string{
		"application/cloudevents+xml":                     `content type "application/cloudevents+xml" is not supported`,
		"application/cloudevents":                         "is not supported",
		"application/cloudevents+json; charset=utf-16":    `charset "utf-16" is not supported`,
		"application/cloudevents+json; x=y; charset=\"\"": `charset "" is not supported`,
	} {
		if mode, err := cloudevent.ModeOf(contentType); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is mode %d, error %v, want it to say %q", contentType, mode, err, says)
		}
	}
}

func TestOneEventIsReadInEitherMode(t *testing.T) {
	t.Parallel()

	const structured = `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"x"}`
	for contentType, body := range map[string]string{"application/cloudevents+json": structured, "text/plain": "x"} {
		h := header(good("content-type: " + contentType)...)
		e, err := cloudevent.Read(contentType, h, []byte(body), relay)
		if err != nil || e.ID() != "1" || string(e.Data()) != "x" || e.DataContentType() != "text/plain" {
			t.Errorf("%s: event is %v, error %v", contentType, e, err)
		}
	}
	for contentType, says := range map[string]string{
		"application/cloudevents-batch+json": "one event per message",
		"application/cloudevents+xml":        "is not supported",
	} {
		if _, err := cloudevent.Read(contentType, header(good()...), []byte("[]"), relay); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error is %v, want it to say %q", contentType, err, says)
		}
	}
}
