package functions

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AppendCanonical appends the canonical form of effects to buf: equal bytes for
// equal effects, whatever the order of a map, the zone of a time or the notation
// of a number in JSON. sinkwriter compares it to detect clusters that computed
// different effects from one event. AppendCanonical also returns the encoded
// outputs, which it needs in any case.
//
// An error is the function's fault: a value has no canonical form, or an output's
// data cannot be encoded or do not match their content type.
func (fx Effects) AppendCanonical(buf []byte) ([]byte, []EncodedOutput, error) {
	b := append(buf, 1) // version of the form
	var err error
	for i := range fx.Writes {
		w := &fx.Writes[i]
		if b, err = w.AppendCanonical(b); err != nil {
			return b, nil, fmt.Errorf("write %d, table %s: %w", i, w.Table, err)
		}
	}
	if len(fx.Outputs) == 0 {
		return b, nil, nil
	}
	outputs := make([]EncodedOutput, len(fx.Outputs))
	for i := range fx.Outputs {
		if outputs[i], b, err = fx.Outputs[i].appendCanonical(b); err != nil {
			return b, nil, fmt.Errorf("output %d, type %q: %w", i, fx.Outputs[i].Type, err)
		}
	}
	return b, outputs, nil
}

// AppendCanonical appends the canonical form of one write.
func (w *Write) AppendCanonical(buf []byte) ([]byte, error) {
	b := append(buf, 'w', byte(w.Op))
	b = appendPart(b, w.Table)
	b = appendPart(b, w.Version)
	var err error
	if w.Op == OpExec {
		b = appendPart(b, w.Statement.Name)
		b = appendPart(b, w.Statement.SQL)
		if b, err = appendCanonical(b, w.Args); err != nil {
			return b, fmt.Errorf("statement %s: %w", w.Statement.Name, err)
		}
	}
	if b, err = appendRow(b, w.Key); err != nil {
		return b, err
	}
	return appendRow(b, w.Row)
}

// appendCanonical encodes an output and appends the fields that the function
// set. It omits trace context and time that the event inherits from its input,
// because these may differ between deliveries.
func (o *Output) appendCanonical(b []byte) (EncodedOutput, []byte, error) {
	encoded, isJSON, err := o.encode()
	if err != nil {
		return encoded, b, err
	}
	b = append(b, 'o')
	b = appendPart(b, o.Type)
	b = appendPart(b, o.Subject)
	b = appendPart(b, encoded.ContentType)
	var at int64
	if !o.Time.IsZero() {
		at = o.Time.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(o.Extensions)))
	if len(o.Extensions) > 0 {
		for _, name := range slices.Sorted(maps.Keys(o.Extensions)) {
			b = appendPart(b, name)
			b = appendPart(b, o.Extensions[name])
		}
	}
	if !isJSON || len(encoded.Bytes) == 0 {
		return encoded, appendPart(append(b, 'b'), encoded.Bytes), nil
	}
	b, ok := appendJSON(b, encoded.Bytes)
	if !ok {
		return encoded, b, errNotJSON
	}
	return encoded, b, nil
}

var errNotJSON = errors.New("data: the content type is JSON, but the bytes are not")

func appendRow(b []byte, row Row) ([]byte, error) {
	b = binary.BigEndian.AppendUint32(b, uint32(len(row)))
	type column struct {
		name  string
		value any
	}
	var space [16]column
	columns := space[:0]
	for name, value := range row {
		columns = append(columns, column{name, value})
	}
	slices.SortFunc(columns, func(a, b column) int { return strings.Compare(a.name, b.name) })
	var err error
	for i := range columns {
		b = appendPart(b, columns[i].name)
		if b, err = appendCanonical(b, columns[i].value); err != nil {
			return b, fmt.Errorf("column %s: %w", columns[i].name, err)
		}
	}
	return b, nil
}

func appendCanonical(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, 'n'), nil
	case string:
		return appendPart(append(b, 's'), v), nil
	case int:
		return appendInt(b, int64(v)), nil
	case int64:
		return appendInt(b, v), nil
	case float64:
		return appendFloat(b, v), nil
	case bool:
		if v {
			return append(b, 'T'), nil
		}
		return append(b, 'F'), nil
	case time.Time:
		return binary.BigEndian.AppendUint64(append(b, 't'), uint64(v.UnixMicro())), nil
	case []byte:
		if v == nil {
			return append(b, 'n'), nil
		}
		return appendPart(append(b, 'b'), v), nil
	case json.RawMessage:
		if v == nil {
			return append(b, 'n'), nil
		}
		return appendJSONOrBytes(b, v), nil
	case map[string]any:
		return appendMap(b, v)
	case Row:
		return appendMap(b, v)
	case uint64: // usually above the largest int64: otherwise [Plain] returns an int64
		if v > math.MaxInt64 {
			return appendPart(append(b, 'u'), strconv.FormatUint(v, 10)), nil
		}
	case json.Number:
		return appendPart(append(b, 'N'), string(v)), nil
	case time.Duration:
		return binary.BigEndian.AppendUint64(append(b, 'D'), uint64(v)), nil
	}
	plain, err := Plain(v)
	if err != nil {
		return b, err
	}
	switch plain.(type) {
	case []byte, json.RawMessage:
	default:
		if rv := reflect.ValueOf(plain); rv.Kind() == reflect.Slice || rv.Kind() == reflect.Map {
			return appendElements(b, rv)
		}
	}
	return appendCanonical(b, plain)
}

// appendMap appends a map. A nil map is appended as no value.
func appendMap(b []byte, m Row) ([]byte, error) {
	if m == nil {
		return append(b, 'n'), nil
	}
	return appendRow(append(b, 'm'), m)
}

// appendElements appends a slice, or a map with string keys.
func appendElements(b []byte, rv reflect.Value) ([]byte, error) {
	if rv.Kind() == reflect.Map {
		m := make(Row, rv.Len())
		for entries := rv.MapRange(); entries.Next(); {
			m[entries.Key().String()] = entries.Value().Interface()
		}
		return appendMap(b, m)
	}
	b = binary.BigEndian.AppendUint32(append(b, 'a'), uint32(rv.Len()))
	var err error
	for i := range rv.Len() {
		if b, err = appendCanonical(b, rv.Index(i).Interface()); err != nil {
			return b, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return b, nil
}

func appendJSONOrBytes(b, text []byte) []byte {
	b, ok := appendJSON(b, text)
	if !ok {
		return appendPart(append(b, 'b'), text)
	}
	return b
}

func appendInt(b []byte, i int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(i))
}

func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		f = math.NaN() // one of many bit patterns
	case f == 0:
		f = 0 // not minus zero
	}
	return binary.BigEndian.AppendUint64(append(b, 'f'), math.Float64bits(f))
}
