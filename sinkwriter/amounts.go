package sinkwriter

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

// amount is an exact decimal number: n / 10^scale.
type amount struct {
	n     int64
	scale int
}

// sumAdds combines the amounts that are added to one row into fewer writes, where the server
// would reach the same result, or report the same error, one by one.
//
// If the least and the greatest intermediate sum are allowed, every sum between them is. So
// where a type or a CHECK sets limits, the amounts up to each of these two are one write.
func (p *plan) sumAdds(writes []planned) []planned {
	out := writes[:0]
	for from := 0; from < len(writes); {
		w := &writes[from]
		to := from + 1
		for to < len(writes) && w.shape.op == functions.OpAdd && writes[to].shape == w.shape && p.sameKey(w, &writes[to]) {
			to++
		}
		if to-from == 1 {
			out = append(out, *w)
		} else {
			out = append(out, p.sumRun(writes[from:to])...)
		}
		from = to
	}
	return out
}

// sumRun adds up writes of one shape to one row, or returns them unchanged.
func (p *plan) sumRun(run []planned) []planned {
	t, s := run[0].table, run[0].shape
	if t.watched {
		return run
	}
	key := len(t.key)
	sums := make([][]amount, len(s.columns)) // by column: the sum after each write
	ends := []int{len(run) - 1}              // the last write of each part
	for i := key; i < len(s.columns); i++ {
		col := &t.columns[s.columns[i]]
		if !col.sums() {
			return run
		}
		var ok bool
		if sums[i], ok = p.sumsOf(col, run, i); !ok {
			return run
		}
		if col.elemOID == pgtype.NumericOID && col.typmod < 0 && !col.watched {
			continue // the amounts reach no limit
		}
		least, greatest := extremes(sums[i])
		ends = append(ends, least, greatest)
	}
	slices.Sort(ends)
	ends = slices.Compact(ends)
	if ends[0] < 0 { // the extreme is before the first write
		ends = ends[1:]
	}
	parts := make([]planned, 0, len(ends))
	for n, end := range ends {
		part := run[end]
		part.values = slices.Clone(run[0].values)
		for i := key; i < len(s.columns); i++ {
			sum := sums[i][end]
			if n > 0 {
				d, ok := sub(sum.n, sums[i][ends[n-1]].n)
				if !ok {
					return run
				}
				sum.n = d
			}
			v, ok := p.appendAmount(&t.columns[s.columns[i]], sum)
			if !ok {
				return run
			}
			part.values[i] = v
		}
		parts = append(parts, part)
	}
	return parts
}

// extremes returns the positions of the least and the greatest sum; -1 is before the
// first amount.
func extremes(sums []amount) (least, greatest int) {
	least, greatest = -1, -1
	var low, high int64
	for i, s := range sums {
		if s.n < low {
			least, low = i, s.n
		}
		if s.n > high {
			greatest, high = i, s.n
		}
	}
	return least, greatest
}

// sumsOf returns the sums of a column after each write, in one scale.
func (p *plan) sumsOf(col *column, run []planned, i int) (sums []amount, ok bool) {
	sums = make([]amount, len(run))
	scale := 0
	for w := range run {
		v := run[w].values[i]
		if sums[w], ok = readAmount(col.elemOID, p.arena[v.from:v.to]); !ok {
			return nil, false
		}
		scale = max(scale, sums[w].scale)
	}
	if col.elemOID == pgtype.NumericOID && col.typmod >= 0 && scale > numericScale(col.typmod) {
		return nil, false // each is rounded
	}
	var sum int64
	for w := range sums {
		n := sums[w].n
		for range scale - sums[w].scale {
			if n > math.MaxInt64/10 || n < math.MinInt64/10 {
				return nil, false
			}
			n *= 10
		}
		if sum, ok = sub(sum, -n); !ok || n == math.MinInt64 {
			return nil, false
		}
		sums[w] = amount{sum, scale}
	}
	return sums, true
}

// sub returns a - b, and reports whether it did not overflow.
func sub(a, b int64) (int64, bool) {
	d := a - b
	return d, (a < b) == (d < 0)
}

// numericScale returns the scale in the typmod of a numeric column (PostgreSQL,
// src/backend/utils/adt/numeric.c, numeric_typmod_scale).
func numericScale(typmod int32) int {
	return int(((typmod-4)&0x7ff)^1024) - 1024
}

const (
	numericBase   = 10_000
	numericDigits = 4 // decimal digits in a digit of that base
)

// readAmount decodes an amount. It returns false if the value does not fit an
// amount.
func readAmount(elemOID uint32, v []byte) (amount, bool) {
	switch elemOID {
	case pgtype.Int8OID:
		return amount{n: int64(binary.BigEndian.Uint64(v))}, true
	case pgtype.Int4OID:
		return amount{n: int64(int32(binary.BigEndian.Uint32(v)))}, true
	case pgtype.Int2OID:
		return amount{n: int64(int16(binary.BigEndian.Uint16(v)))}, true
	case pgtype.NumericOID:
		return readNumeric(v)
	}
	return amount{}, false
}

