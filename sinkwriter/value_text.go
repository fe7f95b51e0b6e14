package sinkwriter

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// maxDimensions is the maximum number of dimensions of an array in PostgreSQL.
const maxDimensions = 6

// appendDate appends the date in PostgreSQL's format.
func (i instant) appendDate(b []byte) []byte {
	switch {
	case i.infinity > 0:
		return append(b, "infinity"...)
	case i.infinity < 0:
		return append(b, "-infinity"...)
	}
	year, month, day := i.time.Date()
	if year <= 0 {
		return fmt.Appendf(b, "%04d-%02d-%02d BC", 1-year, month, day)
	}
	return fmt.Appendf(b, "%04d-%02d-%02d", year, month, day)
}

// appendTime appends the timestamp in PostgreSQL's format.
func (i instant) appendTime(b []byte, zone bool) []byte {
	if i.infinity != 0 {
		return i.appendDate(b)
	}
	date, before := strings.CutSuffix(string(i.appendDate(nil)), " BC")
	b = append(append(b, date...), ' ')
	b = i.time.AppendFormat(b, "15:04:05.999999")
	if zone {
		b = append(b, "+00"...)
	}
	if before {
		b = append(b, " BC"...)
	}
	return b
}

// appendClock appends a time of day.
func (t *columnType) appendClock(b []byte, v any) ([]byte, error) {
	const example = "pass a text such as 15:04:05"
	text, ok := v.(string)
	if !ok {
		return b, t.misfit(v, example)
	}
	text = strings.Trim(text, " ")
	r := textReader{text}
	clock, _, hasZone, ok := r.clock()
	_, fraction, _ := strings.Cut(text, ".")
	switch {
	case !ok || r.rest != "":
		return b, t.misfit(v, example)
	case hasZone && t.kind == kindTime:
		return b, t.misfit(v, "it has a zone, which the column does not keep")
	case len(fraction)-len(strings.TrimLeft(fraction, "0123456789")) > 6:
		return b, t.misfit(v, "it has more digits behind the second than the column keeps: truncate it in the function")
	}
	return append(b, text...), t.checkPrecision(v, clock.Microseconds(), t.modifier)
}

// appendInterval appends an interval.
func (t *columnType) appendInterval(b []byte, v any) ([]byte, error) {
	const finer = "it is finer than the column keeps: round it in the function"
	if d, ok := v.(time.Duration); ok {
		if d%time.Microsecond != 0 {
			return b, t.misfit(v, finer)
		}
		v = strconv.FormatInt(d.Microseconds(), 10) + " microseconds"
		if t.modifier != -1 && !t.keeps(pgtype.Interval{Microseconds: d.Microseconds()}) {
			return b, t.misfit(d, finer)
		}
		return append(b, v.(string)...), nil
	}
	text, ok := v.(string)
	if !ok {
		return b, t.misfit(v, "pass a time.Duration, or a text such as 1 day 02:03:04")
	}
	if t.modifier != -1 {
		var read pgtype.Interval
		if read.Scan(text) != nil || !t.keeps(read) {
			return b, t.misfit(v, finer)
		}
	}
	for rest := text; ; {
		_, fraction, found := strings.Cut(rest, ".")
		if !found {
			break
		}
		rest = strings.TrimLeft(fraction, "0123456789")
		if len(strings.TrimRight(fraction[:len(fraction)-len(rest)], "0")) > 6 {
			return b, t.misfit(v, finer)
		}
	}
	return append(b, text...), checkCharacters(text)
}

// keeps reports whether a column of intervals keeps all of an interval. Its modifier holds
// the number of fractional digits and the set of fields (src/include/utils/timestamp.h).
func (t *columnType) keeps(i pgtype.Interval) bool {
	const second, minute, hour, day, month, full = 1 << 12, 1 << 11, 1 << 10, 1 << 3, 1 << 1, 0x7fff
	fields, precision := (t.modifier>>16)&full, t.modifier&0xffff
	if fields == full || fields&second != 0 {
		if precision > 6 {
			precision = 6
		}
		return t.checkPrecision(nil, i.Microseconds, precision) == nil
	}
	switch {
	case fields&minute != 0:
		return i.Microseconds%time.Minute.Microseconds() == 0
	case fields&hour != 0:
		return i.Microseconds%time.Hour.Microseconds() == 0
	case fields&day != 0:
		return i.Microseconds == 0
	case fields&month != 0:
		return i.Microseconds == 0 && i.Days == 0
	}
	return i.Microseconds == 0 && i.Days == 0 && i.Months%12 == 0
}

