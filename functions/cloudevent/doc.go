// Package cloudevent reads and writes CloudEvents in binary content mode
// (attributes in headers, of HTTP and of NATS alike), in the JSON format and in the
// JSON batch format.
//
// # Guarantees
//
//   - An event that is read in one mode and written in another stays the same, except for the types of extensions: in headers all are
//     text.
//   - An event that is read with the zero [Rules] is valid according to [Check], so it can be forwarded in every mode. Whether and how it
//     is accepted does not depend on the order of headers, nor on the transport, HTTP or NATS.
//   - Events of version 0.3 are converted to 1.0 and times are in UTC, so that functions see one form only.
//   - Errors are one line: the attribute, the problem, and the expected form. They quote attributes and never data.
//
// # Not guaranteed
//
// Other formats (XML, Avro, Protobuf) are not read. The caller has to limit the
// size of messages. Data is kept byte for byte and not parsed: data that is
// declared as JSON and was read in binary mode may be invalid JSON.
//
// # Design
//
// The reader is our own and not the SDK's. The SDK does not decode header values,
// panics on some JSON (a number for data_base64), truncates the fraction of a
// number, ignores everything after an empty attribute name, and picks one of two
// ids. Fuzz targets compare the two. The reader returns the SDK's [event.Event],
// because that is the type that functions know.
//
// All of Tandem's programs read events with this package, because an event must
// have the same outcome on every path: a message that one reader accepts and
// another rejects would be committed by one cluster and become a dead letter in the
// other. Necessary differences are in [Rules].
package cloudevent
