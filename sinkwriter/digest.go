package sinkwriter

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

// Digest is the first half of the SHA-256 of effects in their canonical form:
// equal for equal effects, whatever the order of a map, the zone of a time or
// the way a number is written in JSON.
type digest [16]byte

func digestEffects(buf []byte, fx functions.Effects, outputs []functions.EncodedOutput) (digest, []byte, error) {
	b := append(buf[:0], 1) // version of the form
	var err error
	for i := range fx.Writes {
		w := &fx.Writes[i]
		b = append(b, 'w', byte(w.Op))
		b = appendPart(b, w.Table)
		b = appendPart(b, w.Version)
		if w.Op == functions.OpExec {
			b = appendPart(b, w.Statement.Name)
			b = appendPart(b, w.Statement.SQL)
			if b, err = appendCanonical(b, w.Args); err != nil {
				return digest{}, b, fmt.Errorf("statement %s: %w", w.Statement.Name, err)
			}
		}
		if b, err = appendRow(b, w.Key); err != nil {
			return digest{}, b, fmt.Errorf("write %d, table %s: %w", i, w.Table, err)
		}
		if b, err = appendRow(b, w.Row); err != nil {
			return digest{}, b, fmt.Errorf("write %d, table %s: %w", i, w.Table, err)
		}
	}
	for i := range outputs {
		b = appendOutput(b, &outputs[i])
	}
	sum := sha256.Sum256(b)
	return digest(sum[:16]), b, nil
}

func appendPart[T string | []byte](b []byte, part T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
	return append(b, part...)
}

func appendRow(b []byte, row functions.Row) ([]byte, error) {
	b = binary.BigEndian.AppendUint32(b, uint32(len(row)))
	var space [16]string
	names := space[:0]
	for name := range row {
		names = append(names, name)
	}
	slices.Sort(names)
	var err error
	for _, name := range names {
		b = appendPart(b, name)
		if b, err = appendCanonical(b, row[name]); err != nil {
			return b, fmt.Errorf("column %s: %w", name, err)
		}
	}
	return b, nil
}

// appendOutput appends what the function said, not what the event inherits from
// its input: trace context and time may differ from one delivery to the next.
func appendOutput(b []byte, o *functions.EncodedOutput) []byte {
	b = append(b, 'o')
	b = appendPart(b, o.Type)
	b = appendPart(b, o.Subject)
	b = appendPart(b, o.ContentType)
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
	if strings.HasSuffix(o.ContentType, "json") {
		return appendJSON(b, o.Bytes)
	}
	return appendPart(append(b, 'b'), o.Bytes)
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
		return appendPart(append(b, 'b'), v), nil
	case json.RawMessage:
		return appendJSON(b, v), nil
	case map[string]any:
		return appendRow(append(b, 'm'), v)
	case functions.Row:
		return appendRow(append(b, 'm'), v)
	}
	return appendReflected(b, v)
}

func appendReflected(b []byte, v any) ([]byte, error) {
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int, reflect.Int64:
		return appendInt(b, rv.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if u := rv.Uint(); u <= math.MaxInt64 {
			return appendInt(b, int64(u)), nil
		}
		return appendPart(append(b, 'u'), strconv.FormatUint(rv.Uint(), 10)), nil
	case reflect.Float32, reflect.Float64:
		return appendFloat(b, rv.Float()), nil
	case reflect.String:
		return appendPart(append(b, 's'), rv.String()), nil
	case reflect.Pointer:
		if rv.IsNil() {
			return append(b, 'n'), nil
		}
		return appendCanonical(b, rv.Elem().Interface())
	case reflect.Slice:
		if rv.IsNil() {
			return append(b, 'n'), nil
		}
		b = binary.BigEndian.AppendUint32(append(b, 'a'), uint32(rv.Len()))
		var err error
		for i := range rv.Len() {
			if b, err = appendCanonical(b, rv.Index(i).Interface()); err != nil {
				return b, fmt.Errorf("element %d: %w", i, err)
			}
		}
		return b, nil
	default:
	}
	text, err := json.Marshal(v)
	if err != nil {
		return b, fmt.Errorf("value of type %T has no canonical form: %w", v, err)
	}
	return appendJSON(b, text), nil
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