// appendBits appends a string of bits.
func (t *columnType) appendBits(b []byte, v any) ([]byte, error) {
	text, ok := v.(string)
	if !ok || strings.Trim(text, "01") != "" {
		return b, t.misfit(v, "pass a text of zeros and ones, or a pgtype.Bits")
	}
	switch length := int32(len(text)); {
	case t.modifier < 0:
	case t.kind == kindBit && length != t.modifier:
		return b, t.misfit(v, "it has another length")
	case length > t.modifier:
		return b, t.misfit(v, "it is too long")
	}
	return append(b, text...), nil
}

// appendMoney appends an amount. It has two digits after the decimal point, because
// lc_monetary is pinned.
func (t *columnType) appendMoney(b []byte, v any) ([]byte, error) {
	amount := v
	switch v := v.(type) {
	case string:
		amount = strings.NewReplacer("$", "", ",", "").Replace(v)
	case time.Duration:
		return b, t.misfit(v, "pass an amount")
	}
	d, err := t.decimal(amount)
	switch {
	case err != nil:
		return b, t.misfit(v, "it is not an amount: pass a text such as 12.50")
	case d.special != finite || d.trimmed().exponent < -2:
		return b, t.misfit(v, "it has more digits behind the point than the column keeps: round it in the function")
	}
	short := d.trimmed()
	text := short.digits + strings.Repeat("0", max(0, short.exponent+2))
	for len(text) < 3 {
		text = "0" + text
	}
	if short.negative {
		b = append(b, '-')
	}
	b = append(b, text[:len(text)-2]...)
	return append(append(b, '.'), text[len(text)-2:]...), nil
}

// appendHstore appends a map of texts.
func (t *columnType) appendHstore(b []byte, v any) ([]byte, error) {
	pairs := map[string]any{}
	rv := reflect.ValueOf(v)
	switch text, ok := v.(string); {
	case ok:
		if pairs, ok = parseHstore(text); !ok {
			return b, t.misfit(v, `it is not an hstore: pass a map of texts, or a text such as "a"=>"1"`)
		}
	case rv.Kind() == reflect.Map:
		for entries := rv.MapRange(); entries.Next(); {
			value, err := t.plain(entries.Value().Interface())
			if err != nil {
				return b, err
			}
			if _, ok := value.(string); !ok && value != nil {
				return b, t.misfit(v, "its values are not texts")
			}
			pairs[entries.Key().String()] = value
		}
	default:
		return b, t.misfit(v, `pass a map of texts, or a text such as "a"=>"1"`)
	}
	for i, name := range slices.Sorted(maps.Keys(pairs)) {
		if i > 0 {
			b = append(b, ',')
		}
		text, ok := pairs[name].(string)
		if err := checkCharacters(name + text); err != nil {
			return b, err
		}
		b = append(appendQuoted(b, name), "=>"...)
		if ok {
			b = appendQuoted(b, text)
		} else {
			b = append(b, "NULL"...)
		}
	}
	return b, nil
}

// appendElement appends a part of another value between quotes, or none if it is NULL.
func (t *columnType) appendElement(b []byte, v any, none string) ([]byte, error) {
	plain, err := t.plain(v)
	if err != nil {
		return b, err
	}
	if plain == nil {
		return append(b, none...), nil
	}
	text, err := t.appendText(nil, plain)
	if err != nil {
		return b, err
	}
	return appendQuoted(b, string(text)), nil
}

// nests reports whether a list among the elements of an array of the type is a dimension of the
// array, and not an element.
func (t *columnType) nests() bool {
	switch t.kind {
	case kindJSON, kindJSONB, kindComposite, kindMultirange:
		return false
	default:
		return true
	}
}

