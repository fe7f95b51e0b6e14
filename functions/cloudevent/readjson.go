package cloudevent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/internal/jsonscan"
)

// member is a member of a JSON object; its value is not decoded.
type member struct {
	name  string
	value []byte
}

// Member is one element of a batch.
type Member struct {
	// Event is the event, if Err is nil.
	Event event.Event

	// Err is the reason why the element is not a valid event.
	Err error
}

// ReadJSON reads an event in the JSON format 1.0.2. Data that is JSON is kept byte
// for byte, and shares memory with text. Implied attributes are set: data without
// a content type has application/json. Data that is not a string although its
// content type is not JSON is used unchanged. The error is the reason why the text
// is not an event.
func ReadJSON(text []byte, rules Rules) (event.Event, error) {
	s := jsonscan.New(text)
	e, err := event.Event{}, errNoObject
	if s.Peek() == '{' {
		e, _, err = readObject(&s, rules)
	} else {
		s.Value()
	}
	if noJSON := checkRead(&s, text); noJSON != nil {
		return event.Event{}, noJSON
	}
	return e, err
}

// ReadBatch reads events in the JSON batch format 1.0.2, as [ReadJSON] does. It
// returns an error if the text is not a batch, whose events must all have one
// version (HTTP binding 1.0.2, section 3.3.2). An element that is not an event has
// an error of its own.
func ReadBatch(text []byte, rules Rules) ([]Member, error) {
	s := jsonscan.New(text)
	members, err := readArray(&s, rules)
	if noJSON := checkRead(&s, text); noJSON != nil {
		return nil, noJSON
	}
	return members, err
}

// readArray reads the events of a batch. If text turns out to be invalid JSON, the result
// is undefined.
func readArray(s *jsonscan.Scanner, rules Rules) ([]Member, error) {
	if s.Peek() != '[' {
		s.Value()
		return nil, errNoArray
	}
	var members []Member
	first := ""
	for more := s.More(true, ']'); more; more = s.More(false, ']') {
		if s.Peek() != '{' {
			return nil, fmt.Errorf("element %d is not an object", len(members))
		}
		e, version, err := readObject(s, rules)
		switch {
		case err != nil:
		case first == "":
			first = version
		case version != first:
			return nil, fmt.Errorf("element %d has specversion %s, others have %s: want the same in all", len(members), version, first)
		}
		members = append(members, Member{Event: e, Err: err})
	}
	return members, nil
}

// Members returns the elements of a batch one after the other, so that a reader need not
// hold all events in memory. It reads as [ReadBatch] does, except that an element that
// is not an object has an error of its own, and versions are not compared.
func Members(text []byte, rules Rules) (iter.Seq[Member], error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	if s := jsonscan.New(text); s.Peek() != '[' {
		return nil, errNoArray
	}
	return func(yield func(Member) bool) {
		s := jsonscan.New(text)
		s.Peek()
		for more := s.More(true, ']'); more; more = s.More(false, ']') {
			m := Member{Err: errNoObject}
			if s.Peek() == '{' {
				m.Event, _, m.Err = readObject(&s, rules)
			} else {
				s.Value()
			}
			if !yield(m) {
				return
			}
		}
	}, nil
}

var (
	errNoObject = errors.New("want a JSON object")
	errNoArray  = errors.New("want a JSON array")

	errSyntax = errors.New("it is not JSON") // checkRead returns a better one
)

// readObject reads an event from the JSON object at the position of s, and advances past
// it. It returns the event's version of CloudEvents. If the text turns out to be invalid
// JSON, the result is undefined.
func readObject(s *jsonscan.Scanner, rules Rules) (e event.Event, version string, err error) {
	var space [16]member
	members, err := readMembers(s, space[:0], rules.maxAttributes())
	if err != nil {
		return event.Event{}, "", err
	}
	for _, m := range members {
		if m.name == "specversion" {
			if version, err = stringValue(m.value); err != nil {
				return event.Event{}, "", fmt.Errorf("specversion: %w", err)
			}
		}
	}
	if version == "" {
		return event.Event{}, "", errors.New("specversion: missing")
	}
	a, err := newAttributes(version, rules)
	if err != nil {
		return event.Event{}, "", err
	}

	var data, base64 []byte
	for _, m := range members {
		switch m.name {
		case "specversion":
		case "data":
			data = m.value
		case "data_base64":
			base64 = m.value
		default:
			if err := a.setJSON(m.name, m.value); err != nil && !rules.Lenient {
				return event.Event{}, "", err
			}
		}
	}
	e, err = a.join(data, base64)
	return e, version, err
}

