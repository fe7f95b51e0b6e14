package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

// effects are [functions.Effects] in JSON, from which the same canonical form follows.
type effects struct {
	Writes  []write   `json:"writes,omitempty"`
	Outputs []emitted `json:"outputs,omitempty"`
}

type write struct {
	Op        functions.Op     `json:"op"`
	Table     string           `json:"table,omitempty"`
	Key       map[string]value `json:"key,omitempty"`
	Row       map[string]value `json:"row,omitempty"`
	Version   string           `json:"version,omitempty"`
	Statement string           `json:"statement,omitempty"`
	SQL       string           `json:"sql,omitempty"`
	Args      []value          `json:"args,omitempty"`
}

type emitted struct {
	Type            string            `json:"type"`
	Subject         string            `json:"subject,omitempty"`
	Data            []byte            `json:"data,omitempty"`
	DataContentType string            `json:"datacontenttype,omitempty"`
	Time            *time.Time        `json:"time,omitempty"`
	Extensions      map[string]string `json:"extensions,omitempty"`
}

// value is a value of a column, with its kind. The zero value is NULL.
type value struct {
	Bool   *bool             `json:"bool,omitempty"`
	Int    *string           `json:"int,omitempty"`
	Uint   *string           `json:"uint,omitempty"`
	Float  *string           `json:"float,omitempty"`
	String *string           `json:"string,omitempty"`
	Bytes  *[]byte           `json:"bytes,omitempty"`
	JSON   *string           `json:"json,omitempty"`
	UUID   *[]byte           `json:"uuid,omitempty"`
	Time   *time.Time        `json:"time,omitempty"`
	Map    *map[string]value `json:"map,omitempty"`
	List   *[]value          `json:"list,omitempty"`
}

func encodeEffects(fx functions.Effects) (effects, error) {
	var out effects
	for i := range fx.Writes {
		w := &fx.Writes[i]
		one := write{Op: w.Op, Table: w.Table, Version: w.Version, Statement: w.Statement.Name, SQL: w.Statement.SQL}
		var err error
		if one.Key, err = encodeRow(w.Key); err != nil {
			return out, fmt.Errorf("write %d, table %s: %w", i, w.Table, err)
		}
		if one.Row, err = encodeRow(w.Row); err != nil {
			return out, fmt.Errorf("write %d, table %s: %w", i, w.Table, err)
		}
		for _, arg := range w.Args {
			v, err := encodeValue(arg)
			if err != nil {
				return out, fmt.Errorf("write %d, statement %s: %w", i, w.Statement.Name, err)
			}
			one.Args = append(one.Args, v)
		}
		out.Writes = append(out.Writes, one)
	}
	for i := range fx.Outputs {
		o := &fx.Outputs[i]
		encoded, err := o.Encode()
		if err != nil {
			return out, fmt.Errorf("output %d, type %q: %w", i, o.Type, err)
		}
		one := emitted{Type: o.Type, Subject: o.Subject, Data: encoded.Bytes, DataContentType: o.DataContentType, Extensions: o.Extensions}
		if !o.Time.IsZero() {
			at := o.Time.UTC()
			one.Time = &at
		}
		out.Outputs = append(out.Outputs, one)
	}
	return out, nil
}

func (fx *effects) decode() (functions.Effects, error) {
	var out functions.Effects
	for i, w := range fx.Writes {
		one := functions.Write{Op: w.Op, Table: w.Table, Version: w.Version, Statement: functions.Statement{Name: w.Statement, SQL: w.SQL}}
		var err error
		if one.Key, err = decodeRow(w.Key); err == nil {
			one.Row, err = decodeRow(w.Row)
		}
		for _, arg := range w.Args {
			v, fault := arg.decode()
			err = errors.Join(err, fault)
			one.Args = append(one.Args, v)
		}
		if err != nil {
			return functions.Effects{}, fmt.Errorf("read write %d, table %s: %w", i, w.Table, err)
		}
		out.Writes = append(out.Writes, one)
	}
	for _, o := range fx.Outputs {
		one := functions.Output{Type: o.Type, Subject: o.Subject, DataContentType: o.DataContentType, Extensions: o.Extensions}
		if o.Data != nil {
			one.Data = o.Data
		}
		if o.Time != nil {
			one.Time = *o.Time
		}
		out.Outputs = append(out.Outputs, one)
	}
	return out, nil
}

