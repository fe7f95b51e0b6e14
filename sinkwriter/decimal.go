package sinkwriter

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
)

// decimal is a number in base 10: digits · 10^exponent. The digits do not begin with a
// zero; those of zero are empty. Special numbers have no digits.
type decimal struct {
	digits   string
	exponent int // minus the number of digits after the decimal point, including trailing zeros
	negative bool
	special  specialNumber
}

type specialNumber uint8

const (
	finite specialNumber = iota
	notANumber
	infinite
)

// maxExponent bounds the exponents that are accepted: numeric has at most 131,072 digits
// before the decimal point.
const maxExponent = 150_000

// parseDecimal parses a number in the syntax of PostgreSQL and JSON.
func parseDecimal(s string) (decimal, bool) {
	s = strings.Trim(s, " \t\n\r\v\f")
	var d decimal
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		d.negative, s = true, rest
	} else {
		s = strings.TrimPrefix(s, "+")
	}
	switch strings.ToLower(s) {
	case "nan":
		return decimal{special: notANumber}, !d.negative
	case "inf", "infinity":
		d.special = infinite
		return d, true
	}
	mantissa, exponent := s, ""
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if mantissa, exponent = s[:i], s[i+1:]; exponent == "" {
			return d, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if whole == "" && fraction == "" || !onlyDigits(whole) || !onlyDigits(fraction) {
		return d, false
	}
	if exponent != "" {
		n, err := strconv.Atoi(exponent)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return d, false
		}
		d.exponent = min(max(n, -maxExponent), maxExponent)
	}
	d.exponent -= len(fraction)
	d.digits = strings.TrimLeft(whole+fraction, "0")
	if d.digits == "" {
		d.negative = false
		d.exponent = min(d.exponent, 0)
	}
	return d, true
}

func onlyDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// decimalOfInt returns an integer as a decimal.
func decimalOfInt(i int64) decimal {
	d, _ := parseDecimal(strconv.FormatInt(i, 10))
	return d
}

// decimalOfFloat returns the shortest decimal that parses to the float of that many bits.
func decimalOfFloat(f float64, bits int) decimal {
	d, _ := parseDecimal(strconv.FormatFloat(f, 'e', -1, bits))
	return d
}

// trimmed returns the number without trailing zeros.
func (d decimal) trimmed() decimal {
	short := strings.TrimRight(d.digits, "0")
	d.exponent += len(d.digits) - len(short)
	d.digits = short
	if short == "" {
		d.exponent = 0
	}
	return d
}

// scale returns the number of digits after the decimal point.
func (d decimal) scale() int { return max(0, -d.exponent) }

// equal reports whether two numbers are equal, whatever their scale.
func (d decimal) equal(other decimal) bool { return d.trimmed() == other.trimmed() }

// whole returns the number as an integer. Fraction reports that it is not one.
func (d decimal) whole() (i int64, fraction, ok bool) {
	t := d.trimmed()
	switch {
	case t.special != finite:
		return 0, false, false
	case t.exponent < 0:
		return 0, true, false
	case len(t.digits)+t.exponent > 19:
		return 0, false, false
	}
	text := t.digits + strings.Repeat("0", t.exponent)
	if text == "" {
		return 0, false, true
	}
	if t.negative {
		text = "-" + text
	}
	i, err := strconv.ParseInt(text, 10, 64)
	return i, false, err == nil
}

// appendText appends the number as PostgreSQL reads it, with all digits of its scale.
func (d decimal) appendText(b []byte) []byte {
	if d.special == notANumber {
		return append(b, "NaN"...)
	}
	if d.negative {
		b = append(b, '-')
	}
	if d.special == infinite {
		return append(b, "Infinity"...)
	}
	if d.digits == "" {
		b = append(b, '0')
	}
	b = append(b, d.digits...)
	if d.exponent != 0 {
		b = strconv.AppendInt(append(b, 'e'), int64(d.exponent), 10)
	}
	return b
}

// appendBinary appends the binary form of numeric (numeric_recv: the number of digits to the
// base 10,000, the weight of the first, the sign, the scale, the digits).
func (d decimal) appendBinary(b []byte) []byte {
	const base, groupDigits = 10_000, 4
	header := func(groups, weight int, sign uint16, scale int) {
		for _, v := range [...]uint16{uint16(groups), uint16(weight), sign, uint16(scale)} {
			b = binary.BigEndian.AppendUint16(b, v)
		}
	}
	switch {
	case d.special == notANumber:
		header(0, 0, 0xc000, 0)
		return b
	case d.special == infinite && d.negative:
		header(0, 0, 0xf000, 0)
		return b
	case d.special == infinite:
		header(0, 0, 0xd000, 0)
		return b
	}
	t := d.trimmed()
	// A group of base-10,000 digits ends at the decimal point.
	digits := t.digits + strings.Repeat("0", ((t.exponent%groupDigits)+groupDigits)%groupDigits)
	lowest := int(math.Floor(float64(t.exponent) / groupDigits))
	var groups []uint16
	for end := len(digits); end > 0; end -= groupDigits {
		group := uint16(0)
		for _, c := range digits[max(0, end-groupDigits):end] {
			group = group*10 + uint16(c-'0')
		}
		groups = append(groups, group%base)
	}
	slices.Reverse(groups)
	sign := uint16(0)
	if t.negative {
		sign = 0x4000
	}
	weight := 0
	if len(groups) > 0 {
		weight = lowest + len(groups) - 1
	}
	header(len(groups), weight, sign, d.scale())
	for _, group := range groups {
		b = binary.BigEndian.AppendUint16(b, group)
	}
	return b
}
