package jetstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

const (
	attributePrefix   = "ce-"
	contentTypeHeader = "content-type"
)

// Encode returns the header and data of the message for e in the binary content mode of
// the CloudEvents NATS binding: each attribute as a header "ce-" and its name,
// percent-encoded, except datacontenttype, which is "content-type" and not encoded. The
// error means that e is not a CloudEvent. The data is not copied.
func Encode(e event.Event) (nats.Header, []byte, error) {
	header := make(nats.Header, 8)
	if err := addHeaders(header, e); err != nil {
		return nil, nil, err
	}
	return header, e.DataEncoded, nil
}

// addHeaders adds the headers of [Encode].
func addHeaders(header nats.Header, e event.Event) error {
	if err := cloudevent.AddBinary(header, e, headerName); err != nil {
		return fmt.Errorf("encode event for NATS: %w", err)
	}
	return nil
}

// headerName returns the header of an attribute. The switch avoids allocating usual
// ones.
func headerName(attribute string) string {
	switch attribute {
	case "specversion":
		return attributePrefix + "specversion"
	case "id":
		return attributePrefix + "id"
	case "source":
		return attributePrefix + "source"
	case "type":
		return attributePrefix + "type"
	case "subject":
		return attributePrefix + "subject"
	case "time":
		return attributePrefix + "time"
	case "datacontenttype":
		return contentTypeHeader
	}
	return attributePrefix + attribute
}

// Decode reads a CloudEvent 1.0 from a message in either content mode of the NATS
// binding, like package cloudevent. Names of headers are case-insensitive. In binary
// mode ce-datacontenttype is equivalent to content-type. A message with neither content
// type nor attributes is structured if its data is a CloudEvent in JSON: the form of
// the binding before NATS had headers. The error means that the message is not a
// CloudEvent. The event refers to data.
func Decode(header nats.Header, data []byte) (event.Event, error) {
	e, err := decode(header, data)
	if err != nil {
		return event.Event{}, fmt.Errorf("not a CloudEvent: %w", err)
	}
	return e, nil
}

func decode(header nats.Header, data []byte) (event.Event, error) {
	rules := cloudevent.Rules{MaxName: cloudevent.MaxName} // the same limit as for functions: a longer identity would be cut
	// The result must not depend on the iteration order of the map: all clusters have
	// to decode the same event.
	contentType, contentTypes := "", 0
	binary := false
	for name, values := range header {
		if strings.EqualFold(name, contentTypeHeader) {
			for _, contentType = range values {
				contentTypes++
			}
		}
		binary = binary || isAttribute(name)
	}
	switch {
	case contentTypes > 1:
		return event.Event{}, errors.New("header content-type: it occurs more than once")
	case contentTypes == 1:
		return cloudevent.Read(contentType, header, data, rules)
	case !binary && mayBeJSON(data):
		return cloudevent.ReadJSON(data, rules)
	}
	return cloudevent.ReadBinary(header, data, rules)
}

// unreadable returns why a message that looks like a CloudEvent cannot be read as one; nil
// if it can be read, or does not look like one.
func unreadable(header nats.Header, data []byte) error {
	_, err := decode(header, data)
	if err == nil {
		return nil
	}
	sign, attributes := signOf(header, data)
	switch {
	case sign == "":
		return nil
	case errors.Is(err, cloudevent.ErrNone):
		err = errors.New(sign)
	}
	if attributes != "" {
		return fmt.Errorf("the message is not a valid CloudEvent: %w (%s)", err, attributes)
	}
	return fmt.Errorf("the message is not a valid CloudEvent: %w", err)
}

// signOf returns the sign by which a message looks like a CloudEvent, phrased as the reason
// why it is nevertheless invalid, and those of its attributes that identify the event, as
// far as headers have them. The sign is empty if the message does not look like a
// CloudEvent.
func signOf(header nats.Header, data []byte) (sign, attributes string) {
	var envelope, binary, foreign bool
	names := slices.Sorted(maps.Keys(header)) // all clusters return the same reason
	var identity []string
	for _, name := range names {
		switch {
		case strings.EqualFold(name, contentTypeHeader):
			for _, value := range header[name] {
				envelope = envelope || isEnvelope(value)
			}
		case isAttribute(name):
			binary = true
			switch attribute := strings.ToLower(name[len(attributePrefix):]); attribute {
			case "id", "source", "type":
				identity = append(identity, fmt.Sprintf("%s %q", attribute, clip(header.Get(name))))
			}
		default:
			foreign = foreign || isOtherBinding(name)
		}
	}
	attributes = strings.Join(identity, ", ")
	switch {
	case envelope:
		return "its content type is that of CloudEvents", attributes
	case binary:
		return "specversion: missing, no header ce-specversion", attributes
	case foreign:
		return "its headers are those of another protocol binding: NATS has them as ce-id, ce-source, ce-type and ce-specversion", attributes
	case hasSpecVersion(data):
		return "the event is in the data, but the content type is not application/cloudevents+json, and a batch is not accepted", attributes
	}
	return "", ""
}

// isEnvelope reports whether a content type is one of CloudEvents, in any format.
func isEnvelope(contentType string) bool {
	const prefix = "application/cloudevents"
	contentType = strings.TrimLeft(contentType, " \t\"")
	return len(contentType) >= len(prefix) && strings.EqualFold(contentType[:len(prefix)], prefix)
}

// isOtherBinding reports whether a header holds an attribute that every CloudEvent has,
// as Kafka's or AMQP's binding writes it.
func isOtherBinding(header string) bool {
	switch strings.ToLower(header) {
	case "ce_specversion", "cloudevents:specversion", "cloudevents_specversion":
		return true
	}
	return false
}

// hasSpecVersion reports whether data is a JSON object with a member specversion, in any
// case, or an array of such objects. Data that is not valid JSON counts if it begins like
// one and contains the word.
func hasSpecVersion(data []byte) bool {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	text := bytes.TrimLeft(data, " \t\r\n")
	if len(text) == 0 || text[0] != '{' && text[0] != '[' || !containsFold(text, `"specversion"`) {
		return false
	}
	if !json.Valid(text) {
		return true
	}
	var elements []json.RawMessage
	if text[0] == '{' {
		elements = []json.RawMessage{text}
	} else if json.Unmarshal(text, &elements) != nil {
		return false
	}
	for _, element := range elements {
		var object map[string]json.RawMessage
		if json.Unmarshal(element, &object) != nil {
			continue
		}
		for name := range object {
			if strings.EqualFold(name, "specversion") {
				return true
			}
		}
	}
	return false
}

// containsFold reports whether text contains word, which is in lower case, ignoring
// case.
func containsFold(text []byte, word string) bool {
	for {
		i := bytes.IndexByte(text, word[0])
		if i < 0 || len(text)-i < len(word) {
			return false
		}
		if bytes.EqualFold(text[i:i+len(word)], []byte(word)) {
			return true
		}
		text = text[i+1:]
	}
}

// clip bounds a value that a reason quotes.
func clip(s string) string {
	const limit = 128
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

func isAttribute(header string) bool {
	return len(header) >= len(attributePrefix) && strings.EqualFold(header[:len(attributePrefix)], attributePrefix)
}

// mayBeJSON quickly excludes most data that is not a CloudEvent.
func mayBeJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) && bytes.Contains(data, []byte(`"specversion"`))
}