func encodeRow(row functions.Row) (map[string]value, error) {
	if row == nil {
		return nil, nil
	}
	out := make(map[string]value, len(row))
	for name, column := range row {
		v, err := encodeValue(column)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", name, err)
		}
		out[name] = v
	}
	return out, nil
}

func decodeRow(row map[string]value) (functions.Row, error) {
	if row == nil {
		return nil, nil
	}
	out := make(functions.Row, len(row))
	for name, column := range row {
		v, err := column.decode()
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", name, err)
		}
		out[name] = v
	}
	return out, nil
}

// encodeValue keeps apart what [functions.Write.AppendCanonical] keeps apart.
func encodeValue(v any) (value, error) {
	switch v := v.(type) {
	case nil:
		return value{}, nil
	case time.Time:
		at := v.UTC()
		return value{Time: &at}, nil
	case []byte:
		if v == nil {
			v = []byte{}
		}
		return value{Bytes: &v}, nil
	case json.RawMessage:
		text := string(v)
		return value{JSON: &text}, nil
	case [16]byte:
		id := v[:]
		return value{UUID: &id}, nil
	case map[string]any:
		return encodeMap(v)
	case functions.Row:
		return encodeMap(v)
	}
	return encodeReflected(v)
}

func encodeMap(row functions.Row) (value, error) {
	members, err := encodeRow(row)
	if members == nil {
		members = map[string]value{}
	}
	return value{Map: &members}, err
}

func encodeReflected(v any) (value, error) {
	rv := reflect.ValueOf(v)
	switch rv.Kind() {
	case reflect.Bool:
		b := rv.Bool()
		return value{Bool: &b}, nil
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int, reflect.Int64:
		text := strconv.FormatInt(rv.Int(), 10)
		return value{Int: &text}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		text := strconv.FormatUint(rv.Uint(), 10)
		if rv.Uint() <= math.MaxInt64 {
			return value{Int: &text}, nil
		}
		return value{Uint: &text}, nil
	case reflect.Float32, reflect.Float64:
		text := strconv.FormatFloat(rv.Float(), 'g', -1, 64)
		return value{Float: &text}, nil
	case reflect.String:
		text := rv.String()
		return value{String: &text}, nil
	case reflect.Pointer:
		if rv.IsNil() {
			return value{}, nil
		}
		return encodeValue(rv.Elem().Interface())
	case reflect.Slice:
		if rv.IsNil() {
			return value{}, nil
		}
		list := make([]value, rv.Len())
		for i := range list {
			var err error
			if list[i], err = encodeValue(rv.Index(i).Interface()); err != nil {
				return value{}, fmt.Errorf("element %d: %w", i, err)
			}
		}
		return value{List: &list}, nil
	default:
	}
	text, err := json.Marshal(v)
	if err != nil {
		return value{}, fmt.Errorf("value of type %T: %w", v, err)
	}
	document := string(text)
	return value{JSON: &document}, nil
}

func (v value) decode() (any, error) {
	switch {
	case v.Bool != nil:
		return *v.Bool, nil
	case v.Int != nil:
		return strconv.ParseInt(*v.Int, 10, 64)
	case v.Uint != nil:
		return strconv.ParseUint(*v.Uint, 10, 64)
	case v.Float != nil:
		return strconv.ParseFloat(*v.Float, 64)
	case v.String != nil:
		return *v.String, nil
	case v.Bytes != nil:
		return *v.Bytes, nil
	case v.JSON != nil:
		return json.RawMessage(*v.JSON), nil
	case v.UUID != nil:
		if len(*v.UUID) != 16 {
			return nil, fmt.Errorf("uuid of %d bytes: want 16", len(*v.UUID))
		}
		return [16]byte(*v.UUID), nil
	case v.Time != nil:
		return *v.Time, nil
	case v.Map != nil:
		row, err := decodeRow(*v.Map)
		return map[string]any(row), err
	case v.List != nil:
		list := make([]any, len(*v.List))
		for i, element := range *v.List {
			var err error
			if list[i], err = element.decode(); err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
		}
		return list, nil
	}
	return nil, nil
}