// readNumeric reads a numeric in binary form: digits to the base 10,000, weight of the
// first, sign, scale.
func readNumeric(v []byte) (amount, bool) {
	const header, negative = 8, 0x4000
	if len(v) < header {
		return amount{}, false
	}
	weight, sign := int(int16(binary.BigEndian.Uint16(v[2:]))), binary.BigEndian.Uint16(v[4:])
	scale := int(binary.BigEndian.Uint16(v[6:]))
	digits := v[header:]
	if sign != 0 && sign != negative || scale > 18 || len(digits) > 2*5 || weight > 4 {
		return amount{}, false
	}
	// Scale up to whole base-10,000 digits, then down to its own scale.
	groups := (scale + numericDigits - 1) / numericDigits
	var n uint64
	for place := max(weight, -1); place >= -groups; place-- {
		digit := uint64(0)
		if i := 2 * (weight - place); i >= 0 && i+1 < len(digits) {
			digit = uint64(binary.BigEndian.Uint16(digits[i:]))
		}
		high, low := bits.Mul64(n, numericBase)
		if high != 0 || low > math.MaxInt64-numericBase {
			return amount{}, false
		}
		n = low + digit
	}
	if weight-len(digits)/2+1 < -groups {
		return amount{}, false // digits beyond its scale
	}
	for range groups*numericDigits - scale {
		if n%10 != 0 {
			return amount{}, false
		}
		n /= 10
	}
	a := amount{int64(n), scale}
	if sign == negative {
		a.n = -a.n
	}
	return a, true
}

// appendAmount encodes an amount for a column. It returns false if the amount
// does not fit the column's type.
func (p *plan) appendAmount(col *column, a amount) (span, bool) {
	from := len(p.arena)
	switch col.elemOID {
	case pgtype.Int8OID:
		p.arena = binary.BigEndian.AppendUint64(p.arena, uint64(a.n))
	case pgtype.Int4OID:
		if a.n < math.MinInt32 || a.n > math.MaxInt32 {
			return null, false
		}
		p.arena = binary.BigEndian.AppendUint32(p.arena, uint32(a.n))
	case pgtype.Int2OID:
		if a.n < math.MinInt16 || a.n > math.MaxInt16 {
			return null, false
		}
		p.arena = binary.BigEndian.AppendUint16(p.arena, uint16(a.n))
	default:
		p.arena = appendNumeric(p.arena, a)
	}
	return span{from, len(p.arena)}, true
}

// appendNumeric appends the binary form of a numeric.
func appendNumeric(arena []byte, a amount) []byte {
	sign := uint16(0)
	n := uint64(a.n)
	if a.n < 0 {
		sign, n = 0x4000, -n
	}
	// The digits after the decimal point are whole base-10,000 digits.
	groups := (a.scale + numericDigits - 1) / numericDigits
	var digits []uint16 // least significant first
	for i := range groups {
		unit := numericBase
		digit := uint64(0)
		if missing := groups*numericDigits - a.scale; i == 0 && missing > 0 {
			for range missing {
				unit /= 10
			}
			digit = n % uint64(unit) * uint64(numericBase/unit)
		} else {
			digit = n % numericBase
		}
		n /= uint64(unit)
		digits = append(digits, uint16(digit))
	}
	for ; n > 0; n /= numericBase {
		digits = append(digits, uint16(n%numericBase))
	}
	slices.Reverse(digits)
	weight := len(digits) - groups - 1
	for len(digits) > 0 && digits[0] == 0 {
		digits = digits[1:]
		weight--
	}
	for len(digits) > 0 && digits[len(digits)-1] == 0 {
		digits = digits[:len(digits)-1]
	}
	if len(digits) == 0 {
		sign, weight = 0, 0
	}
	arena = binary.BigEndian.AppendUint16(arena, uint16(len(digits)))
	arena = binary.BigEndian.AppendUint16(arena, uint16(int16(weight)))
	arena = binary.BigEndian.AppendUint16(arena, sign)
	arena = binary.BigEndian.AppendUint16(arena, uint16(a.scale))
	for _, d := range digits {
		arena = binary.BigEndian.AppendUint16(arena, d)
	}
	return arena
}

// rounded returns a numeric as the server rounds it to the column's scale, half away from
// zero.
func (c *column) rounded(v []byte) []byte {
	if c.typmod < 0 {
		return v
	}
	a, ok := readNumeric(v)
	scale := numericScale(c.typmod)
	if !ok || a.scale <= scale || scale < 0 {
		return v
	}
	unit := int64(1)
	for range a.scale - scale {
		unit *= 10
	}
	half := unit / 2
	if a.n < 0 {
		half = -half
	}
	if sum, ok := sub(a.n, -half); ok {
		return appendNumeric(nil, amount{sum / unit, scale})
	}
	return v
}

// roundTime rounds microseconds as the server does for a precision (PostgreSQL,
// src/backend/utils/adt/timestamp.c, AdjustTimestampForTypmod).
func roundTime(micros int64, precision int32) int64 {
	const digits = 6
	if precision < 0 || precision >= digits || micros == math.MinInt64 || micros == math.MaxInt64 {
		return micros
	}
	unit := int64(1)
	for range digits - precision {
		unit *= 10
	}
	half := unit / 2
	if micros < 0 {
		half = -half
	}
	if sum, ok := sub(micros, -half); ok {
		return sum / unit * unit
	}
	return micros
}