// appendArray appends an array.
func (t *columnType) appendArray(b []byte, v any) ([]byte, error) {
	switch a := v.(type) {
	case string:
		list, ok := parseArray(a, t.elem.delimiter)
		if !ok {
			return b, t.misfit(v, "it is not an array: pass a slice")
		}
		v = list
	case pgtype.ArrayGetter:
		if reflect.TypeOf(v).Kind() != reflect.Slice {
			b, v = elementsOf(b, a)
		}
	}
	rv := reflect.ValueOf(v)
	if _, isBytes := v.([]byte); rv.Kind() != reflect.Slice || isBytes || rv.Type() == reflect.TypeFor[[]byte]() {
		return b, t.misfit(v, "pass a slice")
	}
	a := arrayWriter{typ: t, leaves: -1}
	out, err := a.append(b, rv, 0)
	if err != nil {
		return b, err
	}
	return out, nil
}

// elementsOf returns the elements of an array of a pgx type, as slices of slices. It appends
// the bounds of the array's dimensions to b if a lower bound is not one.
func elementsOf(b []byte, a pgtype.ArrayGetter) ([]byte, any) {
	dimensions := a.Dimensions()
	if len(dimensions) == 0 {
		return b, []any{}
	}
	total := 1
	usual := true
	for _, d := range dimensions {
		total *= int(d.Length)
		usual = usual && d.LowerBound == 1
	}
	if !usual {
		for _, d := range dimensions {
			b = fmt.Appendf(b, "[%d:%d]", d.LowerBound, d.LowerBound+d.Length-1)
		}
		b = append(b, '=')
	}
	list := make([]any, total)
	for i := range list {
		list[i] = a.Index(i)
	}
	for _, d := range slices.Backward(dimensions[1:]) {
		var outer []any
		for part := range slices.Chunk(list, max(1, int(d.Length))) {
			outer = append(outer, part)
		}
		list = outer
	}
	return b, list
}

// arrayWriter appends the text of an array, and checks that its dimensions are regular.
type arrayWriter struct {
	typ     *columnType
	lengths []int
	leaves  int // the depth of the elements; -1 until there is one
}

