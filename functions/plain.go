package functions

import (
	"database/sql/driver"
	"encoding"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"time"

	"github.com/tandem-fn/tandem/functions/internal/jsonscan"
)

// Plain returns a value of a [Row] as one of the few kinds that a column can hold, so
// that digests and tables agree on it: nil, bool, int64, uint64 (above the largest
// int64), float64, string, [json.Number], []byte, [json.RawMessage], [time.Time] in UTC
// and to the microsecond, [time.Duration], or a slice, or a map with string keys, whose
// elements may be any value.
//
// Nil pointers, slices and maps are nil. A value with methods is what [driver.Valuer],
// else [encoding.TextMarshaler], else [json.Marshaler] returns; the numbers of math/big
// are a json.Number; other structs, arrays and maps are JSON. A named type without these
// methods is its kind, whatever its String method returns.
//
// It returns an error for a value that has no such form, and if a method panics.
func Plain(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, string, int64, float64, json.Number, time.Duration:
		return v, nil
	case int:
		return int64(v), nil
	case time.Time:
		return plainTime(v), nil
	case []byte:
		if v == nil {
			return nil, nil
		}
		return v, nil
	case json.RawMessage:
		if v == nil {
			return nil, nil
		}
		return v, nil
	case map[string]any:
		if v == nil {
			return nil, nil
		}
		return v, nil
	}
	return plainReflected(v)
}

// ValidJSON reports whether text is one JSON value, as [json.Valid] does, in a fraction of the
// time.
func ValidJSON(text []byte) bool { return jsonscan.Valid(text) }

// plainTime returns the part of a time that PostgreSQL keeps, without the
// monotonic clock.
func plainTime(t time.Time) time.Time {
	t = t.UTC()
	return t.Add(-time.Duration(t.Nanosecond() % int(time.Microsecond)))
}

// maxPlainDepth bounds how many pointers and methods are followed to a value, because
// they may form a cycle.
const maxPlainDepth = 100

func plainReflected(v any) (plain any, err error) {
	defer func() {
		if r := recover(); r != nil {
			plain, err = nil, fmt.Errorf("value of type %T: panic: %v", v, r)
		}
	}()
	for range maxPlainDepth {
		next, done, err := plainStep(v)
		if err != nil || done {
			return next, err
		}
		v = next
	}
	return nil, fmt.Errorf("value of type %T has no plain form: its pointers or methods lead in a circle", v)
}

// plainStep performs one step towards the plain form, and reports whether it is
// reached.
func plainStep(v any) (next any, done bool, err error) {
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Invalid:
		return nil, true, nil
	case reflect.Pointer:
		if rv.IsNil() {
			return nil, true, nil
		}
	case reflect.Slice:
		if rv.IsNil() {
			return nil, true, nil
		}
	case reflect.Map:
		if rv.IsNil() {
			return nil, true, nil
		}
		if rv.Type().Key().Kind() == reflect.String {
			return v, true, nil // before its methods, which may follow the order of a map
		}
	default:
	}
	if plain, ok := plainBuiltin(v); ok {
		return plain, true, nil
	}
	if next, ok, err := plainMethod(v); ok || err != nil {
		return next, false, err
	}
	return plainKind(v, rv)
}

// plainBuiltin returns the plain form of types that do not follow the rules for
// methods.
func plainBuiltin(v any) (any, bool) {
	switch v := v.(type) {
	case bool, string, int64, float64, json.Number, time.Duration, []byte, json.RawMessage:
		return v, true
	case time.Time:
		return plainTime(v), true
	case *time.Time: // its methods are those of the time that it points to
		return plainTime(*v), true
	case *json.RawMessage:
		if *v == nil {
			return nil, true
		}
		return *v, true
	case *big.Int:
		return json.Number(v.String()), true
	case *big.Float:
		if !v.IsInf() {
			return json.Number(v.Text('g', -1)), true
		}
	}
	return nil, false
}

// plainMethod returns what the value's own methods return, the pointer's included.
func plainMethod(v any) (next any, ok bool, err error) {
	if next, ok, err := callMethod(v); ok {
		return next, true, err
	}
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Struct, reflect.Array:
		pointer := reflect.New(rv.Type())
		switch pointer.Interface().(type) {
		case driver.Valuer, encoding.TextMarshaler, json.Marshaler, *big.Int, *big.Float:
			pointer.Elem().Set(rv)
			return pointer.Interface(), true, nil
		}
	default:
	}
	return nil, false, nil
}

func callMethod(v any) (next any, ok bool, err error) {
	switch v := v.(type) {
	case driver.Valuer:
		next, err = v.Value()
		if err != nil {
			return nil, true, fmt.Errorf("value of type %T: Value: %w", v, err)
		}
		return next, true, nil
	case encoding.TextMarshaler:
		text, err := v.MarshalText()
		if err != nil {
			return nil, true, fmt.Errorf("value of type %T: MarshalText: %w", v, err)
		}
		return string(text), true, nil
	case json.Marshaler:
		text, err := json.Marshal(v)
		if err != nil {
			return nil, true, fmt.Errorf("value of type %T: MarshalJSON: %w", v, err)
		}
		return json.RawMessage(text), true, nil
	}
	return nil, false, nil
}

// plainKind returns the plain form of a value without methods.
func plainKind(v any, rv reflect.Value) (next any, done bool, err error) {
	switch rv.Kind() {
	case reflect.Bool:
		return rv.Bool(), true, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return rv.Int(), true, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if u := rv.Uint(); u > 1<<63-1 {
			return u, true, nil
		}
		return int64(rv.Uint()), true, nil
	case reflect.Float32, reflect.Float64:
		return rv.Float(), true, nil
	case reflect.String:
		return rv.String(), true, nil
	case reflect.Pointer, reflect.Interface:
		return rv.Elem().Interface(), false, nil
	case reflect.Slice:
		if rv.Type().Elem().Kind() == reflect.Uint8 {
			return rv.Bytes(), true, nil
		}
		return v, true, nil
	case reflect.Array:
		if rv.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, rv.Len())
			reflect.Copy(reflect.ValueOf(b), rv)
			return b, true, nil
		}
	case reflect.Struct:
		if timeType := reflect.TypeFor[time.Time](); rv.CanConvert(timeType) {
			return rv.Convert(timeType).Interface(), false, nil
		}
		if rv.NumField() > 0 && !hasExportedField(rv.Type()) {
			return nil, true, fmt.Errorf("value of type %T has no plain form: it has no exported field, and no method Value, MarshalText or MarshalJSON", v)
		}
	default:
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, true, fmt.Errorf("value of type %T has no plain form: %w", v, err)
	}
	return json.RawMessage(text), true, nil
}

func hasExportedField(t reflect.Type) bool {
	for i := range t.NumField() {
		if field := t.Field(i); field.IsExported() || field.Anonymous {
			return true
		}
	}
	return false
}
