package attributes

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

// IsStructured reports whether a message of this content type holds an event, or
// several, in a format of CloudEvents: whether its content mode is not binary.
func IsStructured(contentType string) bool {
	const prefix = "application/cloudevents"
	return len(contentType) >= len(prefix) && strings.EqualFold(contentType[:len(prefix)], prefix)
}

// IsContentType reports whether an event can have data of this content type.
func IsContentType(contentType string) bool {
	_, _, err := mime.ParseMediaType(contentType)
	return err == nil && CheckString(contentType) == nil && !IsStructured(contentType)
}

// Structured reads an event in the JSON format, as a message of this content
// type holds it. The error says why it is none.
func Structured(contentType string, data []byte) (event.Event, error) {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return event.Event{}, fmt.Errorf("no CloudEvent: content type: %w", err)
	}
	if mediaType != event.ApplicationCloudEventsJSON {
		return event.Event{}, fmt.Errorf("content type %s: want %s, one event a message", mediaType, event.ApplicationCloudEventsJSON)
	}
	return JSON(data)
}

// JSON reads an event in the JSON format (CloudEvents JSON format 1.0.2). The
// error says why it is none. Data that is JSON is kept byte for byte.
//
// The SDK's reader is not used: it panics if data_base64 is a number, cuts the
// fraction off a number, and stops at an empty name.
func JSON(data []byte) (event.Event, error) {
	e, err := readJSON(data)
	if err != nil {
		return event.Event{}, fmt.Errorf("no CloudEvent: %w", err)
	}
	return e, nil
}

func readJSON(text []byte) (event.Event, error) {
	if !utf8.Valid(text) {
		return event.Event{}, errors.New("not UTF-8")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return event.Event{}, fmt.Errorf("want a JSON object: %w", err)
	}
	data, hasData := members["data"]
	base64Data, hasBase64 := members["data_base64"]
	delete(members, "data")
	delete(members, "data_base64")

	var b Builder
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if err := b.setJSON(name, members[name]); err != nil {
			return event.Event{}, err
		}
	}
	switch {
	case hasData && hasBase64:
		return event.Event{}, errors.New("data and data_base64: want one of them")
	case hasBase64:
		var decoded []byte
		if err := json.Unmarshal(base64Data, &decoded); err != nil {
			return event.Event{}, errors.New("data_base64: want a string in Base64")
		}
		return b.Event(decoded)
	case !hasData:
		return b.Event(nil)
	}
	if b.ec.DataContentType == nil {
		// What the format implies has to be said in other content modes.
		contentType := event.ApplicationJSON
		b.ec.DataContentType = &contentType
	}
	var plain string
	if !isJSON(*b.ec.DataContentType) && json.Unmarshal(data, &plain) == nil {
		return b.Event([]byte(plain))
	}
	return b.Event(data)
}

// setJSON takes an attribute as a JSON value. Null is none.
func (b *Builder) setJSON(name string, value json.RawMessage) error {
	switch value[0] {
	case 'n':
		return nil
	case '"':
		var s string
		if err := json.Unmarshal(value, &s); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return b.set(name, s)
	}
	if isOwn(name) {
		return fmt.Errorf("%s: want a string", name)
	}
	var integer int32
	var boolean bool
	switch {
	case json.Unmarshal(value, &integer) == nil:
		return b.set(name, types.FormatInteger(integer))
	case json.Unmarshal(value, &boolean) == nil:
		return b.set(name, types.FormatBool(boolean))
	}
	return fmt.Errorf("extension %s: want a string, a boolean or an integer of 32 bits", name)
}

// isOwn reports whether the specification itself names the attribute; all of
// these are strings.
func isOwn(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype":
		return true
	}
	return false
}

func isJSON(contentType string) bool {
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && (strings.HasSuffix(mediaType, "/json") || strings.HasSuffix(mediaType, "+json"))
}
