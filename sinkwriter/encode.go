package sinkwriter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// span is where a value lies in a plan's arena; from < 0 is NULL.
type span struct{ from, to int }

var null = span{from: -1}

// appendValue appends v as an element of the array that col's values are sent
// in. Times are sent in UTC whatever their zone.
func appendValue(m *pgtype.Map, arena []byte, col *column, v any) ([]byte, span, error) {
	from := len(arena)
	switch col.elemOID {
	case pgtype.Int8OID:
		if i, ok := asInt(v); ok {
			arena = binary.BigEndian.AppendUint64(arena, uint64(i))
			return arena, span{from, len(arena)}, nil
		}
	case pgtype.Int4OID:
		if i, ok := asInt(v); ok && i >= math.MinInt32 && i <= math.MaxInt32 {
			arena = binary.BigEndian.AppendUint32(arena, uint32(i))
			return arena, span{from, len(arena)}, nil
		}
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID:
		if s, ok := v.(string); ok {
			if strings.IndexByte(s, 0) >= 0 {
				return arena, null, errZeroByte
			}
			arena = append(arena, s...)
			return arena, span{from, len(arena)}, nil
		}
	case pgtype.Float8OID:
		if f, ok := v.(float64); ok {
			arena = binary.BigEndian.AppendUint64(arena, math.Float64bits(f))
			return arena, span{from, len(arena)}, nil
		}
	case pgtype.JSONOID, pgtype.JSONBOID:
		return appendJSONColumn(arena, col, v)
	}
	v = inUTC(v)

	format := int16(pgtype.BinaryFormatCode)
	oid := col.elemOID
	if col.cast != "" {
		format, oid = pgtype.TextFormatCode, col.oid
		if _, known := m.TypeForOID(oid); !known {
			oid = pgtype.TextOID // an enum, or the type of an extension
		}
	}
	out, err := m.Encode(oid, format, v, arena)
	if text, ok := v.(string); ok && err != nil {
		// As people write a uuid, a date or a number with decimals.
		if parsed, perr := parseText(m, oid, text); perr == nil {
			out, err = m.Encode(oid, format, parsed, arena[:from])
		}
	}
	if err != nil {
		return arena, null, fmt.Errorf("a %T does not fit: %w", v, err)
	}
	if out == nil {
		return arena, null, nil
	}
	return out, span{from, len(out)}, nil
}

func parseText(m *pgtype.Map, oid uint32, text string) (any, error) {
	t, ok := m.TypeForOID(oid)
	if !ok {
		return nil, fmt.Errorf("type %d is unknown", oid)
	}
	return t.Codec.DecodeValue(m, oid, pgtype.TextFormatCode, []byte(text))
}

func appendJSONColumn(arena []byte, col *column, v any) ([]byte, span, error) {
	var text []byte
	switch v := v.(type) {
	case nil:
		return arena, null, nil
	case json.RawMessage:
		text = v
	case []byte:
		text = v
	default:
		var err error
		if text, err = json.Marshal(v); err != nil {
			return arena, null, fmt.Errorf("a %T does not fit: %w", v, err)
		}
	}
	from := len(arena)
	if col.elemOID == pgtype.JSONBOID {
		arena = append(arena, 1) // version of jsonb's binary form
	}
	arena = append(arena, text...)
	return arena, span{from, len(arena)}, nil
}

func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	}
	return 0, false
}

// appendNormal appends what is equal for two values of a key that the server takes
// for equal however they are spelled. It may be equal for others too.
func appendNormal(arena []byte, col *column, v span) ([]byte, span) {
	value := arena[v.from:v.to]
	from := len(arena)
	switch {
	case col.spelling != normal:
		return arena, v
	case col.cast == "" && col.elemOID == pgtype.NumericOID:
		arena = appendNormalNumeric(arena, col.rounded(value))
	case col.cast == "" && (col.elemOID == pgtype.TimestamptzOID || col.elemOID == pgtype.TimestampOID):
		arena = binary.BigEndian.AppendUint64(arena, uint64(roundTime(int64(binary.BigEndian.Uint64(value)), col.typmod)))
	case col.cast == "" && (col.elemOID == pgtype.Float8OID || col.elemOID == pgtype.Float4OID):
		if minus := value[0] == 0x80 && len(bytes.Trim(value[1:], "\x00")) == 0; minus {
			return append(arena, make([]byte, len(value))...), span{from, from + len(value)}
		}
		return arena, v
	case col.cast != "" && col.oid != pgtype.BPCharOID: // citext
		arena = append(arena, bytes.ToLower(value)...)
	default: // blanks at the end do not count
		return arena, span{v.from, v.from + len(bytes.TrimRight(value, " "))}
	}
	return arena, span{from, len(arena)}
}

// appendNormalNumeric appends a numeric in binary form (numeric_recv: digits to
// the base 10,000, weight, sign, scale) without its scale and without zeros at
// either end.
func appendNormalNumeric(arena, value []byte) []byte {
	const header = 8
	if len(value) < header {
		return append(arena, value...)
	}
	weight, sign := int16(binary.BigEndian.Uint16(value[2:])), value[4:6]
	digits := value[header:]
	for len(digits) >= 2 && digits[0] == 0 && digits[1] == 0 {
		digits = digits[2:]
		weight--
	}
	for n := len(digits); n >= 2 && digits[n-2] == 0 && digits[n-1] == 0; n = len(digits) {
		digits = digits[:n-2]
	}
	if len(digits) == 0 && sign[0] != 0xc0 && sign[0] != 0xd0 && sign[0] != 0xf0 {
		return append(arena, 0) // zero; else NaN or an infinity, by its sign
	}
	arena = append(arena, sign...)
	arena = binary.BigEndian.AppendUint16(arena, uint16(weight))
	return append(arena, digits...)
}

