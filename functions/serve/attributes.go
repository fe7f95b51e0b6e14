package serve

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
)

// maxName bounds id, source and type, in bytes. They are in the ledger's key, in
// indexes and in subjects.
const maxName = 1024

// attributes collects what becomes an event's context, one attribute at a time,
// whatever the content mode. One allocation holds all of it but the strings.
type attributes struct {
	context event.EventContextV1

	old      bool   // CloudEvents 0.3
	encoding string // 0.3 only: "base64" or empty

	// lenient takes what it can of an event that is not valid, and cuts what is
	// too long: a dead letter may be one for that very reason.
	lenient bool

	contentType, subject string
	time                 types.Timestamp
}

// newAttributes begins an event of a version of CloudEvents.
func newAttributes(specVersion string, lenient bool) (*attributes, error) {
	switch specVersion {
	case event.CloudEventsVersionV1:
		return &attributes{lenient: lenient}, nil
	case event.CloudEventsVersionV03:
		return &attributes{lenient: lenient, old: true}, nil
	}
	return nil, fmt.Errorf("specversion %q: want 1.0 or 0.3", clip(specVersion, 64))
}

// set takes an attribute that came as a string, by its name in lower case.
func (a *attributes) set(name, value string) error {
	if err := checkText(value); err != nil {
		if !a.lenient {
			return fmt.Errorf("%s: %w", clip(name, 64), err)
		}
		value = strings.ToValidUTF8(strings.ReplaceAll(value, "\x00", "\ufffd"), "\ufffd")
	}
	if a.lenient && (name == "id" || name == "source" || name == "type") {
		value = clip(value, maxName-len("…"))
	}
	err := a.take(name, value)
	if err != nil && a.lenient {
		if name == "source" {
			a.context.Source.URL = url.URL{Opaque: value}
		}
		return nil
	}
	return err
}

func (a *attributes) take(name, value string) error {
	c := &a.context
	switch name {
	case "id":
		c.ID = value
	case "source":
		u, err := url.Parse(value)
		if err != nil {
			return fmt.Errorf("source %q: want a URI reference", clip(value, 256))
		}
		c.Source.URL = *u
	case "type":
		c.Type = value
	case "subject":
		a.subject = value
		c.Subject = optional(&a.subject)
	case "datacontenttype":
		a.contentType = value
		c.DataContentType = optional(&a.contentType)
	case "time":
		if value == "" {
			return nil
		}
		t, err := types.ParseTime(value)
		if err != nil {
			return fmt.Errorf("time %q: want a time as in RFC 3339, such as 2006-01-02T15:04:05Z", clip(value, 64))
		}
		// UTC, since Parse gives the time in this process's zone if it can.
		a.time.Time = t.UTC()
		c.Time = &a.time
	case a.schemaName():
		u, err := url.Parse(value)
		if err != nil || value != "" && !u.IsAbs() && !a.old {
			return fmt.Errorf("%s %q: want an absolute URI", name, clip(value, 256))
		}
		if value != "" {
			c.DataSchema = &types.URI{URL: *u}
		}
	case "datacontentencoding":
		if !a.old {
			return a.extend(name, value)
		}
		if value != event.Base64 && value != "" {
			return fmt.Errorf("datacontentencoding %q: want base64", clip(value, 64))
		}
		a.encoding = value
	default:
		return a.extend(name, value)
	}
	return nil
}

func (a *attributes) schemaName() string {
	if a.old {
		return "schemaurl"
	}
	return "dataschema"
}

// extend takes an extension, a string, bool or int32.
func (a *attributes) extend(name string, value any) error {
	if name == "" || name == "data" || name == "specversion" {
		return fmt.Errorf("%q cannot be an extension", name)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("attribute name %q: want lower-case letters and digits only", clip(name, 64))
		}
	}
	if a.context.Extensions == nil {
		a.context.Extensions = make(map[string]any, 4)
	}
	a.context.Extensions[name] = value
	return nil
}

// setNumber takes an extension that came as a JSON number.
func (a *attributes) setNumber(name, number string) error {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f != math.Trunc(f) || f < math.MinInt32 || f > math.MaxInt32 {
		return fmt.Errorf("%s is %s: want a whole number of 32 bits, or a string", clip(name, 64), clip(number, 64))
	}
	return a.extend(name, int32(f))
}

// event checks the attributes against each other and joins them with the data.
func (a *attributes) event(data []byte, isBase64 bool) (event.Event, error) {
	c := &a.context
	if err := a.check(); err != nil && !a.lenient {
		return event.Event{}, err
	}
	if a.encoding == event.Base64 {
		decoded, err := decodeBase64(data)
		switch {
		case err == nil:
			data, isBase64 = decoded, true
		case !a.lenient:
			return event.Event{}, err
		}
	}
	if len(data) == 0 {
		data, isBase64 = nil, false
	}
	return event.Event{Context: c, DataEncoded: data, DataBase64: isBase64}, nil
}

func (a *attributes) check() error {
	c := &a.context
	if err := checkName("id", c.ID); err != nil {
		return err
	}
	if err := checkName("source", c.Source.String()); err != nil {
		return err
	}
	if err := checkName("type", c.Type); err != nil {
		return err
	}
	if c.Subject != nil && strings.TrimSpace(*c.Subject) == "" {
		return errors.New("subject: it is blank; leave it out")
	}
	if c.DataContentType != nil && *c.DataContentType != event.ApplicationJSON {
		if _, _, err := mime.ParseMediaType(*c.DataContentType); err != nil {
			return fmt.Errorf("datacontenttype %q: want a media type", clip(*c.DataContentType, 256))
		}
	}
	return nil
}

func decodeBase64(text []byte) ([]byte, error) {
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(data, text)
	if err != nil {
		return nil, errors.New("data: it is said to be base64, but is not")
	}
	return data[:n], nil
}

// checkName checks an attribute that must be there.
func checkName(name, value string) error {
	switch {
	case value == "":
		return fmt.Errorf("%s: missing", name)
	case len(value) > maxName:
		return fmt.Errorf("%s: it has %d bytes, at most %d are taken", name, len(value), maxName)
	case strings.TrimSpace(value) == "":
		return fmt.Errorf("%s: it is blank", name)
	}
	return nil
}

// checkText refuses what PostgreSQL cannot hold as text.
func checkText(s string) error {
	ascii := true
	for i := range len(s) {
		if s[i] == 0 {
			return fmt.Errorf("byte %d is NUL", i)
		}
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if !ascii && !utf8.ValidString(s) {
		return errors.New("it is not UTF-8")
	}
	return nil
}

// optional is nil for an attribute that is empty: the same as none.
func optional(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}

// clip bounds text that a message quotes.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}
