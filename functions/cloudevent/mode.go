package cloudevent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Mode is a content mode of CloudEvents' protocol bindings.
type Mode uint8

const (
	// Binary has the attributes in headers and the data in the body.
	Binary Mode = iota
	// Structured has one event in the JSON format in the body.
	Structured
	// Batch has any number of events in the JSON batch format in the body.
	Batch
)

// ModeOf returns the content mode of a content type (HTTP binding 1.0.2, section
// 3; the NATS binding is the same). It returns an error if the format or the
// character set of the events is not supported.
func ModeOf(contentType string) (Mode, error) {
	if !isEnvelope(contentType) {
		return Binary, nil
	}
	mediaType, parameters, _ := strings.Cut(contentType, ";")
	if i := strings.Index(strings.ToLower(parameters), "charset="); i >= 0 {
		charset, _, _ := strings.Cut(parameters[i+len("charset="):], ";")
		charset = strings.Trim(charset, ` "`)
		if !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8") && !strings.EqualFold(charset, "us-ascii") {
			return 0, fmt.Errorf("charset %q is not supported: send UTF-8", clip(charset, 64))
		}
	}
	switch mediaType = strings.ToLower(strings.TrimSpace(mediaType)); mediaType {
	case event.ApplicationCloudEventsJSON:
		return Structured, nil
	case event.ApplicationCloudEventsBatchJSON:
		return Batch, nil
	}
	return 0, fmt.Errorf("content type %q is not supported: send %s or %s, or the event in headers",
		clip(mediaType, 64), event.ApplicationCloudEventsJSON, event.ApplicationCloudEventsBatchJSON)
}

// isEnvelope reports whether a content type holds events, in any format.
func isEnvelope(contentType string) bool {
	const prefix = "application/cloudevents"
	return len(contentType) >= len(prefix) && strings.EqualFold(contentType[:len(prefix)], prefix)
}

// Read reads the single event of a message in the mode of its content type. It
// reads as [ReadBinary] or [ReadJSON] do, and returns an error for a batch.
func Read(contentType string, header map[string][]string, body []byte, rules Rules) (event.Event, error) {
	mode, err := ModeOf(contentType)
	switch {
	case err != nil:
		return event.Event{}, err
	case mode == Batch:
		return event.Event{}, errors.New("it is a batch: send one event per message")
	case mode == Structured:
		return ReadJSON(body, rules)
	}
	return ReadBinary(header, body, rules)
}

// declaresJSON reports whether data of this content type is JSON (JSON format
// 1.0.2, section 3.1.1). An empty content type means JSON.
func declaresJSON(contentType string) bool {
	if contentType == "" || contentType == event.ApplicationJSON {
		return true
	}
	mediaType, _, _ := strings.Cut(contentType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return strings.HasSuffix(mediaType, "/json") || strings.HasSuffix(mediaType, "+json")
}
