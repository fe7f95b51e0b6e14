package sinkwriter

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/internal/pgjson"
)

var errZeroByte = errors.New("text holds a zero byte, which PostgreSQL cannot store")

var errNotUTF8 = errors.New("text is not UTF-8: convert it in the function, or store it as bytea")

var errEscape = errors.New(`a text of the document holds \u0000 or half of a surrogate pair, which jsonb cannot store: use json`)

// plain returns the plain form of a value. Values of pgx types that only this type can hold
// are returned unchanged.
func (t *columnType) plain(v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	switch t.kind {
	case kindRange:
		if r, ok := v.(pgtype.RangeValuer); ok && !isNil(v) {
			if r.IsNull() {
				return nil, nil
			}
			return r, nil
		}
	case kindArray:
		if a, ok := v.(pgtype.ArrayGetter); ok && !isNil(v) && reflect.TypeOf(v).Kind() != reflect.Slice {
			if a.Dimensions() == nil {
				return nil, nil
			}
			return a, nil
		}
	default:
	}
	plain, err := functions.Plain(v)
	if err != nil {
		return nil, &Error{Fault: FaultFunction, Err: err}
	}
	return plain, nil
}

func isNil(v any) bool {
	if v == nil {
		return true
	}
	rv := reflect.ValueOf(v)
	return rv.Kind() == reflect.Pointer && rv.IsNil()
}

// misfit returns the error for a plain value that a column of the type cannot hold exactly.
func (t *columnType) misfit(v any, why string) error {
	return fmt.Errorf("%s does not fit %s: %s", nameOf(v), t.name, why)
}

func nameOf(v any) string {
	switch v.(type) {
	case bool:
		return "a bool"
	case int64, uint64:
		return "an integer"
	case float64:
		return "a float"
	case string:
		return "a text"
	case json.Number:
		return "a json.Number"
	case []byte:
		return "a []byte"
	case json.RawMessage:
		return "JSON"
	case time.Time:
		return "a time"
	case time.Duration:
		return "a duration"
	}
	switch reflect.ValueOf(v).Kind() {
	case reflect.Slice:
		return "a list"
	case reflect.Map:
		return "a map"
	default:
		return fmt.Sprintf("a %T", v)
	}
}

// integer returns a plain value as an integer, exactly.
func (t *columnType) integer(v any) (int64, error) {
	least, most := int64(math.MinInt64), int64(math.MaxInt64)
	switch t.kind {
	case kindInt2:
		least, most = math.MinInt16, math.MaxInt16
	case kindInt4:
		least, most = math.MinInt32, math.MaxInt32
	default:
	}
	i, inRange := int64(0), true
	switch v := v.(type) {
	case int64:
		i = v
	case time.Duration:
		i = int64(v)
	case uint64:
		inRange = false
	case float64:
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			return 0, t.misfit(v, "it is not a number")
		case v != math.Trunc(v):
			return 0, t.misfit(v, "it has a fraction: round it in the function")
		case math.Abs(v) >= 1<<53:
			return 0, t.misfit(v, errFloatDigits)
		}
		i = int64(v)
	case json.Number:
		return t.integerOf(v, string(v), least, most)
	case string:
		return t.integerOf(v, v, least, most)
	default:
		return 0, t.misfit(v, "pass an integer")
	}
	if !inRange || i < least || i > most {
		return 0, t.misfit(v, "it is out of range")
	}
	return i, nil
}

const errFloatDigits = "a float of 2^53 and above has lost the digits of an integer: decode numbers of JSON into an int64 or a json.Number"

func (t *columnType) integerOf(v any, text string, least, most int64) (int64, error) {
	d, ok := parseDecimal(text)
	if !ok {
		return 0, t.misfit(v, "it is not an integer")
	}
	i, fraction, ok := d.whole()
	switch {
	case fraction:
		return 0, t.misfit(v, "it has a fraction: round it in the function")
	case d.special != finite:
		return 0, t.misfit(v, "it is not a number")
	case !ok || i < least || i > most:
		return 0, t.misfit(v, "it is out of range")
	}
	return i, nil
}

