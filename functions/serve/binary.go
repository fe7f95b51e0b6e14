package serve

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
)

// errNoEvent says that a request does not even look like a CloudEvent.
var errNoEvent = errors.New("this is no CloudEvent: send the headers ce-specversion, ce-id, ce-source and ce-type with the data as the body, or the content type application/cloudevents+json with the event as the body")

// readBinary reads an event in binary content mode: attributes in headers whose
// names begin with "ce-", data in the body (HTTP binding 1.0.2, section 3.1).
func readBinary(header http.Header, body []byte, lenient bool) (event.Event, error) {
	versions := header["Ce-Specversion"]
	if len(versions) == 0 {
		if header["Ce-Id"] == nil && header["Ce-Source"] == nil && header["Ce-Type"] == nil {
			return event.Event{}, errNoEvent
		}
		return event.Event{}, errors.New("specversion: missing, no header ce-specversion")
	}
	version, err := headerValue(versions[0])
	if err != nil {
		return event.Event{}, fmt.Errorf("header ce-specversion: %w", err)
	}
	a, err := newAttributes(version, lenient)
	if err != nil {
		return event.Event{}, err
	}

	for key, values := range header {
		name, ok := attributeName(key)
		if !ok || len(values) == 0 {
			continue
		}
		if len(values) > 1 && !lenient {
			return event.Event{}, fmt.Errorf("header %s: it is there %d times", clip(key, 64), len(values))
		}
		value := values[0]
		switch name {
		case "specversion":
			continue
		case "datacontenttype":
			if key != "Content-Type" {
				return event.Event{}, errors.New("header ce-datacontenttype: it does not exist, send content-type")
			}
		default:
			if value, err = headerValue(value); err != nil {
				return event.Event{}, fmt.Errorf("header %s: %w", clip(key, 64), err)
			}
		}
		if err := a.set(name, value); err != nil {
			return event.Event{}, err
		}
	}
	// Whether data is text matters only in an envelope; bytes are always right.
	return a.event(body, !isJSON(a.contentType))
}

// attributeName is the attribute that a header in canonical form stands for; ok
// is false if none.
func attributeName(key string) (name string, ok bool) {
	if len(key) <= 3 || key[0] != 'C' {
		return "", false
	}
	if key == "Content-Type" {
		return "datacontenttype", true
	}
	if key[:3] != "Ce-" {
		return "", false
	}
	switch key[3:] {
	case "Id":
		return "id", true
	case "Source":
		return "source", true
	case "Type":
		return "type", true
	case "Specversion":
		return "specversion", true
	case "Subject":
		return "subject", true
	case "Time":
		return "time", true
	}
	return strings.ToLower(key[3:]), true
}

// headerValue decodes a header's value (HTTP binding 1.0.2, section 3.1.3.2):
// first a quoted string, then one round of percent-decoding. A percent sign that
// two hexadecimal digits do not follow stands for itself, since the SDK's
// senders do not encode any. What is encoded must be UTF-8 when decoded.
func headerValue(s string) (string, error) {
	plain := true
	for i := range len(s) {
		if c := s[i]; c == '%' || c == '"' || c >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		return s, nil
	}
	b := percentDecode(unquote([]byte(s)))
	if !utf8.Valid(b) {
		return "", errors.New("it is not UTF-8 when percent-decoded")
	}
	return string(b), nil
}

// unquote undoes a quoted string (RFC 7230, section 3.2.6) in place; what is not
// wholly one stays as it is.
func unquote(b []byte) []byte {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return b
	}
	in := b[1 : len(b)-1]
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == '"', in[i] == '\\' && i+1 == len(in):
			return b
		case in[i] == '\\':
			i++
		}
		out = append(out, in[i])
	}
	return out
}

func percentDecode(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			high, ok1 := nibble(b[i+1])
			low, ok2 := nibble(b[i+2])
			if ok1 && ok2 {
				out = append(out, high<<4|low)
				i += 2
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}

func nibble(c byte) (value byte, ok bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
