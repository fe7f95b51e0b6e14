package functions

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// orderDigits is how many decimal digits at the end of an id count for its
// [Order]: 14, because 10^14 - 1 is the largest run of nines that fits in 48
// bits.
const orderDigits = 14

// outputDomain is the first byte of the hash of an output's id. It separates
// output ids from every other hash of the same parts.
const outputDomain = 0x02

// Order returns the order that an event id contains: at most 48 bits, so that
// ids that were created one after the other have keys that are adjacent in an
// index. The ledger's keys and the ids of outputs begin with it. Only the id
// counts, never the event's time: a producer may send the same id again with
// another time.
//
// The first rule that matches decides:
//
//  1. A UUIDv7 in canonical text, in either case (RFC 9562, section 5.7): its
//     first 48 bits, the milliseconds.
//  2. Decimal digits, '-', 16 lower-case hexadecimal digits, nothing else: the
//     value of the decimal digits. It is the id that a source assigns to a message
//     that is not a CloudEvent, the stream's sequence and a digest.
//  3. Anything that ends in ASCII decimal digits: their value. 4. Anything else
//
// has no order, and ok is false.
//
// In rules 2 and 3 only the last 14 digits count.
//
// The rule must never change: another one would assign another key to events
// that are in the ledger, and they would be applied again. testdata/order.tsv
// holds vectors for other implementations.
func Order(id string) (order uint64, ok bool) {
	if order, ok = uuidV7Millis(id); ok {
		return order, true
	}
	const digest = 16
	if dash := len(id) - digest - 1; dash > 0 && id[dash] == '-' && lowerHex(id[dash+1:]) && digitsFrom(id[:dash]) == 0 {
		return digitsValue(id[:dash]), true
	}
	if digitsFrom(id) == len(id) {
		return 0, false
	}
	return digitsValue(id), true
}

// OutputIdentity derives the identity of the output at position among the
// outputs that function computed from the event with this source and id. It is
// the same in every cluster and on every retry, and differs from that of every
// other output.
//
// OutSource is "/tandem/" and the function's name. OutID is formatted as a
// UUIDv7. Its upper 48 bits are [Order] of id, or the first bits of the hash if
// id has no order. The other bits, except for version and variant, are the bits
// at the same positions of the SHA-256 of the byte 0x02, then function, source
// and id, each preceded by its length (4 bytes, big-endian), and position (8
// bytes, big-endian). testdata/output_identity.tsv holds vectors.
func OutputIdentity(function, source, id string, position int) (outSource, outID string) {
	return "/tandem/" + function, outputID(function, source, id, position)
}

func outputID(function, source, id string, position int) string {
	// Enough for common names; append moves longer ones to the heap.
	var space [512]byte
	b := append(space[:0], outputDomain)
	b = appendPart(b, function)
	b = appendPart(b, source)
	b = appendPart(b, id)
	b = binary.BigEndian.AppendUint64(b, uint64(position))
	sum := sha256.Sum256(b)

	var u [16]byte
	copy(u[:], sum[:])
	if order, ok := Order(id); ok {
		u[0], u[1], u[2] = byte(order>>40), byte(order>>32), byte(order>>24)
		u[3], u[4], u[5] = byte(order>>16), byte(order>>8), byte(order)
	}
	return uuidV7(u)
}

func appendPart[T string | []byte](b []byte, part T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
	return append(b, part...)
}

// uuidV7 returns u as canonical text, with the bits of version and variant set.
func uuidV7(u [16]byte) string {
	u[6] = u[6]&0x0f | 0x70 // version 7
	u[8] = u[8]&0x3f | 0x80 // variant of RFC 9562
	var text [36]byte
	hex.Encode(text[0:8], u[0:4])
	text[8] = '-'
	hex.Encode(text[9:13], u[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], u[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], u[8:10])
	text[23] = '-'
	hex.Encode(text[24:36], u[10:16])
	return string(text[:])
}

// uuidV7Millis returns the first 48 bits of a UUIDv7 in canonical text.
func uuidV7Millis(id string) (millis uint64, ok bool) {
	if len(id) != 36 || id[14] != '7' {
		return 0, false
	}
	for i := range len(id) {
		c := id[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return 0, false
			}
			continue
		}
		nibble, ok := hexNibble(c)
		if !ok || i == 19 && nibble>>2 != 0b10 {
			return 0, false
		}
		if i < 13 {
			millis = millis<<4 | uint64(nibble)
		}
	}
	return millis, true
}

func hexNibble(c byte) (nibble byte, ok bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// digitsFrom returns the index of the run of decimal digits at the end of s;
// len(s) if there is none.
func digitsFrom(s string) int {
	i := len(s)
	for i > 0 && s[i-1] >= '0' && s[i-1] <= '9' {
		i--
	}
	return i
}

// digitsValue returns the value of the last, at most 14, decimal digits at
// the end of s.
func digitsValue(s string) (value uint64) {
	for i := max(digitsFrom(s), len(s)-orderDigits); i < len(s); i++ {
		value = value*10 + uint64(s[i]-'0')
	}
	return value
}
