package eventing

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"net/url"
	"slices"
	"strconv"
)

// MessageType is the CloudEvent type of a message that is not a CloudEvent.
const MessageType = "io.github.tandem-fn.message"

// MessageID returns the id by which a stream deduplicates an event: the SHA-256 of the
// event's source and id, each preceded by its length (4 bytes, big-endian), in
// hexadecimal. The id alone would not do, because two sources may use the same one.
// testdata/message_id.tsv holds vectors.
func MessageID(source, id string) string {
	// Large enough for usual identities; append moves longer ones to the heap.
	var space [256]byte
	b := appendPart(space[:0], source)
	b = appendPart(b, id)
	sum := sha256.Sum256(b)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], sum[:])
	return string(text[:])
}

// Origin is the place in which a message was stored first. If a stream copies another
// one, as a mirror does, its messages have the origin of the copied stream.
type Origin struct {
	Stream   string
	Sequence uint64
}

// Identity returns the source and id of a message that is not a CloudEvent. They are
// the same in every cluster and through every copy of the stream. They differ if the
// stream was deleted and recreated with other messages.
//
// The source is "/tandem/streams/" and the stream's name, escaped as a segment of a
// path. The id is the sequence in decimal, '-', and the first 8 bytes of a SHA-256 in
// hexadecimal. The hash covers the subject, then name and value of each header, in the
// order of the names and of the values under one name, then the data, each preceded by
// its length (4 bytes, big-endian).
//
// The rule must never change: with another one, every stream would be applied a second
// time. testdata/identity.tsv holds vectors.
func (o Origin) Identity(subject string, header map[string][]string, data []byte) (source, id string) {
	hash := sha256.New()
	part := func(b []byte) {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(b)))
		hash.Write(length[:])
		hash.Write(b)
	}
	part([]byte(subject))
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			part([]byte(name))
			part([]byte(value))
		}
	}
	part(data)
	digest := hash.Sum(nil)[:8]
	return "/tandem/streams/" + url.PathEscape(o.Stream),
		strconv.FormatUint(o.Sequence, 10) + "-" + hex.EncodeToString(digest)
}

func appendPart(b []byte, part string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
	return append(b, part...)
}
