package cloudevent

import (
	"errors"
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Check returns an error if e is not a CloudEvent 1.0 that can be written in every
// mode: an attribute is missing or has the wrong type, or contains a character
// that is not allowed. A database would reject some of these events, so that not
// even a dead letter could be stored.
func Check(e event.Event) error {
	c, err := checkedContext(e)
	if err != nil {
		return err
	}
	var bad error
	if err := each(c, func(name, value string) { checkValue(&bad, name, value) }); err != nil {
		return err
	}
	return bad
}

// checkedContext returns the attributes of an event that was not read. It validates
// everything that [Check] does except the characters, which checkValue validates.
func checkedContext(e event.Event) (*event.EventContextV1, error) {
	c, err := contextOf(e)
	if err != nil {
		return nil, err
	}
	if err := check(c, 0); err != nil {
		return nil, err
	}
	if c.DataSchema != nil && !c.DataSchema.IsAbs() {
		return nil, fmt.Errorf("dataschema %q: want an absolute URI", clip(c.DataSchema.String(), 256))
	}
	return c, nil
}

// checkValue sets bad to the error about the characters of an attribute, unless bad is set.
func checkValue(bad *error, name, value string) {
	if err := CheckText(value); err != nil && *bad == nil {
		*bad = fmt.Errorf("%s: %w", name, err)
	}
}

// contextOf returns the attributes of an event of version 1.0.
func contextOf(e event.Event) (*event.EventContextV1, error) {
	switch c := e.Context.(type) {
	case nil:
		return nil, errors.New("the event has no attributes")
	case *event.EventContextV1:
		return c, nil
	default:
		return nil, fmt.Errorf("specversion %q: want %s", c.GetSpecVersion(), event.CloudEventsVersionV1)
	}
}

// check validates the attributes together, after each was validated when it
// was read.
func check(c *event.EventContextV1, maxName int) error {
	var missing []string
	for _, a := range [...]struct{ name, value string }{{"id", c.ID}, {"source", sourceOf(c)}, {"type", c.Type}} {
		switch {
		case a.value == "":
			missing = append(missing, a.name)
		case maxName > 0 && len(a.value) > maxName:
			return fmt.Errorf("%s: it has %d bytes, at most %d are accepted", a.name, len(a.value), maxName)
		case strings.TrimSpace(a.value) == "":
			return fmt.Errorf("%s: it is blank", a.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("%s: missing", strings.Join(missing, ", "))
	}
	if c.Subject != nil && strings.TrimSpace(*c.Subject) == "" {
		return errors.New("subject: it is blank; leave it out")
	}
	if c.Time != nil {
		if year := c.Time.UTC().Year(); year < 0 || year > 9999 {
			return fmt.Errorf("time: year %d: want 0 to 9999, as in RFC 3339", year)
		}
	}
	if c.DataContentType != nil {
		return CheckContentType(*c.DataContentType)
	}
	return nil
}

// CheckContentType returns an error if an event cannot have data of this content
// type.
func CheckContentType(contentType string) error {
	if contentType == event.ApplicationJSON {
		return nil
	}
	if err := CheckText(contentType); err != nil {
		return fmt.Errorf("datacontenttype: %w", err)
	}
	if _, _, err := mime.ParseMediaType(contentType); err != nil {
		return fmt.Errorf("datacontenttype %q: want a media type", clip(contentType, 256))
	}
	if isEnvelope(contentType) {
		// In binary mode a reader would take it for the event inside it.
		return fmt.Errorf("datacontenttype %q: an event cannot hold another one", clip(contentType, 256))
	}
	return nil
}

// ErrNotUTF8 is the error of [CheckText] for text that is not UTF-8.
var ErrNotUTF8 = errors.New("it is not UTF-8")

// CheckText returns an error for text that CloudEvents does not allow in a String
// (spec 1.0.2, Type System): control characters, noncharacters, and anything but
// Unicode.
func CheckText(s string) error {
	if isPrintableASCII(s) {
		return nil
	}
	return checkRunes(s)
}

func checkRunes(s string) error {
	for i, r := range s {
		switch {
		case r >= ' ' && r < 0x7f:
		case r <= 0x9f:
			return fmt.Errorf("control character %U at byte %d", r, i)
		case r == utf8.RuneError && !utf8.ValidString(s):
			return ErrNotUTF8
		case r >= 0xfdd0 && r <= 0xfdef, r&0xfffe == 0xfffe:
			return fmt.Errorf("noncharacter %U at byte %d", r, i)
		}
	}
	return nil
}

// storable converts text to one that a database can store.
func storable(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\ufffd"), "\ufffd")
}

// clip truncates text that a message quotes.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}
