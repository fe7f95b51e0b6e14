// Package attributes turns the attributes of a CloudEvent into text and back.
// It is what the binary content modes of HTTP and NATS have in common, and what
// both ask of an event before they take it.
package attributes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

// ErrNoVersion says that there is no specversion, without which nothing is a
// CloudEvent.
var ErrNoVersion = errors.New("specversion is missing")

// Each calls put with every attribute of e but datacontenttype, specversion
// first, extensions last and in the order of their names. Values are in their
// canonical form, not escaped.
func Each(e event.Event, put func(name, value string)) error {
	if e.Context == nil {
		return errors.New("the event has no attributes")
	}
	ec, ok := e.Context.(*event.EventContextV1)
	if !ok {
		ec = e.Context.AsV1()
	}
	put("specversion", event.CloudEventsVersionV1)
	put("id", ec.ID)
	put("source", ec.Source.String())
	put("type", ec.Type)
	if ec.Subject != nil {
		put("subject", *ec.Subject)
	}
	if ec.Time != nil {
		put("time", types.FormatTime(ec.Time.Time))
	}
	if ec.DataSchema != nil {
		put("dataschema", ec.DataSchema.String())
	}
	if len(ec.Extensions) == 0 {
		return nil
	}
	names := make([]string, 0, len(ec.Extensions))
	for name := range ec.Extensions {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value, err := types.Format(ec.Extensions[name])
		if err != nil {
			return fmt.Errorf("extension %s: %w", name, err)
		}
		if value != "" {
			put(name, value)
		}
	}
	return nil
}

// Builder collects the attributes of an event that came as text. The zero
// Builder is ready to use.
type Builder struct {
	ec      event.EventContextV1
	version bool
	seen    []string
}

// Set takes an attribute, escaped as in a header. The name is in lower case and
// without the "ce-" of a header. An error says what is wrong with it; so does
// one that is given twice, since which of the two counts would be chance.
func (b *Builder) Set(name, value string) error {
	value, err := Unescape(value)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return b.set(name, value)
}

// SetContentType takes a Content-Type header as datacontenttype. It is not
// escaped as attributes are.
func (b *Builder) SetContentType(value string) error {
	return b.set("datacontenttype", value)
}

func (b *Builder) set(name, value string) error {
	if slices.Contains(b.seen, name) {
		return fmt.Errorf("%s: given more than once", name)
	}
	b.seen = append(b.seen, name)
	switch name {
	case "specversion":
		if value != event.CloudEventsVersionV1 {
			return fmt.Errorf("specversion %q: want %s", value, event.CloudEventsVersionV1)
		}
		b.version = true
		return nil
	case "data", "data_base64":
		return fmt.Errorf("%s: is no attribute", name)
	}
	if value == "" {
		return nil // as if it were not there
	}
	switch name {
	case "id":
		b.ec.ID = value
	case "type":
		b.ec.Type = value
	case "subject":
		b.ec.Subject = &value
	case "datacontenttype":
		b.ec.DataContentType = &value
	case "source":
		source := types.ParseURIRef(value)
		if source == nil {
			return errors.New("source: no URI reference")
		}
		b.ec.Source = *source
	case "dataschema":
		if b.ec.DataSchema = types.ParseURI(value); b.ec.DataSchema == nil {
			return errors.New("dataschema: no URI")
		}
	case "time":
		t, err := types.ParseTime(value)
		if err != nil {
			return errors.New("time: not as in RFC 3339")
		}
		b.ec.Time = &types.Timestamp{Time: t.UTC()}
	default:
		if !validName(name) {
			return fmt.Errorf("attribute %q: want lower-case letters and digits in the name", name)
		}
		if b.ec.Extensions == nil {
			b.ec.Extensions = make(map[string]any, 4)
		}
		b.ec.Extensions[name] = value
	}
	return nil
}

func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
}

// Event gives the event with these attributes and data, checked by [Check]. It
// is called once; the event keeps data. Without a specversion the error is
// [ErrNoVersion].
func (b *Builder) Event(data []byte) (event.Event, error) {
	if !b.version {
		return event.Event{}, ErrNoVersion
	}
	e := event.Event{Context: &b.ec}
	if len(data) > 0 {
		e.DataEncoded = data
		// In JSON only text can stand as it is.
		e.DataBase64 = !utf8.Valid(data)
	}
	if err := Check(e); err != nil {
		return event.Event{}, err
	}
	return e, nil
}

// Check reports what keeps e from being a CloudEvent 1.0: an attribute that is
// missing or not of its type, or a character that no attribute may have. A
// database would refuse some of them, and then even the dead letter could not
// be stored.
func Check(e event.Event) error {
	ec, ok := e.Context.(*event.EventContextV1)
	if !ok {
		return fmt.Errorf("specversion: want %s", event.CloudEventsVersionV1)
	}
	if invalid := ec.Validate(); invalid != nil {
		return errors.New(describe(invalid))
	}
	var bad error
	check := func(name, value string) {
		if err := CheckString(value); err != nil && bad == nil {
			bad = fmt.Errorf("%s: %w", name, err)
		}
	}
	if ec.Time != nil {
		if year := ec.Time.UTC().Year(); year < 0 || year > 9999 {
			return fmt.Errorf("time: year %d: want 0 to 9999, as in RFC 3339", year)
		}
	}
	if ec.DataContentType != nil {
		check("datacontenttype", *ec.DataContentType)
		if IsStructured(*ec.DataContentType) {
			// In binary mode it would be taken for the event inside it.
			return fmt.Errorf("datacontenttype %s: an event cannot hold another one", *ec.DataContentType)
		}
	}
	if err := Each(e, check); err != nil {
		return err
	}
	return bad
}

// describe gives the validation errors in the order of their names and on one
// line; the SDK's own text is several lines in the order of a map.
func describe(invalid event.ValidationError) string {
	all := make([]string, 0, len(invalid))
	for name, err := range invalid {
		all = append(all, name+": "+err.Error())
	}
	slices.Sort(all)
	return strings.ReplaceAll(strings.Join(all, "; "), "\n", " ")
}

// CheckString reports what CloudEvents does not allow in a String (spec 1.0.2,
// Type System): control characters, noncharacters, and anything but Unicode.
func CheckString(s string) error {
	for i, r := range s {
		switch {
		case r >= ' ' && r < 0x7f:
		case r <= 0x9f:
			return fmt.Errorf("control character %U at byte %d", r, i)
		case r == utf8.RuneError && !utf8.ValidString(s):
			return errors.New("not UTF-8")
		case r >= 0xfdd0 && r <= 0xfdef, r&0xfffe == 0xfffe:
			return fmt.Errorf("noncharacter %U at byte %d", r, i)
		}
	}
	return nil
}
