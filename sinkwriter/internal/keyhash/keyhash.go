// Package keyhash hashes the identity of an event, a writer or an output.
package keyhash

import (
	"crypto/sha256"
	"encoding/binary"
)

// Sum returns the SHA-256 of a domain byte and the parts. Each part is preceded by
// its length (4 bytes, big-endian), so that the boundaries between parts are
// unambiguous.
func Sum(domain byte, parts ...string) [sha256.Size]byte {
	var buf [256]byte
	b := append(buf[:0], domain)
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return sha256.Sum256(b)
}
