package functions

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/functions/internal/jsonscan"
)

// Event returns the CloudEvent of an output: the one at position, counted from
// zero, among those that function computed from input. Its source and id are those
// of [OutputIdentity]; its time is o.Time, else [Time] of the input, in UTC. The
// extension causationid is the input's id. The input's trace context is copied:
// traceparent, and with it tracestate. Extensions in o take precedence; with a
// traceparent of its own the input's tracestate is not copied. Equal arguments
// return equal events.
//
// An error is the function's fault and not the event's: the type is missing, data
// cannot be encoded or do not match their content type, or an extension has a name
// or value that CloudEvents does not allow.
//
// Event keeps o.Data if it is a []byte or json.RawMessage: do not change it
// afterwards.
func (o Output) Event(function string, input event.Event, position int) (event.Event, error) {
	encoded, err := o.Encode()
	if err != nil {
		return event.Event{}, fmt.Errorf("create output %d of function %s, type %q: %w", position, function, o.Type, err)
	}
	return encoded.Event(function, input, position)
}

// EncodedOutput is an output whose data are bytes, so that it can be compared and
// converted to an event without encoding them again.
type EncodedOutput struct {
	Output

	// Bytes are the data, nil for none. Do not change them.
	Bytes []byte

	// ContentType is the media type of the data, empty for none.
	ContentType string

	text bool // they may be embedded in a JSON envelope unchanged
}

// Encode encodes the data. The error is only about the data; as with
// [Output.Event] it is the function's fault.
func (o Output) Encode() (EncodedOutput, error) {
	encoded, isJSON, err := o.encode()
	if err == nil && isJSON && len(encoded.Bytes) > 0 && !jsonscan.Valid(encoded.Bytes) {
		err = errNotJSON
	}
	return encoded, err
}

// Event is [Output.Event].
func (o EncodedOutput) Event(function string, input event.Event, position int) (event.Event, error) {
	if err := o.Check(function, input, position); err != nil {
		return event.Event{}, err
	}
	return o.event(function, input, position), nil
}

// Check returns the error of [EncodedOutput.Event] and creates no event.
func (o *EncodedOutput) Check(function string, input event.Event, position int) error {
	if err := o.check(input); err != nil {
		return fmt.Errorf("create output %d of function %s, type %q: %w", position, function, o.Type, err)
	}
	return nil
}

func (o *EncodedOutput) check(input event.Event) error {
	if input.Context == nil {
		return errors.New("the input is not a valid event")
	}
	if o.Type == "" {
		return errors.New("type: missing")
	}
	for _, a := range [...]struct{ name, value string }{{"type", o.Type}, {"subject", o.Subject}, {"data content type", o.DataContentType}} {
		if err := checkString(a.value); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		if a.value != "" && strings.TrimSpace(a.value) == "" {
			return fmt.Errorf("%s: it is blank", a.name)
		}
	}
	if at := o.timeOf(input); !at.IsZero() {
		if year := at.Year(); year < 0 || year > 9999 {
			return fmt.Errorf("time: year %d: want 0 to 9999, as in RFC 3339", year)
		}
	}
	for name, value := range o.Extensions {
		if err := checkExtensionName(name); err != nil {
			return fmt.Errorf("extension %q: %w", name, err)
		}
		if err := checkString(value); err != nil {
			return fmt.Errorf("extension %q: %w", name, err)
		}
	}
	return nil
}

// timeOf returns the time of the event, in UTC, because a time may have been parsed
// in the local zone.
func (o *EncodedOutput) timeOf(input event.Event) time.Time {
	if o.Time.IsZero() {
		return Time(input).UTC()
	}
	return o.Time.UTC()
}

