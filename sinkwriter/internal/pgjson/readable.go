// Package pgjson makes events that PostgreSQL can look into.
package pgjson

import (
	"bytes"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Readable returns an event whose JSON PostgreSQL can look into. It accepts \u0000, and
// halves of surrogate pairs, in a value of type json, but then fails at every operator that
// takes a member out of it. Data with such an escape is stored in base64 instead, byte for
// byte.
func Readable(e event.Event) event.Event {
	if HasForbiddenEscape(e.DataEncoded) {
		e.DataBase64 = true
	}
	return e
}

// HasForbiddenEscape reports whether JSON has an escape that PostgreSQL cannot make text of,
// and that jsonb does not store.
func HasForbiddenEscape(text []byte) bool {
	if bytes.IndexByte(text, '\\') < 0 {
		return false
	}
	high := false // the escape before was the first half of a pair
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

// escapedUnit returns the UTF-16 unit of an escape, text[0] being what follows its backslash;
// ok is false if the escape is another one.
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
