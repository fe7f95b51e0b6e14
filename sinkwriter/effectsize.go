package sinkwriter

import (
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

const (
	// maxEffectBytes bounds the effects of one event, writes and outputs together. A batch
	// holds several copies of them while they are encoded, sent and retried, so without a
	// bound one event could exhaust the memory.
	maxEffectBytes = 32 << 20

	// writeOverhead and valueOverhead are the approximate sizes of a write and of a value,
	// in addition to the value's bytes.
	writeOverhead, valueOverhead = 64, 8

	// maxValueDepth bounds the depth to which values are measured, because pointers may
	// form a cycle.
	maxValueDepth = 1000
)

// checkEffectBytes returns an error with FaultEvent if effects of size bytes are larger
// than one event may have.
func checkEffectBytes(function string, size int) error {
	if size <= maxEffectBytes {
		return nil
	}
	return &Error{Fault: FaultEvent, Function: function, Err: fmt.Errorf("the effects of this event are too large: about %d bytes, of at most %d", size, maxEffectBytes)}
}

// effectSize adds up the approximate size of values. It encodes nothing and allocates
// almost nothing, so that it can refuse effects that are too large to be encoded.
type effectSize struct {
	bytes int
	depth int
}

// sizeOf returns the approximate encoded sizes of writes and outputs. Above
// maxEffectBytes it may stop early.
func sizeOf(fx functions.Effects) (writes, outputs int) {
	var s effectSize
	for i := range fx.Writes {
		s.bytes += writeOverhead
		s.addRow(fx.Writes[i].Row)
		s.addRow(fx.Writes[i].Key)
		for _, v := range fx.Writes[i].Args {
			s.add(v)
		}
	}
	writes = s.bytes
	for i := range fx.Outputs {
		o := &fx.Outputs[i]
		s.bytes += writeOverhead + len(o.Type) + len(o.Subject) + len(o.DataContentType)
		for name, text := range o.Extensions {
			s.bytes += len(name) + len(text)
		}
		s.add(o.Data)
	}
	return writes, s.bytes - writes
}

func (s *effectSize) addRow(row functions.Row) {
	for name, v := range row {
		s.bytes += len(name)
		s.add(v)
	}
}

func (s *effectSize) add(v any) {
	s.bytes += valueOverhead
	switch v := v.(type) {
	case nil, bool, int, int32, int64, float64, time.Time:
	case string:
		s.bytes += len(v)
	case []byte:
		s.bytes += len(v)
	case json.RawMessage:
		s.bytes += len(v)
	default:
		s.addReflected(reflect.ValueOf(v))
	}
}

var timeType = reflect.TypeFor[time.Time]()

func (s *effectSize) addReflected(v reflect.Value) {
	if s.bytes > maxEffectBytes || s.depth > maxValueDepth {
		return
	}
	s.depth++
	defer func() { s.depth-- }()
	switch v.Kind() {
	case reflect.String:
		s.bytes += v.Len()
	case reflect.Slice, reflect.Array:
		elem := v.Type().Elem()
		if elem.Kind() <= reflect.Complex128 { // bool and numbers
			s.bytes += v.Len() * int(elem.Size())
			return
		}
		for i := range v.Len() {
			s.bytes += valueOverhead
			s.addReflected(v.Index(i))
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			s.bytes += valueOverhead
			s.addReflected(entries.Key())
			s.addReflected(entries.Value())
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return
		}
		for i := range v.NumField() {
			if field := v.Field(i); field.CanInterface() { // only exported fields are encoded
				s.bytes += valueOverhead
				s.addReflected(field)
			}
		}
	case reflect.Pointer, reflect.Interface:
		s.addReflected(v.Elem())
	default:
	}
}
