package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

// effects are [functions.Effects] in JSON. Decoding them preserves the canonical form.
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
	Bool     *bool             `json:"bool,omitempty"`
	Int      *string           `json:"int,omitempty"`
	Uint     *string           `json:"uint,omitempty"`
	Float    *string           `json:"float,omitempty"`
	Number   *string           `json:"number,omitempty"`
	String   *string           `json:"string,omitempty"`
	Bytes    *[]byte           `json:"bytes,omitempty"`
	JSON     *string           `json:"json,omitempty"`
	Time     *time.Time        `json:"time,omitempty"`
	Duration *string           `json:"duration,omitempty"`
	Map      *map[string]value `json:"map,omitempty"`
	List     *[]value          `json:"list,omitempty"`
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

// encodeValue distinguishes the values that [functions.Write.AppendCanonical]
// distinguishes.
func encodeValue(v any) (value, error) {
	plain, err := functions.Plain(v)
	if err != nil {
		return value{}, err
	}
	switch v := plain.(type) {
	case nil:
		return value{}, nil
	case bool:
		return value{Bool: &v}, nil
	case int64:
		text := strconv.FormatInt(v, 10)
		return value{Int: &text}, nil
	case uint64:
		text := strconv.FormatUint(v, 10)
		return value{Uint: &text}, nil
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		return value{Float: &text}, nil
	case string:
		return value{String: &v}, nil
	case json.Number:
		text := string(v)
		return value{Number: &text}, nil
	case time.Time:
		return value{Time: &v}, nil
	case time.Duration:
		text := strconv.FormatInt(int64(v), 10)
		return value{Duration: &text}, nil
	case []byte:
		return value{Bytes: &v}, nil
	case json.RawMessage:
		text := string(v)
		return value{JSON: &text}, nil
	}
	return encodeElements(reflect.ValueOf(plain))
}

// encodeElements encodes a slice, or a map with strings for keys.
func encodeElements(rv reflect.Value) (value, error) {
	if rv.Kind() == reflect.Map {
		row := make(functions.Row, rv.Len())
		for entries := rv.MapRange(); entries.Next(); {
			row[entries.Key().String()] = entries.Value().Interface()
		}
		members, err := encodeRow(row)
		return value{Map: &members}, err
	}
	list := make([]value, rv.Len())
	for i := range list {
		var err error
		if list[i], err = encodeValue(rv.Index(i).Interface()); err != nil {
			return value{}, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return value{List: &list}, nil
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
	case v.Number != nil:
		return json.Number(*v.Number), nil
	case v.Duration != nil:
		d, err := strconv.ParseInt(*v.Duration, 10, 64)
		return time.Duration(d), err
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
