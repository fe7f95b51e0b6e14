package sinkwriter

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"
)

// Limits of what the server accepts (PostgreSQL,
// src/include/datatype/timestamp.h).
const (
	minTimestamp, endTimestamp = -211_813_488_000_000_000, 9_223_371_331_200_000_000 // microseconds since 2000
	minDate, endDate           = -2_451_545, 2_145_031_949                           // days since 2000
)

// typmodHeader is the constant that the server adds to the length or precision in
// a typmod.
const typmodHeader = 4

// readable reports whether the server certainly accepts the values of a write as input
// and, if stored is true, whether they certainly fit their columns. If it returns false,
// it matters whether the server evaluates the values.
func (p *plan) readable(w *planned, stored bool) bool {
	for i, v := range w.values {
		if v == null {
			continue
		}
		col := &w.table.columns[w.shape.columns[i]]
		value := p.arena[v.from:v.to]
		if !readable(col.elemOID, value) || stored && !col.holds(value) {
			return false
		}
	}
	return true
}

// readable reports whether the server certainly accepts a value in its binary form.
func readable(elemOID uint32, v []byte) bool {
	switch elemOID {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID:
		return utf8.Valid(v)
	case pgtype.TimestamptzOID, pgtype.TimestampOID:
		n := int64(binary.BigEndian.Uint64(v))
		return n == math.MinInt64 || n == math.MaxInt64 || n >= minTimestamp && n < endTimestamp
	case pgtype.DateOID:
		n := int32(binary.BigEndian.Uint32(v))
		return n == math.MinInt32 || n == math.MaxInt32 || n >= minDate && n < endDate
	case pgtype.JSONOID, pgtype.JSONBOID:
		return false
	}
	return true
}

// holds reports whether a value certainly fits the column's type, length and
// precision.
func (c *column) holds(v []byte) bool {
	switch {
	case c.cast != "":
		return false
	case c.typmod < 0:
		return true
	}
	switch c.elemOID {
	case pgtype.VarcharOID, pgtype.BPCharOID:
		return utf8.RuneCount(v) <= int(c.typmod)-typmodHeader
	case pgtype.NumericOID:
		a, ok := readNumeric(v)
		whole := int(c.typmod-typmodHeader)>>16 - numericScale(c.typmod)
		if !ok || a.scale > numericScale(c.typmod) || whole < 0 || whole > 18 {
			return false
		}
		n := a.n
		for range a.scale {
			n /= 10
		}
		for range whole {
			n /= 10
		}
		return n == 0
	case pgtype.TimestamptzOID, pgtype.TimestampOID:
		n := int64(binary.BigEndian.Uint64(v))
		return n == math.MinInt64 || n == math.MaxInt64 || n < endTimestamp-1_000_000 // it is rounded
	}
	return false
}