// float returns a plain value as a float that PostgreSQL prints with the same digits.
func (t *columnType) float(v any) (float64, error) {
	bits := 64
	if t.kind == kindFloat4 {
		bits = 32
	}
	var d decimal
	switch v := v.(type) {
	case float64:
		switch {
		case math.IsNaN(v):
			return math.NaN(), nil
		case v == 0:
			return 0, nil // not minus zero, which PostgreSQL prints differently
		case bits == 64 || math.IsInf(v, 0) || float64(float32(v)) == v:
			return v, nil
		}
		d = decimalOfFloat(v, 64)
	case int64:
		d = decimalOfInt(v)
	case time.Duration:
		d = decimalOfInt(int64(v))
	case uint64:
		d, _ = parseDecimal(strconv.FormatUint(v, 10))
	case json.Number:
		var ok bool
		if d, ok = parseDecimal(string(v)); !ok {
			return 0, t.misfit(v, "it is not a number")
		}
	case string:
		var ok bool
		if d, ok = parseDecimal(v); !ok {
			return 0, t.misfit(v, "it is not a number")
		}
	default:
		return 0, t.misfit(v, "pass a number")
	}
	switch {
	case d.special == notANumber:
		return math.NaN(), nil
	case d.special == infinite && d.negative:
		return math.Inf(-1), nil
	case d.special == infinite:
		return math.Inf(1), nil
	}
	f, err := strconv.ParseFloat(string(d.appendText(nil)), bits)
	switch {
	case err != nil:
		return 0, t.misfit(v, "it is out of range")
	case !decimalOfFloat(f, bits).equal(d):
		return 0, t.misfit(v, "it has more digits than the column keeps: round it in the function, or use numeric")
	}
	return f, nil
}

// decimal returns a plain value as a decimal, if the column keeps all its digits.
func (t *columnType) decimal(v any) (decimal, error) {
	var d decimal
	ok := true
	switch v := v.(type) {
	case int64:
		d = decimalOfInt(v)
	case time.Duration:
		d = decimalOfInt(int64(v))
	case uint64:
		d, ok = parseDecimal(strconv.FormatUint(v, 10))
	case float64:
		if math.Abs(v) >= 1<<53 && !math.IsInf(v, 0) {
			return d, t.misfit(v, errFloatDigits)
		}
		d = decimalOfFloat(v, 64)
	case json.Number:
		d, ok = parseDecimal(string(v))
	case string:
		d, ok = parseDecimal(v)
	default:
		return d, t.misfit(v, "pass a number")
	}
	if !ok {
		return d, t.misfit(v, "it is not a number")
	}
	const mostWhole, mostFraction = 131_072, 16_383
	if len(d.digits)+d.exponent > mostWhole || d.scale() > mostFraction {
		return d, t.misfit(v, "it has more digits than numeric holds")
	}
	if t.modifier < 0 || d.special == notANumber {
		return d, nil
	}
	precision, scale := int(t.modifier-4)>>16, int(t.modifier-4)&0x7ff
	if scale > 1023 { // a negative scale
		scale -= 2048
	}
	trimmed := d.trimmed()
	switch {
	case d.special == infinite || len(trimmed.digits) > 0 && len(trimmed.digits)+trimmed.exponent > precision-scale:
		return d, t.misfit(v, "it is out of range")
	case len(trimmed.digits) > 0 && trimmed.exponent < -scale:
		return d, t.misfit(v, "it has more digits behind the point than the column keeps: round it in the function")
	}
	return d, nil
}

// boolean returns a plain value as a bool.
func (t *columnType) boolean(v any) (bool, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case string:
		switch strings.ToLower(strings.Trim(v, " \t\n\r\v\f")) {
		case "true", "t", "yes", "y", "on", "1":
			return true, nil
		case "false", "f", "no", "n", "off", "0":
			return false, nil
		}
	}
	return false, t.misfit(v, "pass a bool")
}

// str returns a plain value as a text, for a column of text.
func (t *columnType) str(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, t.checkText(v)
	case json.Number:
		return string(v), t.checkText(string(v))
	case []byte:
		return string(v), t.checkText(string(v))
	case time.Time:
		text := v.Format(time.RFC3339Nano)
		return text, t.checkText(text)
	case time.Duration:
		return v.String(), t.checkText(v.String())
	}
	return "", t.misfit(v, "pass a string, as its String method or strconv returns it")
}

