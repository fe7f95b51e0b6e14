package jetstream

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"github.com/tandem-fn/tandem/eventing/internal/attributes"
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
	if err := attributes.Check(e); err != nil {
		return nil, nil, fmt.Errorf("encode event for NATS: %w", err)
	}
	header := make(nats.Header, 8)
	err := attributes.Each(e, func(name, value string) {
		header[attributePrefix+name] = []string{attributes.Escape(value)}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("encode event for NATS: %w", err)
	}
	if contentType := e.DataContentType(); contentType != "" {
		header[contentTypeHeader] = []string{contentType}
	}
	return header, e.Data(), nil
}

// Decode reads a CloudEvent from a message in either content mode of the NATS
// binding. Names of headers are taken in any case. In binary mode
// ce-datacontenttype is as good as content-type. A message with neither content
// type nor attributes is structured if its data is a CloudEvent in JSON, which is
// how the binding was before NATS had headers. The error says why the message is
// no CloudEvent. The event keeps data.
func Decode(header nats.Header, data []byte) (event.Event, error) {
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
		return event.Event{}, errors.New("no CloudEvent: header content-type: given more than once")
	case len(contentTypes) == 1 && attributes.IsStructured(contentTypes[0]):
		return attributes.Structured(contentTypes[0], data)
	case len(contentTypes) == 0 && !binary && mayBeJSON(data):
		return attributes.JSON(data)
	}

	var b attributes.Builder
	for _, contentType := range contentTypes {
		if err := b.SetContentType(contentType); err != nil {
			return event.Event{}, fmt.Errorf("no CloudEvent: %w", err)
		}
	}
	for name, values := range header {
		if !isAttribute(name) {
			continue
		}
		for _, value := range values {
			if err := b.Set(strings.ToLower(name[len(attributePrefix):]), value); err != nil {
				return event.Event{}, fmt.Errorf("no CloudEvent: header %s%w", attributePrefix, err)
			}
		}
	}
	e, err := b.Event(data)
	switch {
	case errors.Is(err, attributes.ErrNoVersion):
		return event.Event{}, errors.New("no CloudEvent: neither header ce-specversion nor content type application/cloudevents+json")
	case err != nil:
		return event.Event{}, fmt.Errorf("no CloudEvent: %w", err)
	}
	return e, nil
}

func isAttribute(header string) bool {
	return len(header) >= len(attributePrefix) && strings.EqualFold(header[:len(attributePrefix)], attributePrefix)
}

// mayBeJSON spares most of what is no CloudEvent the reading.
func mayBeJSON(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) && bytes.Contains(data, []byte(`"specversion"`))
}
