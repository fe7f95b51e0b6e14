package functions

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// explainError describes the value because of which text cannot be decoded into a
// T.
func explainError[T any](text []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("they are not JSON: %w, at byte %d", err, syntax.Offset)
	}
	v := offendingValue{
		try: func(part []byte) error { return json.Unmarshal(part, new(T)) },
		// Enough for 16 levels. The error of a deeper document is less precise.
		budget: 16*len(text) + 1<<16,
		raw:    text,
		err:    err,
	}
	for v.narrow() {
	}
	where := v.path
	if where != "" {
		where += ": "
	}
	var wrong *json.UnmarshalTypeError
	var noTime *time.ParseError
	switch {
	case errors.As(v.err, &wrong):
		return fmt.Errorf("%sit is %s: want %s", where, kindOf(v.raw), wanted(wrong.Type))
	case errors.As(v.err, &noTime):
		return fmt.Errorf("%sit is %s: want a time like 2006-01-02T15:04:05Z", where, kindOf(v.raw))
	}
	return fmt.Errorf("%sit is %s: %w", where, kindOf(v.raw), v.err)
}

// offendingValue finds the value that cannot be decoded. Errors of encoding/json do
// not contain the index of an array element, and those of types that unmarshal
// themselves (time.Time) do not contain the field. It decodes smaller and smaller
// parts of a document.
type offendingValue struct {
	try    func(part []byte) error
	budget int // number of bytes to try

	before, after []byte // the text around raw that makes it a document
	raw           json.RawMessage
	path          string
	err           error
}

// narrow moves to the offending member or element. It returns false if there is none:
// then the value itself is offending.
func (v *offendingValue) narrow() bool {
	raw := bytes.TrimSpace(v.raw)
	if len(raw) < 2 || raw[0] != '{' && raw[0] != '[' {
		return false
	}
	begin, end := raw[:1], raw[len(raw)-1:]
	if v.tryParts(begin, end) != nil {
		return false // its members do not matter
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return false
	}
	for i := 0; d.More(); i++ {
		head, step := begin, "["+strconv.Itoa(i)+"]"
		if raw[0] == '{' {
			token, err := d.Token()
			name, ok := token.(string)
			if err != nil || !ok {
				return false
			}
			quoted, err := json.Marshal(name)
			if err != nil {
				return false
			}
			head, step = append(append([]byte("{"), quoted...), ':'), memberStep(v.path, name)
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return false
		}
		if err := v.tryParts(head, value, end); err != nil {
			v.before = append(v.before, head...)
			v.after = append(bytes.Clone(end), v.after...)
			v.raw, v.path, v.err = value, v.path+step, err
			return true
		}
		if v.budget < 0 {
			return false
		}
	}
	return false
}

// tryParts decodes the document with parts in place of raw.
func (v *offendingValue) tryParts(parts ...[]byte) error {
	document := append([]byte(nil), v.before...)
	for _, part := range parts {
		document = append(document, part...)
	}
	document = append(document, v.after...)
	if v.budget -= len(document); v.budget < 0 {
		return nil
	}
	return v.try(document)
}

// memberStep returns the path element of a member.
func memberStep(path, name string) string {
	const limit = 64
	plain := name != "" && len(name) <= limit
	for _, r := range name {
		plain = plain && (r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	switch {
	case !plain:
		return "[" + strconv.Quote(strings.ToValidUTF8(name[:min(len(name), limit)], "")) + "]"
	case path == "":
		return name
	}
	return "." + name
}

// kindOf describes the kind of a value.
func kindOf(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f', 'n':
		return string(raw)
	}
	const limit = 32
	if len(raw) > limit {
		return "the number " + string(raw[:limit]) + "…"
	}
	return "the number " + string(raw)
}

// wanted describes the JSON values of type t.
func wanted(t reflect.Type) string {
	if pointer := reflect.PointerTo(t); pointer.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "a string (" + t.String() + ")"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("a whole number of %d bits", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fmt.Sprintf("a whole number of %d bits that is not negative", t.Bits())
	case reflect.Float32, reflect.Float64:
		return fmt.Sprintf("a number of %d bits", t.Bits())
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string in base64"
		}
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	default:
		return t.String()
	}
}
