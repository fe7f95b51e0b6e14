// Package pgjson converts events to a form that PostgreSQL's JSON operators can
// read.
package pgjson

import (
	"bytes"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Readable returns an event whose JSON PostgreSQL's operators can read. A value of type
// json may contain \u0000 and halves of surrogate pairs, but every operator that extracts a
// member from it fails. Data with such an escape is stored in base64 instead, byte for
// byte.
func Readable(e event.Event) event.Event {
	if HasForbiddenEscape(e.DataEncoded) {
		e.DataBase64 = true
	}
	return e
}

// HasForbiddenEscape reports whether JSON contains an escape that PostgreSQL cannot convert
// to text and that jsonb cannot store.
func HasForbiddenEscape(text []byte) bool {
	if bytes.IndexByte(text, '\\') < 0 {
		return false
	}
	high := false // the previous escape was the first half of a pair
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			if high {
				return true
			}
			continue
		}
		i++
		unit, ok := escapedUnit(text[i:])
		switch {
		case ok && unit == 0, high != (ok && unit >= 0xdc00 && unit <= 0xdfff):
			return true
		}
		high = ok && unit >= 0xd800 && unit <= 0xdbff
		if ok {
			i += 4
		}
	}
	return high
}

// escapedUnit returns the UTF-16 unit of an escape; text starts after its backslash. ok is
// false for any other escape.
func escapedUnit(text []byte) (unit uint16, ok bool) {
	if len(text) < 5 || text[0] != 'u' {
		return 0, false
	}
	for _, c := range text[1:5] {
		unit <<= 4
		switch {
		case c >= '0' && c <= '9':
			unit |= uint16(c - '0')
		case c >= 'a' && c <= 'f':
			unit |= uint16(c-'a') + 10
		case c >= 'A' && c <= 'F':
			unit |= uint16(c-'A') + 10
		default:
			return 0, false
		}
	}
	return unit, true
}
