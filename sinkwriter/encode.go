package sinkwriter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// span is the position of a value in a plan's arena; from < 0 is NULL.
type span struct{ from, to int }

var null = span{from: -1}

// appendValue appends v as an element of the array in which col's values are
// sent.
func appendValue(arena []byte, col *column, v any) ([]byte, span, error) {
	from := len(arena)
	// The common kinds are encoded directly.
	switch col.typ.kind {
	case kindInt8:
		if i, ok := asInt(v); ok {
			arena = binary.BigEndian.AppendUint64(arena, uint64(i))
			return arena, span{from, len(arena)}, nil
		}
	case kindInt4:
		if i, ok := asInt(v); ok && i >= math.MinInt32 && i <= math.MaxInt32 {
			arena = binary.BigEndian.AppendUint32(arena, uint32(i))
			return arena, span{from, len(arena)}, nil
		}
	case kindText, kindVarchar:
		if s, ok := v.(string); ok {
			if err := col.typ.checkText(s); err != nil {
				return arena, null, err
			}
			arena = append(arena, s...)
			return arena, span{from, len(arena)}, nil
		}
	case kindFloat8:
		if f, ok := v.(float64); ok && f != 0 && !math.IsNaN(f) {
			arena = binary.BigEndian.AppendUint64(arena, math.Float64bits(f))
			return arena, span{from, len(arena)}, nil
		}
	case kindTimestamp, kindTimestamptz:
		if at, ok := v.(time.Time); ok {
			us, _, err := col.typ.moment(at)
			arena = binary.BigEndian.AppendUint64(arena, uint64(us))
			return arena, span{from, len(arena)}, err
		}
	case kindJSON, kindJSONB:
		if m, ok := v.(map[string]any); ok && m != nil {
			out, err := col.typ.appendBinary(arena, m)
			return out, span{from, len(out)}, err
		}
	default:
	}
	plain, err := col.typ.plain(v)
	if err != nil || plain == nil {
		return arena, null, err
	}
	var out []byte
	if col.text {
		out, err = col.typ.appendText(arena, plain)
	} else {
		out, err = col.typ.appendBinary(arena, plain)
	}
	if err != nil {
		return arena, null, err
	}
	return out, span{from, len(out)}, nil
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

// appendNormal appends a normal form of a key's value. It is equal for all values
// that the server considers equal; it may be equal for others, too.
func appendNormal(arena []byte, col *column, v span) ([]byte, span) {
	value := arena[v.from:v.to]
	from := len(arena)
	switch {
	case col.spelling != normal:
		return arena, v
	case col.elemOID == pgtype.NumericOID:
		arena = appendNormalNumeric(arena, col.rounded(value))
	case col.elemOID == pgtype.TimestamptzOID || col.elemOID == pgtype.TimestampOID:
		arena = binary.BigEndian.AppendUint64(arena, uint64(roundTime(int64(binary.BigEndian.Uint64(value)), col.typmod)))
	case col.elemOID == pgtype.Float8OID || col.elemOID == pgtype.Float4OID:
		if minus := value[0] == 0x80 && len(bytes.Trim(value[1:], "\x00")) == 0; minus {
			return append(arena, make([]byte, len(value))...), span{from, from + len(value)}
		}
		return arena, v
	case col.text && col.typ.kind == kindText: // citext
		arena = append(arena, bytes.ToLower(value)...)
	default: // trailing blanks do not count
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

// add adds two encoded values of one column. It returns false if only the
// server can add them.
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

// compareBinary compares two encoded values as the server would. It returns
// false if their bytes do not determine the order.
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

// encodeArg encodes an argument of a function's own statement, for a parameter of
// the type that the server reported. The format is text, because all types have
// one.
func encodeArg(t *columnType, v any) (param []byte, format int16, err error) {
	plain, err := t.plain(v)
	if err != nil || plain == nil {
		return nil, pgtype.TextFormatCode, err
	}
	if t.kind == kindBytea { // half the size in binary
		param, err = t.appendBinary([]byte{}, plain)
		return param, pgtype.BinaryFormatCode, err
	}
	param, err = t.appendText([]byte{}, plain)
	return param, pgtype.TextFormatCode, err
}

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
