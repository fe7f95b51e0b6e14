package cloudevent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

// ErrNone means that a message is not recognizable as a CloudEvent. Its text
// describes what to send.
var ErrNone = errors.New("send the headers ce-specversion, ce-id, ce-source and ce-type with the data as the body, or the content type application/cloudevents+json with the event as the body")

// ReadBinary reads an event in binary content mode: attributes are in headers
// whose names begin with "ce-", in any case, and the data in the body (HTTP
// binding 1.0.2, section 3.1; the NATS binding is the same). Values are
// percent-decoded. The datacontenttype is content-type, unchanged, or
// ce-datacontenttype. The event keeps body.
//
// The error is [ErrNone] if no header identifies the message as an event. Any
// other error is the reason why the event is invalid.
func ReadBinary(header map[string][]string, body []byte, rules Rules) (event.Event, error) {
	version, err := specVersion(header)
	if err != nil {
		return event.Event{}, err
	}
	a, err := newAttributes(version, rules)
	if err != nil {
		return event.Event{}, err
	}
	count, limit := 0, rules.maxAttributes()
	for key, values := range header {
		name, isEscaped, ok := attributeName(key)
		if !ok || len(values) == 0 {
			continue
		}
		if len(values) > 1 && !rules.Lenient {
			return event.Event{}, fmt.Errorf("%s: the header occurs %d times", clip(name, 64), len(values))
		}
		if count++; count > limit {
			return event.Event{}, tooMany(limit)
		}
		value := values[0]
		if isEscaped {
			value = unescape(value)
		}
		if err := a.setText(name, value); err != nil {
			return event.Event{}, err
		}
	}
	// Whether data is text only matters in an envelope; bytes are always valid.
	isText := declaresJSON(a.contentType)
	if rules.Lenient {
		isText = isText && checkJSON(body) == nil
	}
	return a.event(body, !isText)
}

// specVersion returns the version, which determines the meaning of the other
// attributes.
func specVersion(header map[string][]string) (string, error) {
	// These are the spellings of HTTP and of our messages in NATS; the loop below accepts
	// those of other senders.
	for _, key := range [...]string{"Ce-Specversion", "ce-specversion"} {
		if values := header[key]; len(values) > 0 {
			return unescape(values[0]), nil
		}
	}
	err := ErrNone
	for key, values := range header {
		switch name, _, _ := attributeName(key); name {
		case "specversion":
			if len(values) > 0 {
				return unescape(values[0]), nil
			}
		case "id", "source", "type":
			err = errors.New("specversion: missing, no header ce-specversion")
		}
	}
	return "", err
}

// attributeName returns the attribute of a header, in lower case, and whether
// its value is escaped; ok is false if the header is not an attribute.
func attributeName(key string) (name string, isEscaped, ok bool) {
	if len(key) < 3 || key[0]|0x20 != 'c' {
		return "", false, false
	}
	if key[2] != '-' || key[1]|0x20 != 'e' {
		isType := len(key) == len("content-type") && strings.EqualFold(key, "content-type")
		return "datacontenttype", false, isType
	}
	// The common ones need no new string.
	switch key[3:] {
	case "Id", "id":
		return "id", true, true
	case "Source", "source":
		return "source", true, true
	case "Type", "type":
		return "type", true, true
	case "Specversion", "specversion":
		return "specversion", true, true
	case "Subject", "subject":
		return "subject", true, true
	case "Time", "time":
		return "time", true, true
	}
	return lower(key[3:]), true, true
}

// lower returns s in lower case if it is ASCII. Other letters, some of which have
// ASCII letters as their lower case, stay unchanged, and the reader rejects them.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return s
		}
	}
	return strings.ToLower(s)
}

// WriteBinary returns header and body of a message that holds e in binary content
// mode. The header has each attribute, including specversion, under
// name(attribute), percent-encoded except for datacontenttype. The body is e's own
// data. WriteBinary does not [Check] e; it returns an error if an extension cannot
// be written.
func WriteBinary(e event.Event, name func(attribute string) string) (header map[string][]string, body []byte, err error) {
	c, err := contextOf(e)
	if err != nil {
		return nil, nil, err
	}
	header = make(map[string][]string, 8+len(c.Extensions))
	if err := addBinary(header, c, name, func(string, string) {}); err != nil {
		return nil, nil, err
	}
	return header, e.DataEncoded, nil
}

// AddBinary adds the headers that [WriteBinary] returns to header. It checks e like
// [Check], in one pass; after an error the content of header is undefined.
func AddBinary(header map[string][]string, e event.Event, name func(attribute string) string) error {
	c, err := checkedContext(e)
	if err != nil {
		return err
	}
	var bad error
	if err := addBinary(header, c, name, func(attribute, value string) { checkValue(&bad, attribute, value) }); err != nil {
		return err
	}
	return bad
}

// addBinary calls escaping with the attributes whose values must be escaped. These
// include all with characters that a String does not allow.
func addBinary(header map[string][]string, c *event.EventContextV1, name func(attribute string) string, escaping func(attribute, value string)) error {
	values := make([]string, 0, 8+len(c.Extensions))
	put := func(attribute, value string) {
		values = append(values, value)
		header[name(attribute)] = values[len(values)-1 : len(values) : len(values)]
	}
	err := each(c, func(attribute, value string) {
		escaped := escape(value)
		if len(escaped) > len(value) {
			escaping(attribute, value)
		}
		put(attribute, escaped)
	})
	if err == nil && c.DataContentType != nil && *c.DataContentType != "" {
		put("datacontenttype", *c.DataContentType)
	}
	return err
}

// each calls put with every attribute except datacontenttype: specversion first,
// extensions last and sorted by name. Values are in their canonical form, not
// escaped.
func each(c *event.EventContextV1, put func(name, value string)) error {
	put("specversion", event.CloudEventsVersionV1)
	put("id", c.ID)
	put("source", sourceOf(c))
	put("type", c.Type)
	if c.Subject != nil {
		put("subject", *c.Subject)
	}
	if c.Time != nil {
		put("time", types.FormatTime(c.Time.Time))
	}
	if c.DataSchema != nil {
		put("dataschema", c.DataSchema.String())
	}
	var space [8]string
	for _, name := range appendExtensionNames(space[:0], c) {
		if err := checkExtensionName(name); err != nil {
			return err
		}
		value, err := types.Format(c.Extensions[name])
		if err != nil {
			return fmt.Errorf("extension %s: %w", name, err)
		}
		put(name, value)
	}
	return nil
}

// appendExtensionNames appends the sorted names of the extensions to names, which is
// empty.
func appendExtensionNames(names []string, c *event.EventContextV1) []string {
	for name := range c.Extensions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
