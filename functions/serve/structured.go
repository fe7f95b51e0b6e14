package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
)

// maxAttributes bounds the members of an event in structured mode.
const maxAttributes = 256

// member is a member of a JSON object, its value as it stands there.
type member struct {
	name  string
	value []byte
}

// readStructured reads an event in the JSON format 1.0.2. Body is kept: the data
// of the event may be a part of it.
func readStructured(body []byte, lenient bool) (event.Event, error) {
	if err := checkJSON(body); err != nil {
		return event.Event{}, err
	}
	s := scanner{text: body}
	if s.space(); s.text[s.i] != '{' {
		return event.Event{}, errors.New("want a JSON object")
	}
	return readObject(&s, lenient)
}

// readObject reads the object at which s stands.
func readObject(s *scanner, lenient bool) (event.Event, error) {
	var space [16]member
	members := space[:0]
	version := ""
	for m, ok := s.member(true); ok; m, ok = s.member(false) {
		if len(members) == maxAttributes {
			return event.Event{}, fmt.Errorf("it has more than %d attributes", maxAttributes)
		}
		for _, other := range members {
			if other.name == m.name {
				return event.Event{}, fmt.Errorf("%q is there twice", clip(m.name, 64))
			}
		}
		members = append(members, m)
		if m.name == "specversion" {
			var err error
			if version, err = stringValue(m.value); err != nil {
				return event.Event{}, fmt.Errorf("specversion: %w", err)
			}
		}
	}
	if version == "" {
		return event.Event{}, errors.New("specversion: missing")
	}
	a, err := newAttributes(version, lenient)
	if err != nil {
		return event.Event{}, err
	}

	var data, base64 []byte
	for _, m := range members {
		switch m.name {
		case "specversion":
		case "data":
			data = m.value
		case "data_base64":
			if a.old {
				return event.Event{}, errors.New("data_base64: version 0.3 has datacontentencoding instead")
			}
			base64 = m.value
		default:
			if err := a.setJSON(m.name, m.value); err != nil {
				return event.Event{}, err
			}
		}
	}
	if base64 != nil && string(base64) != "null" {
		if data != nil {
			return event.Event{}, errors.New("data: it is there, and data_base64 too")
		}
		text, err := stringValue(base64)
		if err != nil {
			return event.Event{}, fmt.Errorf("data_base64: %w", err)
		}
		if data, err = decodeBase64([]byte(text)); err != nil {
			return event.Event{}, err
		}
		return a.event(data, true)
	}
	if data != nil && (a.encoding != "" || !isJSON(a.contentType)) {
		if string(data) == "null" {
			return a.event(nil, false)
		}
		text, err := stringValue(data)
		if err != nil {
			return event.Event{}, fmt.Errorf("data: %w, since datacontenttype is %q", err, clip(a.contentType, 64))
		}
		data = []byte(text)
	}
	return a.event(data, false)
}

// setJSON takes an attribute that came as a JSON value. Null is none.
func (a *attributes) setJSON(name string, value []byte) error {
	switch value[0] {
	case '"':
		text, err := stringValue(value)
		if err != nil {
			return fmt.Errorf("%s: %w", clip(name, 64), err)
		}
		return a.set(name, text)
	case 'n':
		return nil
	}
	switch name {
	case "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "schemaurl", "datacontentencoding":
		return fmt.Errorf("%s: want a string", name)
	}
	switch value[0] {
	case 't', 'f':
		return a.extend(name, value[0] == 't')
	case '{', '[':
		return fmt.Errorf("%s: want a string, a number or a boolean", clip(name, 64))
	}
	return a.setNumber(name, string(value))
}

// isJSON says whether data of this content type is JSON; none means that it is.
func isJSON(contentType string) bool {
	if contentType == "" || contentType == event.ApplicationJSON {
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && (mediaType == event.ApplicationJSON || mediaType == event.TextJSON || strings.HasSuffix(mediaType, "+json"))
}

// checkJSON says where text is not JSON in UTF-8.
func checkJSON(text []byte) error {
	if !json.Valid(text) {
		var syntax *json.SyntaxError
		var any json.RawMessage
		err := json.Unmarshal(text, &any)
		switch {
		case len(text) == 0:
			return errors.New("the body is empty")
		case errors.As(err, &syntax):
			return fmt.Errorf("the body is not JSON: at byte %d: %w", syntax.Offset, err)
		}
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	if !utf8.Valid(text) {
		return errors.New("the body is not UTF-8")
	}
	return nil
}

// stringValue decodes a JSON string that is known to be valid.
func stringValue(value []byte) (string, error) {
	if value[0] != '"' {
		return "", errors.New("want a string")
	}
	raw := value[1 : len(value)-1]
	escaped := false
	for _, c := range raw {
		escaped = escaped || c == '\\'
	}
	if !escaped {
		return string(raw), nil
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", fmt.Errorf("decode string: %w", err)
	}
	// A surrogate without its partner decodes to U+FFFD, so that two ids could
	// become one.
	if strings.ContainsRune(s, utf8.RuneError) && !strings.ContainsRune(string(raw), utf8.RuneError) &&
		!strings.Contains(strings.ToLower(string(raw)), `\ufffd`) {
		return "", errors.New("it has half of a surrogate pair")
	}
	return s, nil
}
