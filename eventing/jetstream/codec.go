package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

const (
	attributePrefix   = "ce-"
	contentTypeHeader = "content-type"
)

// Encode gives header and data of the message that holds e in the binary content
// mode of the CloudEvents NATS binding: each attribute as a header "ce-" and its
// name, percent-encoded, but for datacontenttype, which is "content-type" and as it
// is. The error says why e is no CloudEvent. The data is e's own.
func Encode(e event.Event) (nats.Header, []byte, error) {
	err := cloudevent.Check(e)
	if err != nil {
		return nil, nil, fmt.Errorf("encode event for NATS: %w", err)
	}
	header, data, err := cloudevent.WriteBinary(e, headerName)
	if err != nil {
		return nil, nil, fmt.Errorf("encode event for NATS: %w", err)
	}
	return header, data, nil
}

// headerName is the header of an attribute. The switch spares the usual ones a new
// string.
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
// binding, as package cloudevent does. Names of headers are taken in any case. In
// binary mode ce-datacontenttype is as good as content-type. A message with neither
// content type nor attributes is structured if its data is a CloudEvent in JSON,
// which is how the binding was before NATS had headers. The error says why the
// message is no CloudEvent. The event keeps data.
func Decode(header nats.Header, data []byte) (event.Event, error) {
	e, err := decode(header, data)
	if err != nil {
		return event.Event{}, fmt.Errorf("no CloudEvent: %w", err)
	}
	return e, nil
}

func decode(header nats.Header, data []byte) (event.Event, error) {
	// What comes first out of the map must not matter: all clusters have to read
	// the same.
	var contentTypes []string
	binary := false
	for name, values := range header {
		if strings.EqualFold(name, contentTypeHeader) {
			contentTypes = append(contentTypes, values...)
		}
		binary = binary || isAttribute(name)
	}
	switch {
	case len(contentTypes) > 1:
		return event.Event{}, errors.New("header content-type: it is there more than once")
	case len(contentTypes) == 1:
		return cloudevent.Read(contentTypes[0], header, data, cloudevent.Rules{})
	case !binary && mayBeJSON(data):
		return cloudevent.ReadJSON(data, cloudevent.Rules{})
	}
	return cloudevent.ReadBinary(header, data, cloudevent.Rules{})
}

func isAttribute(header string) bool {
	return len(header) >= len(attributePrefix) && strings.EqualFold(header[:len(attributePrefix)], attributePrefix)
}

// mayBeJSON spares most of what is no CloudEvent the reading.
func mayBeJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) && bytes.Contains(data, []byte(`"specversion"`))
}
