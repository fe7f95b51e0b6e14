// Package streamtest tests the guarantees of [eventing.Stream], limited to those that a
// source relies on. Every implementation passes [Run], on a real server of its kind that can
// be stopped and restarted. A stream with more guarantees tests them in its own package.
//
// # Guarantees
//
//   - Every cluster reads every published message, in the order of the stream and complete.
//     Sequences ascend; there may be gaps between them.
//   - Unacknowledged messages are redelivered: after the end of their reader, after Nak when
//     the stream is opened again, after a crash of the server. Messages below the floor are
//     not. Acknowledged messages above it may be redelivered to another reader.
//   - The floor never passes an unacknowledged message, and reaches the head when all are
//     acknowledged; then nothing is pending.
//   - A message that is not a CloudEvent has an identity, the same for every cluster and
//     every delivery. A recreated stream has another epoch.
//   - A consumer is created at the sequence that Begin returns, and not while Begin fails.
//   - Publish returns nil only after all events are stored. An event that is published again
//     may be stored again, with the same identity. Its error reports which events are not
//     stored, and which of them can never be stored; all others are stored.
package streamtest