// checkText returns an error if the column cannot hold the whole text.
func (t *columnType) checkText(s string) error {
	if err := checkCharacters(s); err != nil {
		return err
	}
	const nameBytes, header = 63, 4
	fits := true
	switch {
	case t.kind == kindName:
		fits = len(s) <= nameBytes
	case t.kind == kindChar:
		fits = len(s) <= 1
	case t.modifier < header:
	case t.kind == kindVarchar:
		fits = len(s) <= int(t.modifier-header) || utf8.RuneCountInString(s) <= int(t.modifier-header)
	case t.kind == kindBPChar:
		fits = utf8.RuneCountInString(strings.TrimRight(s, " ")) <= int(t.modifier-header)
	}
	if !fits {
		return t.misfit(s, "it is too long")
	}
	return nil
}

func checkCharacters(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return errZeroByte
	}
	if !utf8.ValidString(s) {
		return errNotUTF8
	}
	return nil
}

// bytes returns a plain value as bytes.
func (t *columnType) bytes(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case string:
		if text, ok := strings.CutPrefix(v, `\x`); ok {
			if b, err := hex.DecodeString(text); err == nil {
				return b, nil
			}
		}
		return nil, t.misfit(v, `pass a []byte, or a text such as \xff00`)
	}
	return nil, t.misfit(v, "pass a []byte")
}

// uuid returns a plain value as a uuid.
func (t *columnType) uuid(v any) (id [16]byte, err error) {
	switch v := v.(type) {
	case []byte:
		if len(v) == len(id) {
			return [16]byte(v), nil
		}
	case string:
		text := v
		if inner, ok := strings.CutPrefix(text, "{"); ok {
			if text, ok = strings.CutSuffix(inner, "}"); !ok {
				break
			}
		}
		var digits []byte
		for i := range len(text) {
			if text[i] == '-' && len(digits) > 0 && len(digits)%4 == 0 && text[i-1] != '-' && i+1 < len(text) {
				continue
			}
			digits = append(digits, text[i])
		}
		if len(digits) == 2*len(id) {
			if _, err := hex.Decode(id[:], digits); err == nil {
				return id, nil
			}
		}
	}
	return id, t.misfit(v, "it is not a uuid: pass 16 bytes, or a text of 32 hexadecimal digits")
}

// instant returns a plain value as a date or time.
func (t *columnType) instant(v any) (instant, error) {
	switch v := v.(type) {
	case time.Time:
		return instant{time: v, hasTime: true, hasZone: true}, nil
	case string:
		if i, ok := parseInstant(v); ok {
			return i, nil
		}
	}
	return instant{}, t.misfit(v, "pass a time.Time, or a text such as 2006-01-02 or 2006-01-02T15:04:05Z")
}

// day returns a plain value as a date in PostgreSQL's days.
func (t *columnType) day(v any) (int32, instant, error) {
	i, err := t.instant(v)
	if err != nil {
		return 0, i, err
	}
	day, ok := i.days()
	if !ok {
		if _, ok := i.microseconds(); ok && i.hasTime {
			return 0, i, t.misfit(v, "it has a time of day in UTC, which a date does not keep: truncate it in the function")
		}
		return 0, i, t.misfit(v, "it is out of range")
	}
	return day, i, nil
}

// moment returns a plain value as a timestamp in PostgreSQL's microseconds.
func (t *columnType) moment(v any) (int64, instant, error) {
	i, err := t.instant(v)
	if err != nil {
		return 0, i, err
	}
	us, ok := i.microseconds()
	if !ok {
		return 0, i, t.misfit(v, "it is out of range")
	}
	if i.infinity == 0 {
		err = t.checkPrecision(v, us, t.modifier)
	}
	return us, i, err
}

// checkPrecision returns an error if microseconds have more fractional digits than a type
// with that precision keeps.
func (t *columnType) checkPrecision(v any, us int64, precision int32) error {
	unit := int64(1)
	if precision >= 0 {
		for p := precision; p < 6; p++ {
			unit *= 10
		}
	}
	if us%unit != 0 {
		return t.misfit(v, "it has more digits behind the second than the column keeps: truncate it in the function")
	}
	return nil
}

