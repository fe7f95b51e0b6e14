// Package cloudevent reads and writes CloudEvents as messages hold them: in
// binary content mode (attributes in headers, of HTTP and of NATS alike), in the
// JSON format and in the JSON batch format.
//
// # What is promised
//
//   - What came in one mode and is written in another stays the same event, but
//     for the types of extensions, since in headers all are text.
//   - What is read with the zero [Rules] is valid as [Check] says, so it can be
//     passed on in every mode. Whether it is taken, and as what, does not depend
//     on the order of headers, nor on whether the message came over HTTP or NATS.
//   - Events of version 0.3 are lifted to 1.0 and times are in UTC, so who reads
//     sees one form only.
//   - Errors are one line: which attribute, what is wrong with it, what is wanted.
//     They quote attributes and never data.
//
// # What is not
//
// Other formats (XML, Avro, Protobuf) are not read. How large a message may be is
// for whoever reads it to say. Data is kept byte for byte and not looked into: if
// it is said to be JSON and came in binary mode, it need not be.
//
// # Design
//
// The reading is our own and not the SDK's, because that one does not decode
// header values, panics on some JSON (a number for data_base64), cuts the fraction
// off a number, drops what follows an empty attribute name, and takes one of two
// ids. Fuzz targets hold the two side by side. Its [event.Event] is what comes out,
// since that is what functions know.
//
// All the house reads with this package, because one event must have one fate
// whichever way it comes: a message that one reader takes and another refuses
// would be committed by one cluster and be a dead letter in the other. What has to
// differ is in [Rules].
package cloudevent