func (a *arrayWriter) append(b []byte, list reflect.Value, depth int) ([]byte, error) {
	irregular := func(why string) error { return a.typ.misfit([]any{}, why) }
	if depth == maxDimensions {
		return b, irregular("it has more than 6 dimensions")
	}
	if depth > 0 && list.Len() == 0 {
		return b, irregular("a list in it is empty")
	}
	if len(a.lengths) == depth {
		a.lengths = append(a.lengths, list.Len())
	} else if a.lengths[depth] != list.Len() {
		return b, irregular("the lists in it have different lengths")
	}
	b = append(b, '{')
	for i := range list.Len() {
		if i > 0 {
			b = append(b, a.typ.elem.delimiter)
		}
		element := list.Index(i).Interface()
		inner, nested, err := a.nested(element)
		if err != nil {
			return b, fmt.Errorf("element %d: %w", i, err)
		}
		if nested {
			if a.leaves == depth {
				return b, irregular("elements and lists are mixed in it")
			}
			if b, err = a.append(b, inner, depth+1); err != nil {
				return b, err
			}
			continue
		}
		if a.leaves == -1 {
			a.leaves = depth
		}
		if a.leaves != depth || len(a.lengths) > depth+1 {
			return b, irregular("elements and lists are mixed in it")
		}
		if b, err = a.typ.elem.appendElement(b, element, "NULL"); err != nil {
			return b, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return append(b, '}'), nil
}

// nested returns an element as a list, if it is one.
func (a *arrayWriter) nested(element any) (reflect.Value, bool, error) {
	if !a.typ.elem.nests() {
		return reflect.Value{}, false, nil
	}
	plain, err := a.typ.elem.plain(element)
	if err != nil {
		return reflect.Value{}, false, err
	}
	rv := reflect.ValueOf(plain)
	if plain == nil || rv.Kind() != reflect.Slice || rv.Type().Elem().Kind() == reflect.Uint8 {
		return reflect.Value{}, false, nil
	}
	return rv, true, nil
}

// appendComposite appends a row: the values of its attributes in order, or by name.
func (t *columnType) appendComposite(b []byte, v any) ([]byte, error) {
	values := make([]any, len(t.fields))
	rv := reflect.ValueOf(v)
	if text, ok := v.(string); ok {
		list, ok := parseRecord(text)
		if !ok {
			return b, t.misfit(v, "it is not a row: pass a text such as (1,abc), or a map by the names of the attributes")
		}
		rv = reflect.ValueOf(list)
	}
	switch {
	case rv.Kind() == reflect.Slice && rv.Type().Elem().Kind() != reflect.Uint8:
		if rv.Len() != len(t.fields) {
			return b, t.misfit(v, fmt.Sprintf("it has %d values, and the type %d attributes", rv.Len(), len(t.fields)))
		}
		for i := range values {
			values[i] = rv.Index(i).Interface()
		}
	case rv.Kind() == reflect.Map:
		for entries := rv.MapRange(); entries.Next(); {
			i := slices.IndexFunc(t.fields, func(f field) bool { return f.name == entries.Key().String() })
			if i < 0 {
				return b, t.misfit(v, "the type has no attribute "+strconv.Quote(entries.Key().String()))
			}
			values[i] = entries.Value().Interface()
		}
	default:
		return b, t.misfit(v, "pass a text such as (1,abc), or a map by the names of the attributes")
	}
	b = append(b, '(')
	for i := range values {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = t.fields[i].typ.appendElement(b, values[i], ""); err != nil {
			return b, fmt.Errorf("attribute %s: %w", t.fields[i].name, err)
		}
	}
	return append(b, ')'), nil
}

// appendRange appends a range.
func (t *columnType) appendRange(b []byte, v any) ([]byte, error) {
	switch r := v.(type) {
	case string:
		if literal, ok := parseRange(r); ok {
			return t.appendBounds(b, literal)
		}
	case pgtype.RangeValuer:
		literal, err := t.rangeOf(r)
		if err != nil {
			return b, err
		}
		return t.appendBounds(b, literal)
	}
	return b, t.misfit(v, "pass a text such as [1,5), or a pgtype.Range")
}

func (t *columnType) rangeOf(r pgtype.RangeValuer) (rangeLiteral, error) {
	from, to := r.BoundTypes()
	lower, upper := r.Bounds()
	l := rangeLiteral{from: '(', to: ')'}
	for _, side := range [...]struct {
		bound   pgtype.BoundType
		value   any
		into    *any
		bracket *byte
		closed  byte
	}{{from, lower, &l.lower, &l.from, '['}, {to, upper, &l.upper, &l.to, ']'}} {
		switch side.bound {
		case pgtype.Empty:
			return rangeLiteral{empty: true}, nil
		case pgtype.Unbounded:
		case pgtype.Inclusive:
			*side.bracket = side.closed
			*side.into = side.value
		case pgtype.Exclusive:
			*side.into = side.value
		default:
			return l, t.misfit(r, "a bound has no type")
		}
	}
	return l, nil
}

func (t *columnType) appendBounds(b []byte, l rangeLiteral) ([]byte, error) {
	if l.empty {
		return append(b, "empty"...), nil
	}
	b = append(b, l.from)
	var err error
	if b, err = t.elem.appendElement(b, l.lower, ""); err != nil {
		return b, fmt.Errorf("lower bound: %w", err)
	}
	b = append(b, ',')
	if b, err = t.elem.appendElement(b, l.upper, ""); err != nil {
		return b, fmt.Errorf("upper bound: %w", err)
	}
	return append(b, l.to), nil
}

// appendMultirange appends a multirange.
func (t *columnType) appendMultirange(b []byte, v any) ([]byte, error) {
	const example = "pass a text such as {[1,5),[7,9)}, or a slice of pgtype.Range"
	var literals []rangeLiteral
	if text, ok := v.(string); ok {
		if literals, ok = parseMultirange(text); !ok {
			return b, t.misfit(v, example)
		}
	} else {
		rv := reflect.ValueOf(v)
		if rv.Kind() != reflect.Slice {
			return b, t.misfit(v, example)
		}
		for i := range rv.Len() {
			var literal rangeLiteral
			switch r := rv.Index(i).Interface().(type) {
			case string:
				if literal, ok = parseRange(r); !ok {
					return b, t.misfit(v, example)
				}
			case pgtype.RangeValuer:
				if r.IsNull() {
					return b, t.misfit(v, "a range in it is NULL")
				}
				var err error
				if literal, err = t.rangeOf(r); err != nil {
					return b, err
				}
			default:
				return b, t.misfit(v, example)
			}
			literals = append(literals, literal)
		}
	}
	b = append(b, '{')
	for i, literal := range literals {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = t.appendBounds(b, literal); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}
