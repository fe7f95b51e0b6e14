package sinkwriter

import (
	"strconv"
	"strings"
	"time"
)

// instant is a date, a time of day, or both, parsed from a text or a [time.Time].
type instant struct {
	time     time.Time // in UTC
	hasTime  bool
	hasZone  bool
	infinity int // -1 or 1
}

// Units of PostgreSQL: days and microseconds since 2000-01-01, from 4713 BC on.
const (
	epochDays              = 10_957 // in Unix time
	epochSeconds           = epochDays * secondsPerDay
	secondsPerDay          = 24 * 60 * 60
	minDay, endDay         = -2_451_545, 2_145_031_949
	minSecond, endSecond   = minDay * secondsPerDay, 9_223_371_331_200
	infinityDay, earlyDay  = 1<<31 - 1, -1 << 31
	infinityTime, earlyTim = 1<<63 - 1, -1 << 63
)

// days returns the date in PostgreSQL's days. It returns false if the instant has a time of
// day, or if PostgreSQL cannot store it.
func (i instant) days() (day int32, ok bool) {
	switch {
	case i.infinity > 0:
		return infinityDay, true
	case i.infinity < 0:
		return earlyDay, true
	}
	s := i.time.Unix()
	if s%secondsPerDay != 0 || i.time.Nanosecond() != 0 {
		return 0, false
	}
	d := s/secondsPerDay - epochDays
	return int32(d), d >= minDay && d < endDay
}

// microseconds returns the time in PostgreSQL's microseconds. It returns false if
// PostgreSQL cannot store it.
func (i instant) microseconds() (us int64, ok bool) {
	switch {
	case i.infinity > 0:
		return infinityTime, true
	case i.infinity < 0:
		return earlyTim, true
	}
	s := i.time.Unix() - epochSeconds
	if s < minSecond || s >= endSecond {
		return 0, false
	}
	return s*1_000_000 + int64(i.time.Nanosecond()/1000), true
}

// textReader reads a text from its beginning.
type textReader struct{ rest string }

// number reads between least and most digits.
func (r *textReader) number(least, most int) (int, bool) {
	n := 0
	for n < len(r.rest) && n < most && r.rest[n] >= '0' && r.rest[n] <= '9' {
		n++
	}
	if n < least {
		return 0, false
	}
	i, err := strconv.Atoi(r.rest[:n])
	r.rest = r.rest[n:]
	return i, err == nil
}

// skip reads the next character if it is one of characters.
func (r *textReader) skip(characters string) bool {
	if r.rest == "" || strings.IndexByte(characters, r.rest[0]) < 0 {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

// parseInstant parses a date, or a date and a time, in the forms of RFC 3339, ISO 8601 and
// PostgreSQL: 2006-01-02, 2006-01-02T15:04:05.999999Z, 2006-01-02 15:04:05+02, infinity. It
// accepts no names of time zones and no words such as now, because they have another meaning
// on another server or at another time. Without a zone the time is UTC. Digits after the
// microseconds are dropped, as for a [time.Time].
func parseInstant(s string) (instant, bool) {
	s = strings.Trim(s, " ")
	switch strings.ToLower(s) {
	case "infinity", "+infinity":
		return instant{infinity: 1}, true
	case "-infinity":
		return instant{infinity: -1}, true
	}
	before := false // BC
	if rest, ok := strings.CutSuffix(s, " BC"); ok {
		s, before = rest, true
	}
	r := textReader{s}
	year, ok := r.number(4, 6)
	if !ok || !r.skip("-") || before && year == 0 {
		return instant{}, false
	}
	if before {
		year = 1 - year
	}
	month, ok := r.number(2, 2)
	if !ok || !r.skip("-") {
		return instant{}, false
	}
	day, ok := r.number(2, 2)
	if !ok {
		return instant{}, false
	}
	i := instant{time: time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)}
	if i.time.Month() != time.Month(month) || i.time.Day() != day {
		return instant{}, false // 30 February
	}
	if r.skip("Tt ") {
		clock, offset, hasZone, ok := r.clock()
		if !ok {
			return instant{}, false
		}
		i.hasTime, i.hasZone = true, hasZone
		i.time = i.time.Add(clock - offset)
	}
	return i, r.rest == ""
}

// clock reads a time of day, and a zone if there is one.
func (r *textReader) clock() (clock, offset time.Duration, hasZone, ok bool) {
	hour, ok := r.number(2, 2)
	if !ok || !r.skip(":") {
		return 0, 0, false, false
	}
	minute, ok := r.number(2, 2)
	if !ok {
		return 0, 0, false, false
	}
	second, fraction := 0, time.Duration(0)
	if r.skip(":") {
		if second, ok = r.number(2, 2); !ok {
			return 0, 0, false, false
		}
		if r.skip(".,") {
			if fraction, ok = r.fraction(); !ok {
				return 0, 0, false, false
			}
		}
	}
	clock = time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second + fraction
	if minute > 59 || second > 59 || clock > 24*time.Hour {
		return 0, 0, false, false
	}
	if r.rest == "" {
		return clock, 0, false, true
	}
	offset, ok = r.zone()
	return clock, offset, true, ok
}

// fraction reads the digits after a decimal point as microseconds.
func (r *textReader) fraction() (time.Duration, bool) {
	const digits = 6
	n := len(r.rest) - len(strings.TrimLeft(r.rest, "0123456789"))
	if n == 0 {
		return 0, false
	}
	text := (r.rest[:n] + "000000")[:digits]
	r.rest = r.rest[n:]
	us, err := strconv.Atoi(text)
	return time.Duration(us) * time.Microsecond, err == nil
}

// zone reads Z, or an offset such as +02, +0200, +02:00 or +02:00:30.
func (r *textReader) zone() (time.Duration, bool) {
	r.skip(" ")
	if r.skip("Zz") {
		return 0, true
	}
	negative := strings.HasPrefix(r.rest, "-")
	if !r.skip("+-") {
		return 0, false
	}
	offset := time.Duration(0)
	for i, unit := range [...]time.Duration{time.Hour, time.Minute, time.Second} {
		if i > 0 && r.rest == "" {
			break
		}
		if i > 0 {
			r.skip(":")
		}
		n, ok := r.number(2, 2)
		if !ok || n > 59 {
			return 0, false
		}
		offset += time.Duration(n) * unit
	}
	if offset >= 16*time.Hour { // more than PostgreSQL accepts
		return 0, false
	}
	if negative {
		offset = -offset
	}
	return offset, true
}
