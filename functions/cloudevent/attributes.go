package cloudevent

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

// attributes collects the context of an event, one attribute at a time, in any
// content mode.
type attributes struct {
	*kept
	rules    Rules
	old      bool   // CloudEvents 0.3
	encoding string // 0.3 only: "base64" or empty
	seen     uint   // bit set of the attributes that the specification defines
}

// kept holds the values that the event points to: all except the strings in one
// allocation.
type kept struct {
	context event.EventContextV1

	contentType, subject string
	time                 types.Timestamp
}

// newAttributes starts an event of a version of CloudEvents.
func newAttributes(specVersion string, rules Rules) (attributes, error) {
	a := attributes{rules: rules}
	switch {
	case specVersion == event.CloudEventsVersionV1:
	case specVersion == event.CloudEventsVersionV03 && rules.Old:
		a.old = true
	case rules.Old:
		return a, fmt.Errorf("specversion %q: want 1.0 or 0.3", clip(specVersion, 64))
	default:
		return a, fmt.Errorf("specversion %q: want 1.0", clip(specVersion, 64))
	}
	a.kept = new(kept)
	return a, nil
}

// setText sets an attribute from a string. The name is in lower case.
func (a *attributes) setText(name, value string) error {
	if err := CheckText(value); err != nil {
		if !a.rules.Lenient {
			return fmt.Errorf("%s: %w", clip(name, 64), err)
		}
		value = storable(value)
	}
	err := a.take(name, value)
	if err != nil && a.rules.Lenient {
		return nil
	}
	return err
}

// Bits of attributes.seen.
const (
	hasVersion = 1 << iota
	hasID
	hasSource
	hasType
	hasSubject
	hasTime
	hasContentType
	hasSchema
	hasEncoding
)

func (a *attributes) take(name, value string) error {
	c := &a.context
	switch name {
	case "specversion":
		return a.once(name, hasVersion)
	case "id":
		c.ID = a.cut(value)
		return a.once(name, hasID)
	case "source":
		value = a.cut(value)
		u, err := parseSource(value)
		if err != nil {
			if !a.rules.Lenient {
				return fmt.Errorf("source %q: want a URI reference", clip(value, 256))
			}
			u = url.URL{Opaque: value}
		}
		c.Source.URL = u
		return a.once(name, hasSource)
	case "type":
		c.Type = a.cut(value)
		return a.once(name, hasType)
	case "subject":
		a.subject = value
		c.Subject = optional(&a.subject)
		return a.once(name, hasSubject)
	case "datacontenttype":
		a.contentType = value
		c.DataContentType = optional(&a.contentType)
		return a.once(name, hasContentType)
	case "time":
		if err := a.takeTime(value); err != nil {
			return err
		}
		return a.once(name, hasTime)
	case a.schemaName():
		u, err := url.Parse(value)
		if err != nil || value != "" && !u.IsAbs() && !a.old {
			return fmt.Errorf("%s %q: want an absolute URI", name, clip(value, 256))
		}
		if value != "" {
			c.DataSchema = &types.URI{URL: *u}
		}
		return a.once(name, hasSchema)
	case "datacontentencoding":
		if !a.old {
			return a.extend(name, value)
		}
		if value != event.Base64 && value != "" {
			return fmt.Errorf("datacontentencoding %q: want base64", clip(value, 64))
		}
		a.encoding = value
		return a.once(name, hasEncoding)
	}
	return a.extend(name, value)
}

func (a *attributes) takeTime(value string) error {
	if value == "" {
		return nil
	}
	t, err := types.ParseTime(value)
	if err != nil {
		return fmt.Errorf("time %q: want a time as in RFC 3339, such as 2006-01-02T15:04:05Z", clip(value, 64))
	}
	// UTC, because Parse returns the time in the local zone if it can.
	a.time.Time = t.UTC()
	a.context.Time = &a.time
	return nil
}

// once returns an error for a duplicate attribute, because which of the two
// counts would be arbitrary.
func (a *attributes) once(name string, bit uint) error {
	if a.seen&bit != 0 {
		return twice(name)
	}
	a.seen |= bit
	return nil
}

func twice(name string) error { return fmt.Errorf("%q occurs twice", clip(name, 64)) }

// cut truncates a name that is too long, for a lenient reader.
func (a *attributes) cut(value string) string {
	if a.rules.Lenient && a.rules.MaxName > 0 {
		return clip(value, a.rules.MaxName-len("…"))
	}
	return value
}

func (a *attributes) schemaName() string {
	if a.old {
		return "schemaurl"
	}
	return "dataschema"
}

// extend sets an extension: a string, bool or int32.
func (a *attributes) extend(name string, value any) error {
	if err := checkExtensionName(name); err != nil {
		return err
	}
	if a.context.Extensions == nil {
		a.context.Extensions = make(map[string]any, 4)
	} else if _, ok := a.context.Extensions[name]; ok {
		return twice(name)
	}
	a.context.Extensions[name] = value
	return nil
}

func checkExtensionName(name string) error {
	if name == "" || name == "data" || name == "specversion" {
		return fmt.Errorf("%q cannot be an extension", name)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("attribute name %q: want lower-case letters and digits only", clip(name, 64))
		}
	}
	return nil
}

// setNumber sets an extension from a JSON number.
func (a *attributes) setNumber(name, number string) error {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f != math.Trunc(f) || f < math.MinInt32 || f > math.MaxInt32 {
		return fmt.Errorf("%s is %s: want a whole number of 32 bits, or a string", clip(name, 64), clip(number, 64))
	}
	return a.extend(name, int32(f))
}

// event validates the attributes together and returns the event with the data.
func (a *attributes) event(data []byte, isBase64 bool) (event.Event, error) {
	c := &a.context
	if !a.rules.Lenient {
		if err := check(c, a.rules.MaxName); err != nil {
			return event.Event{}, err
		}
	}
	if a.encoding == event.Base64 {
		decoded, err := decodeBase64(data)
		switch {
		case err == nil:
			data, isBase64 = decoded, true
		case !a.rules.Lenient:
			return event.Event{}, err
		}
	}
	if len(data) == 0 {
		data, isBase64 = nil, false
	}
	return event.Event{Context: c, DataEncoded: data, DataBase64: isBase64}, nil
}

func decodeBase64(text []byte) ([]byte, error) {
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(data, text)
	if err != nil {
		return nil, errors.New("data: it is declared as base64, but is not valid base64")
	}
	return data[:n], nil
}

// optional returns nil for an empty attribute, which is the same as none.
func optional(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}
