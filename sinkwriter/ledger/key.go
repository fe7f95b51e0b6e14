package ledger

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/internal/keyhash"
)

// Key is the ledger's key of one event for one function. Keys compare bytewise.
// If the ids have an order (a UUIDv7, digits at the end), their keys have the
// same order, so that new keys are inserted close to each other in the index.
//
// The rule must never change, because every stream would be applied again.
// Version 1 has 16 bytes: the upper 6 are [functions.Order] of the id, or bytes
// 10 to 15 of the hash for an id without order; the lower 10 are bytes 0 to 9 of
// the hash. The hash is SHA-256 of the byte 1 followed by function, source and id
// in UTF-8, each preceded by its length as 4 bytes, big-endian. The SQL function
// tandem.key returns the same key.
type Key [16]byte

// NewKey returns the key of the event (source, id) for a function. The
// event's time is not part of it, because a producer may send the same id
// again with another time.
func NewKey(function, source, id string) Key {
	h := keyhash.Sum(1, function, source, id)
	var k Key
	if order, ok := functions.Order(id); ok {
		k[0], k[1] = byte(order>>40), byte(order>>32)
		binary.BigEndian.PutUint32(k[2:], uint32(order))
	} else {
		copy(k[:6], h[10:16])
	}
	copy(k[6:], h[:10])
	return k
}

// String returns the key in the form of a UUID, as PostgreSQL prints it.
func (k Key) String() string {
	var b [36]byte
	hex.Encode(b[0:8], k[0:4])
	hex.Encode(b[9:13], k[4:6])
	hex.Encode(b[14:18], k[6:8])
	hex.Encode(b[19:23], k[8:10])
	hex.Encode(b[24:36], k[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}
