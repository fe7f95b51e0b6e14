package functions

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2" //nolint:depguard // seeded from the event, never from the process
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// The first byte of each hash, which separates values that are derived for
// different purposes from the same parts.
const (
	idDomain    = 0x03
	int64Domain = 0x04
	randDomain  = 0x05
)

const (
	// int64TimeBits bits of milliseconds last until the year 2109; the
	// remaining bits of 63 are derived.
	int64TimeBits    = 42
	int64DerivedBits = 63 - int64TimeBits
)

// Time returns the time of an event, in UTC: its time attribute; if it has none, the
// milliseconds in its id if that is a UUIDv7; otherwise the zero time. A function that
// needs a time should [Reject] an event whose Time is zero, and never use a clock.
//
// The producer sets the time. Only stored values should depend on it, and a producer
// that sends an event again should send the same time.
func Time(e event.Event) time.Time {
	if at := e.Time(); !at.IsZero() {
		return at.UTC()
	}
	if millis, ok := uuidV7Millis(e.ID()); ok {
		return time.UnixMilli(int64(millis)).UTC()
	}
	return time.Time{}
}

// ID returns an id for an object that the event creates: a UUIDv7 (RFC 9562) with the
// event's time. It is the same in every cluster, on every retry and in every version of
// the function, and differs for every name, and for every index under a name:
//
//	order := functions.ID(e, "order")
//	for i, line := range data.Lines {
//		fx.Insert("lines", functions.Row{"id": functions.ID(e, "line", i), "order": order, …})
//	}
//
// A name must never change: another name returns another id. Two functions that use the
// same name for the same event get the same id, so that one can refer to rows of the
// other; to prevent that, choose different names.
//
// Its upper 48 bits are the milliseconds of [Time], 0 before 1970. If that is zero they
// are [Order] of the event's id, and if it has none the first bits of the hash. The other
// bits, except for version and variant, are the bits at the same positions of the SHA-256
// of the byte 0x03, then source, id and name, each preceded by its length (4 bytes,
// big-endian), the number of indexes (4 bytes) and the indexes (8 bytes each).
// testdata/derived.tsv holds vectors.
func ID(e event.Event, name string, index ...int) string {
	sum := derive(idDomain, e, name, index)
	var u [16]byte
	copy(u[:], sum[:])
	if begin, ok := timeOrOrder(e); ok {
		u[0], u[1], u[2] = byte(begin>>40), byte(begin>>32), byte(begin>>24)
		u[3], u[4], u[5] = byte(begin>>16), byte(begin>>8), byte(begin)
	}
	return uuidV7(u)
}

// Int64 returns an [ID] as a positive integer of 63 bits, similar to a Snowflake id, for
// tables with numeric keys. Numbers that differ only in the last index are guaranteed to
// differ if the indexes are less than 2^21 apart. Between events, collisions are possible:
// for two events in the same millisecond the probability is 1 in 2^21. That is one an hour
// at 1,000 events a second and one in five days at 100. Use ID where two rows must not
// collide.
//
// Its upper 42 bits are the lower 42 of the milliseconds in the upper 48 bits of [ID]. The
// other 21 are the first 21 bits of the SHA-256 as in ID, with the byte 0x04 and 0 for the
// last index, plus the last index, modulo 2^21. If there is neither a time nor an order,
// the upper 42 bits are the next 42 of the hash. testdata/derived.tsv holds vectors.
func Int64(e event.Event, name string, index ...int) int64 {
	var last int
	var space [8]int
	if n := len(index); n > 0 {
		last = index[n-1]
		index = append(space[:0], index...)
		index[n-1] = 0
	}
	sum := derive(int64Domain, e, name, index)
	bits := binary.BigEndian.Uint64(sum[:])
	derived := (bits>>(64-int64DerivedBits) + uint64(last)) & (1<<int64DerivedBits - 1)
	begin, ok := timeOrOrder(e)
	if !ok {
		begin = bits >> 1
	}
	return int64(begin&(1<<int64TimeBits-1)<<int64DerivedBits | derived)
}

// Rand returns a generator of random numbers. Its sequence is the same in every
// cluster, on every retry and in every version of the function, and differs for every
// event, name and index. It is not safe for concurrent use. The numbers are not secret:
// they can be computed from the event.
//
// It is ChaCha8 of math/rand/v2, seeded with the SHA-256 as in [ID] with the byte 0x05.
// testdata/derived.tsv holds vectors.
func Rand(e event.Event, name string, index ...int) *rand.Rand {
	return rand.New(rand.NewChaCha8(derive(randDomain, e, name, index)))
}

// timeOrOrder returns the first bits, at most 48, of ids that are derived from e.
func timeOrOrder(e event.Event) (bits uint64, ok bool) {
	if at := Time(e); !at.IsZero() {
		return uint64(max(0, at.UnixMilli())), true
	}
	return Order(e.ID())
}

// derive hashes the parts that distinguish derived values. The time is not one of
// them: a producer may send the same event again with another time.
func derive(domain byte, e event.Event, name string, index []int) [sha256.Size]byte {
	// Enough for common lengths; append moves longer ones to the heap.
	var space [512]byte
	b := append(space[:0], domain)
	b = appendPart(b, cloudevent.Source(e))
	b = appendPart(b, e.ID())
	b = appendPart(b, name)
	b = binary.BigEndian.AppendUint32(b, uint32(len(index)))
	for _, i := range index {
		b = binary.BigEndian.AppendUint64(b, uint64(int64(i)))
	}
	return sha256.Sum256(b)
}