// appendBinary appends a plain value, not nil, in the binary form of the type.
func (t *columnType) appendBinary(b []byte, v any) ([]byte, error) {
	switch t.kind {
	case kindBool:
		yes, err := t.boolean(v)
		if yes {
			return append(b, 1), err
		}
		return append(b, 0), err
	case kindInt2, kindInt4, kindInt8:
		i, err := t.integer(v)
		switch t.kind {
		case kindInt2:
			return binary.BigEndian.AppendUint16(b, uint16(i)), err
		case kindInt4:
			return binary.BigEndian.AppendUint32(b, uint32(i)), err
		default:
			return binary.BigEndian.AppendUint64(b, uint64(i)), err
		}
	case kindFloat4:
		f, err := t.float(v)
		return binary.BigEndian.AppendUint32(b, math.Float32bits(float32(f))), err
	case kindFloat8:
		f, err := t.float(v)
		return binary.BigEndian.AppendUint64(b, math.Float64bits(f)), err
	case kindNumeric:
		d, err := t.decimal(v)
		if err != nil {
			return b, err
		}
		return d.appendBinary(b), nil
	case kindBytea:
		raw, err := t.bytes(v)
		return append(b, raw...), err
	case kindUUID:
		id, err := t.uuid(v)
		return append(b, id[:]...), err
	case kindDate:
		day, _, err := t.day(v)
		return binary.BigEndian.AppendUint32(b, uint32(day)), err
	case kindTimestamp, kindTimestamptz:
		us, _, err := t.moment(v)
		return binary.BigEndian.AppendUint64(b, uint64(us)), err
	case kindJSON:
		return t.appendJSON(b, v)
	case kindJSONB:
		return t.appendJSON(append(b, 1), v) // version of jsonb's binary form
	default:
		text, err := t.str(v)
		return append(b, text...), err
	}
}

// appendText appends a plain value, not nil, in the text form that the server reads.
func (t *columnType) appendText(b []byte, v any) ([]byte, error) {
	switch t.kind {
	case kindBool:
		yes, err := t.boolean(v)
		return strconv.AppendBool(b, yes), err
	case kindInt2, kindInt4, kindInt8:
		i, err := t.integer(v)
		return strconv.AppendInt(b, i, 10), err
	case kindFloat4, kindFloat8:
		f, err := t.float(v)
		if err != nil {
			return b, err
		}
		bits := 64
		if t.kind == kindFloat4 {
			bits = 32
		}
		return decimalOfFloat(f, bits).appendText(b), nil
	case kindNumeric:
		d, err := t.decimal(v)
		if err != nil {
			return b, err
		}
		return d.appendText(b), nil
	case kindText, kindVarchar, kindBPChar, kindName, kindChar:
		text, err := t.str(v)
		return append(b, text...), err
	case kindBytea:
		raw, err := t.bytes(v)
		return hex.AppendEncode(append(b, `\x`...), raw), err
	case kindUUID:
		id, err := t.uuid(v)
		return hex.AppendEncode(b, id[:]), err
	case kindDate:
		_, i, err := t.day(v)
		return i.appendDate(b), err
	case kindTimestamp, kindTimestamptz:
		_, i, err := t.moment(v)
		return i.appendTime(b, t.kind == kindTimestamptz), err
	case kindTime, kindTimetz:
		return t.appendClock(b, v)
	case kindInterval:
		return t.appendInterval(b, v)
	case kindJSON, kindJSONB:
		return t.appendJSON(b, v)
	case kindBit, kindVarbit:
		return t.appendBits(b, v)
	case kindMoney:
		return t.appendMoney(b, v)
	case kindHstore:
		return t.appendHstore(b, v)
	case kindArray:
		return t.appendArray(b, v)
	case kindRange:
		return t.appendRange(b, v)
	case kindMultirange:
		return t.appendMultirange(b, v)
	case kindComposite:
		return t.appendComposite(b, v)
	case kindGeometry:
		if raw, ok := v.([]byte); ok { // extended well-known binary
			return hex.AppendEncode(b, raw), nil
		}
	case kindMAC:
		if raw, ok := v.([]byte); ok {
			if len(raw) != 6 && len(raw) != 8 {
				return b, t.misfit(v, "it is not 6 or 8 bytes long")
			}
			return hex.AppendEncode(b, raw), nil
		}
	default:
	}
	return t.appendOther(b, v)
}

