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

// ErrNone says that a message does not even look like a CloudEvent, and what would.
var ErrNone = errors.New("send the headers ce-specversion, ce-id, ce-source and ce-type with the data as the body, or the content type application/cloudevents+json with the event as the body")

// ReadBinary reads an event in binary content mode: attributes in headers whose
// names begin with "ce-", in any case, and the data in the body (HTTP binding
// 1.0.2, section 3.1; the NATS binding says the same). Values are percent-decoded.
// The datacontenttype is content-type, as it is there, or ce-datacontenttype. The
// event keeps body.
//
// The error is [ErrNone] if no header says that this is an event, else why it is
// none.
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
			return event.Event{}, fmt.Errorf("%s: it is there %d times", clip(name, 64), len(values))
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
	// Whether data is text matters only in an envelope; bytes are always right.
	isText := declaresJSON(a.contentType)
	if rules.Lenient {
		isText = isText && checkJSON(body) == nil
	}
	return a.event(body, !isText)
}

// specVersion finds the version, which says what the other attributes mean.
func specVersion(header map[string][]string) (string, error) {
	// As in HTTP, as we write it to NATS, and as somebody else may.
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

// attributeName is the attribute that a header stands for, in lower case, and
// whether its value is escaped; ok is false if it stands for none.
func attributeName(key string) (name string, isEscaped, ok bool) {
	if len(key) < 3 || key[0]|0x20 != 'c' {
		return "", false, false
	}
	if key[2] != '-' || key[1]|0x20 != 'e' {
		isType := len(key) == len("content-type") && strings.EqualFold(key, "content-type")
		return "datacontenttype", false, isType
	}
	// The usual ones need no new string.
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

// lower is s in lower case if it is ASCII. Other letters, of which some have ASCII
// ones for their lower case, are for the reader to refuse.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return s
		}
	}
	return strings.ToLower(s)
}

// WriteBinary gives header and body of a message that holds e in binary content
// mode: under name(attribute) each attribute, specversion too, percent-encoded but
// for datacontenttype. The body is e's own data. It does not [Check] e; the error
// says that an extension cannot be written.
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

// AddBinary adds to header what [WriteBinary] gives. It checks e as [Check] does, in one
// pass; after an error the header is of no use.
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

// addBinary calls escaping with the attributes whose values have to be escaped, which all
// have that a String does not allow.
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

// each calls put with every attribute but datacontenttype, specversion first,
// extensions last and in the order of their names. Values are in their canonical
// form, not escaped.
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

// appendExtensionNames appends the names of the extensions to names, which is empty, in
// their order.
func appendExtensionNames(names []string, c *event.EventContextV1) []string {
	for name := range c.Extensions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