// add adds two encoded values of one column. It reports false where that has to
// be left to the server.
func add(arena []byte, col *column, a, b span) ([]byte, span, bool) {
	if a == null {
		return arena, b, true
	}
	if b == null {
		return arena, a, true
	}
	x, y := arena[a.from:a.to], arena[b.from:b.to]
	from := len(arena)
	switch col.elemOID {
	case pgtype.Int8OID:
		i, j := int64(binary.BigEndian.Uint64(x)), int64(binary.BigEndian.Uint64(y))
		sum := i + j
		if (sum > i) != (j > 0) && j != 0 {
			return arena, null, false // the server reports the overflow
		}
		arena = binary.BigEndian.AppendUint64(arena, uint64(sum))
	case pgtype.Int4OID:
		sum := int64(int32(binary.BigEndian.Uint32(x))) + int64(int32(binary.BigEndian.Uint32(y)))
		if sum < math.MinInt32 || sum > math.MaxInt32 {
			return arena, null, false
		}
		arena = binary.BigEndian.AppendUint32(arena, uint32(sum))
	default:
		return arena, null, false
	}
	return arena, span{from, len(arena)}, true
}

// compareBinary compares two encoded values as the server would, where their
// bytes tell.
func compareBinary(col *column, x, y []byte) (int, bool) {
	switch col.elemOID {
	case pgtype.Int8OID, pgtype.TimestamptzOID, pgtype.TimestampOID:
		return cmp.Compare(int64(binary.BigEndian.Uint64(x)), int64(binary.BigEndian.Uint64(y))), true
	case pgtype.Int4OID, pgtype.DateOID:
		return cmp.Compare(int32(binary.BigEndian.Uint32(x)), int32(binary.BigEndian.Uint32(y))), true
	case pgtype.UUIDOID, pgtype.ByteaOID:
		return bytes.Compare(x, y), true
	}
	return 0, false
}

// encodeArg encodes an argument of a function's own statement, for a parameter
// of the type that the server told.
func encodeArg(m *pgtype.Map, oid uint32, v any) (param []byte, format int16, err error) {
	if isNil(v) {
		return nil, pgtype.BinaryFormatCode, nil
	}
	switch oid {
	case pgtype.JSONOID, pgtype.JSONBOID:
		col := column{elemOID: pgtype.JSONOID}
		param, _, err = appendJSONColumn([]byte{}, &col, v)
		return param, pgtype.TextFormatCode, err
	}
	if text, ok := v.(string); ok {
		if strings.IndexByte(text, 0) >= 0 {
			return nil, 0, errZeroByte
		}
		return []byte(text), pgtype.TextFormatCode, nil
	}
	v = inUTC(v)
	format = pgtype.BinaryFormatCode
	if _, known := m.TypeForOID(oid); !known {
		oid, format = pgtype.TextOID, pgtype.TextFormatCode
	}
	param, err = m.Encode(oid, format, v, []byte{})
	if err != nil {
		return nil, 0, fmt.Errorf("a %T does not fit: %w", v, err)
	}
	return param, format, nil
}

// inUTC brings times to UTC: a column without zone keeps what their clock shows,
// and that must not depend on where this runs.
func inUTC(v any) any {
	switch t := v.(type) {
	case time.Time:
		return t.UTC()
	case *time.Time:
		if t != nil {
			return t.UTC()
		}
	case []time.Time:
		if t == nil {
			return v
		}
		list := make([]time.Time, len(t))
		for i := range t {
			list[i] = t[i].UTC()
		}
		return list
	case []*time.Time:
		list := make([]any, len(t))
		for i := range t {
			if t[i] != nil {
				list[i] = t[i].UTC()
			}
		}
		return list
	case []any:
		list := make([]any, len(t))
		for i := range t {
			list[i] = inUTC(t[i])
		}
		return list
	}
	return v
}

func isNil(v any) bool {
	if v == nil {
		return true
	}
	rv := reflect.ValueOf(v)
	return rv.Kind() == reflect.Pointer && rv.IsNil()
}

var errZeroByte = errors.New("text holds a zero byte, which PostgreSQL cannot store")

// appendArray appends the binary form of a one-dimensional array of n elements
// (PostgreSQL, src/backend/utils/adt/arrayfuncs.c, array_recv).
func appendArray(buf []byte, elemOID uint32, n int, element func(i int) (value []byte, isNull bool)) []byte {
	buf = binary.BigEndian.AppendUint32(buf, 1) // dimensions
	hasNull := len(buf)
	buf = binary.BigEndian.AppendUint32(buf, 0)
	buf = binary.BigEndian.AppendUint32(buf, elemOID)
	buf = binary.BigEndian.AppendUint32(buf, uint32(n))
	buf = binary.BigEndian.AppendUint32(buf, 1) // lower bound
	for i := range n {
		value, isNull := element(i)
		if isNull {
			buf[hasNull+3] = 1
			buf = binary.BigEndian.AppendUint32(buf, math.MaxUint32) // length -1
			continue
		}
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(value)))
		buf = append(buf, value...)
	}
	return buf
}
