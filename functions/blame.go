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

// explain says in words why text cannot be read as a T.
func explain[T any](text []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("they are no JSON: %w, at byte %d", err, syntax.Offset)
	}
	b := blame{
		try: func(part []byte) error { return json.Unmarshal(part, new(T)) },
		// Enough for 16 levels. Whoever sends something absurd is told less.
		budget: 16*len(text) + 1<<16,
		raw:    text,
		err:    err,
	}
	for b.descend() {
	}
	where := b.path
	if where != "" {
		where += ": "
	}
	var wrong *json.UnmarshalTypeError
	var noTime *time.ParseError
	switch {
	case errors.As(b.err, &wrong):
		return fmt.Errorf("%sit is %s: want %s", where, kindOf(b.raw), wanted(wrong.Type))
	case errors.As(b.err, &noTime):
		return fmt.Errorf("%sit is %s: want a time like 2006-01-02T15:04:05Z", where, kindOf(b.raw))
	}
	return fmt.Errorf("%sit is %s: %w", where, kindOf(b.raw), b.err)
}

// blame finds the value that cannot be read, since errors of encoding/json name no
// element of an array, and those of types that read themselves (time.Time) no field
// at all. It reads smaller and smaller parts of a document.
type blame struct {
	try    func(part []byte) error
	budget int // of bytes to try

	before, after []byte // what stands around raw to make it a document
	raw           json.RawMessage
	path          string
	err           error
}

// descend goes to the member or element that is to blame. It reports false if
// there is none: then the value itself is.
func (b *blame) descend() bool {
	raw := bytes.TrimSpace(b.raw)
	if len(raw) < 2 || raw[0] != '{' && raw[0] != '[' {
		return false
	}
	begin, end := raw[:1], raw[len(raw)-1:]
	if b.read(begin, end) != nil {
		return false // whatever is in it
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
			head, step = append(append([]byte("{"), quoted...), ':'), memberStep(b.path, name)
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return false
		}
		if err := b.read(head, value, end); err != nil {
			b.before = append(b.before, head...)
			b.after = append(bytes.Clone(end), b.after...)
			b.raw, b.path, b.err = value, b.path+step, err
			return true
		}
		if b.budget < 0 {
			return false
		}
	}
	return false
}

// read tries the document that holds parts in the place of raw.
func (b *blame) read(parts ...[]byte) error {
	document := append([]byte(nil), b.before...)
	for _, part := range parts {
		document = append(document, part...)
	}
	document = append(document, b.after...)
	if b.budget -= len(document); b.budget < 0 {
		return nil
	}
	return b.try(document)
}

// memberStep is what a member adds to a path.
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

// kindOf says what a value is.
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

// wanted says what a value of type t is in JSON.
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