// event creates the event of an output that was checked.
func (o *EncodedOutput) event(function string, input event.Event, position int) event.Event {
	inputID := input.ID()
	source, id := OutputIdentity(function, cloudevent.Source(input), inputID, position)
	// Everything that the event points to, except its extensions, in one
	// allocation.
	made := &struct {
		context              event.EventContextV1
		subject, contentType string
		time                 types.Timestamp
	}{
		context: event.EventContextV1{Type: o.Type, Source: types.URIRef{URL: url.URL{Path: source}}, ID: id},
		subject: o.Subject, contentType: o.ContentType,
	}
	ec := &made.context
	if o.Subject != "" {
		ec.Subject = &made.subject
	}
	if at := o.timeOf(input); !at.IsZero() {
		made.time.Time = at
		ec.Time = &made.time
	}
	if o.ContentType != "" {
		ec.DataContentType = &made.contentType
	}
	ec.Extensions = o.extensions(input.Context, inputID)
	return event.Event{Context: ec, DataEncoded: o.Bytes, DataBase64: o.Bytes != nil && !o.text}
}

// encode is [Output.Encode] without the check that data declared as JSON are
// JSON.
func (o *Output) encode() (encoded EncodedOutput, isJSON bool, err error) {
	isJSON, isText := true, true
	if o.DataContentType != "" && o.DataContentType != event.ApplicationJSON {
		mediaType, _, err := mime.ParseMediaType(o.DataContentType)
		if err != nil {
			return encoded, false, fmt.Errorf("data content type %q: %w", o.DataContentType, err)
		}
		if strings.HasPrefix(mediaType, "application/cloudevents") {
			return encoded, false, fmt.Errorf("data content type %q: an event cannot hold another one", o.DataContentType)
		}
		isJSON = isJSONType(mediaType)
		isText = isJSON || strings.HasPrefix(mediaType, "text/") || mediaType == event.ApplicationXML || strings.HasSuffix(mediaType, "+xml")
	}

	encoded.Output, encoded.ContentType = *o, o.DataContentType
	switch d := o.Data.(type) {
	case nil:
	case []byte:
		encoded.Bytes = d
	case json.RawMessage:
		encoded.Bytes = d
	default:
		if !isJSON {
			return encoded, false, fmt.Errorf("data: %T is encoded as JSON, but the content type is %q: pass the bytes", o.Data, o.DataContentType)
		}
		if encoded.Bytes, err = json.Marshal(d); err != nil {
			return encoded, false, fmt.Errorf("data: %w", err)
		}
	}
	if len(encoded.Bytes) == 0 {
		encoded.Bytes = nil
		return encoded, isJSON, nil
	}
	if encoded.ContentType == "" {
		encoded.ContentType = event.ApplicationJSON
	}
	encoded.text = isText && utf8.Valid(encoded.Bytes)
	return encoded, isJSON, nil
}

func (o *Output) extensions(input event.EventContext, inputID string) map[string]any {
	all := make(map[string]any, 3+len(o.Extensions))
	all["causationid"] = inputID
	inherited := inputExtensions(input)
	for _, name := range [...]string{"traceparent", "tracestate"} {
		value, ok := inherited[name].(string)
		if !ok || value == "" || o.Extensions["traceparent"] != "" {
			break // tracestate is meaningless without its traceparent
		}
		all[name] = value
	}
	for name, value := range o.Extensions {
		if value != "" {
			all[name] = value
		}
	}
	return all
}

// inputExtensions returns the input's extensions for reading, without the copy
// that GetExtensions makes.
func inputExtensions(ec event.EventContext) map[string]any {
	if v1, ok := ec.(*event.EventContextV1); ok {
		return v1.Extensions
	}
	return ec.GetExtensions()
}

func checkExtensionName(name string) error {
	switch name {
	case "":
		return errors.New("a name is missing")
	case "id", "source", "specversion", "type", "datacontenttype", "dataschema", "subject", "time", "data":
		return errors.New("the name is reserved by CloudEvents")
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return errors.New("want lower-case letters and digits in the name")
		}
	}
	return nil
}

// checkString is [cloudevent.CheckText], with the position of a byte that is not
// UTF-8.
func checkString(s string) error {
	err := cloudevent.CheckText(s)
	if errors.Is(err, cloudevent.ErrNotUTF8) {
		return fmt.Errorf("byte %d is not UTF-8", strings.IndexRune(s, utf8.RuneError))
	}
	return err
}