// appendOther appends a plain value as a text that only the server interprets.
func (t *columnType) appendOther(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return append(b, v...), checkCharacters(v)
	case json.Number:
		return append(b, v...), checkCharacters(string(v))
	case bool:
		return strconv.AppendBool(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case uint64:
		return strconv.AppendUint(b, v, 10), nil
	case float64:
		if math.IsInf(v, 0) { // as PostgreSQL spells it
			return decimalOfFloat(v, 64).appendText(b), nil
		}
		return strconv.AppendFloat(b, v, 'g', -1, 64), nil
	case time.Time:
		return v.AppendFormat(b, time.RFC3339Nano), nil
	}
	return b, t.misfit(v, "pass it as the text that PostgreSQL reads")
}

// appendJSON appends a document: bytes are one already, any other value is
// encoded.
func (t *columnType) appendJSON(b []byte, v any) ([]byte, error) {
	var text []byte
	switch v := v.(type) {
	case []byte:
		text = v
	case json.RawMessage:
		text = v
	default:
		plain, _, err := plainJSON(v)
		if err == nil {
			text, err = json.Marshal(plain)
		}
		if err != nil {
			return b, t.misfit(v, err.Error())
		}
		if t.kind == kindJSONB && pgjson.HasForbiddenEscape(text) {
			return b, errEscape
		}
		return append(b, text...), nil
	}
	switch {
	case !functions.ValidJSON(text):
		return b, t.misfit(v, "it is not valid JSON")
	case !utf8.Valid(text):
		return b, errNotUTF8
	case t.kind == kindJSONB && pgjson.HasForbiddenEscape(text):
		return b, errEscape
	}
	return append(b, text...), nil
}

// plainJSON converts everything in a value to its plain form, and reports whether that
// changed it. It copies changed parts.
func plainJSON(v any) (plain any, changed bool, err error) {
	switch v := v.(type) {
	case nil, bool, int, int64, float64:
		return v, false, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, false, errNotUTF8
		}
		return v, false, nil
	case map[string]any:
		return plainMap(v)
	case functions.Row:
		return plainMap(v)
	case []any:
		return plainList(v)
	}
	plain, err = functions.Plain(v)
	if err != nil {
		return nil, false, err
	}
	switch plain.(type) {
	case []byte, json.RawMessage:
		return plain, true, nil
	}
	switch rv := reflect.ValueOf(plain); rv.Kind() {
	case reflect.Slice:
		list := make([]any, rv.Len())
		for i := range list {
			list[i] = rv.Index(i).Interface()
		}
		plain, _, err = plainList(list)
	case reflect.Map:
		m := make(map[string]any, rv.Len())
		for entries := rv.MapRange(); entries.Next(); {
			m[entries.Key().String()] = entries.Value().Interface()
		}
		plain, _, err = plainMap(m)
	case reflect.String:
		if !utf8.ValidString(rv.String()) {
			err = errNotUTF8
		}
	default:
	}
	return plain, true, err
}

func plainMap(m map[string]any) (any, bool, error) {
	if m == nil {
		return nil, true, nil
	}
	out, copied := m, false
	for name, v := range m {
		plain, changed, err := plainJSON(v)
		if err != nil {
			return nil, false, err
		}
		if !utf8.ValidString(name) {
			return nil, false, errNotUTF8
		}
		if !changed {
			continue
		}
		if !copied {
			out, copied = maps.Clone(m), true
		}
		out[name] = plain
	}
	return out, copied, nil
}

func plainList(list []any) (any, bool, error) {
	if list == nil {
		return nil, true, nil
	}
	out, copied := list, false
	for i, v := range list {
		plain, changed, err := plainJSON(v)
		if err != nil {
			return nil, false, err
		}
		if !changed {
			continue
		}
		if !copied {
			out, copied = append([]any{}, list...), true
		}
		out[i] = plain
	}
	return out, copied, nil
}