// readMembers appends the members of the object at the position of s to members, and
// advances past the object, even if it returns an error.
func readMembers(s *jsonscan.Scanner, members []member, limit int) (_ []member, err error) {
	for more := s.More(true, '}'); more; more = s.More(false, '}') {
		quoted, _ := s.Name()
		value := s.Value()
		switch {
		case err != nil || s.Failed():
			continue
		case len(members) == limit:
			err = tooMany(limit)
			continue
		}
		m := member{name: memberName(quoted), value: value}
		for _, other := range members {
			if other.name == m.name {
				err = twice(m.name)
			}
		}
		members = append(members, m)
	}
	if s.Failed() {
		return nil, errSyntax
	}
	return members, err
}

// memberName decodes a member's name. The common ones need no new string.
func memberName(name []byte) string {
	switch string(name) {
	case `"specversion"`:
		return "specversion"
	case `"id"`:
		return "id"
	case `"source"`:
		return "source"
	case `"type"`:
		return "type"
	case `"subject"`:
		return "subject"
	case `"time"`:
		return "time"
	case `"datacontenttype"`:
		return "datacontenttype"
	case `"data"`:
		return "data"
	}
	text, err := stringValue(name)
	if err != nil {
		return string(name) // not an attribute's name; rejected later
	}
	return text
}

// join returns the event with its data, which is JSON in both cases, or nil.
func (a *attributes) join(data, base64 []byte) (event.Event, error) {
	if string(base64) == "null" {
		base64 = nil
	}
	switch {
	case base64 != nil && a.old:
		return event.Event{}, errors.New("data_base64: version 0.3 has datacontentencoding instead")
	case base64 != nil && data != nil:
		return event.Event{}, errors.New("data: data_base64 is present, too")
	case base64 != nil:
		text, err := stringValue(base64)
		if err != nil {
			return event.Event{}, fmt.Errorf("data_base64: %w", err)
		}
		if data, err = decodeBase64([]byte(text)); err != nil {
			return event.Event{}, err
		}
		return a.event(data, true)
	case data == nil:
		return a.event(nil, false)
	}
	if a.encoding == "" {
		if a.contentType == "" {
			// Other content modes imply nothing.
			a.contentType = event.ApplicationJSON
			a.context.DataContentType = &a.contentType
		}
		if declaresJSON(a.contentType) {
			return a.event(data, false)
		}
	}
	switch {
	case string(data) == "null":
		data = nil
	case data[0] == '"':
		text, err := stringValue(data)
		if err != nil {
			return event.Event{}, fmt.Errorf("data: %w", err)
		}
		data = []byte(text)
	case a.encoding != "":
		return event.Event{}, errors.New("data: want a string, since datacontentencoding is base64")
	}
	return a.event(data, false)
}

// setJSON sets an attribute from a JSON value. Null sets none.
func (a *attributes) setJSON(name string, value []byte) error {
	switch value[0] {
	case '"':
		text, err := stringValue(value)
		if err != nil {
			return fmt.Errorf("%s: %w", clip(name, 64), err)
		}
		return a.setText(name, text)
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

// checkRead is [checkJSON] for a text that s has read. It saves another pass if s found
// the text to be JSON.
func checkRead(s *jsonscan.Scanner, text []byte) error {
	if s.Done() && utf8.Valid(text) {
		return nil
	}
	return checkJSON(text)
}

// checkJSON returns an error with the position at which text is not JSON in
// UTF-8.
func checkJSON(text []byte) error {
	if !jsonscan.Valid(text) {
		var syntax *json.SyntaxError
		var any json.RawMessage
		err := json.Unmarshal(text, &any)
		switch {
		case len(text) == 0:
			return errors.New("it is empty, want JSON")
		case errors.As(err, &syntax):
			return fmt.Errorf("it is not JSON: at byte %d: %w", syntax.Offset, err)
		}
		return fmt.Errorf("it is not JSON: %w", err)
	}
	if !utf8.Valid(text) {
		return ErrNotUTF8
	}
	return nil
}

// stringValue decodes a JSON string that is known to be valid.
func stringValue(value []byte) (string, error) {
	if value[0] != '"' {
		return "", errors.New("want a string")
	}
	raw := value[1 : len(value)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), nil
	}
	var s string
	if err := json.Unmarshal(value, &s); err != nil {
		return "", fmt.Errorf("decode string: %w", err)
	}
	// An unpaired surrogate decodes to U+FFFD, so that two ids could become
	// equal.
	if strings.ContainsRune(s, utf8.RuneError) && !strings.ContainsRune(string(raw), utf8.RuneError) &&
		!strings.Contains(strings.ToLower(string(raw)), `\ufffd`) {
		return "", errors.New("it has half of a surrogate pair")
	}
	return s, nil
}
