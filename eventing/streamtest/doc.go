// Package streamtest tests what [eventing.Stream] promises, in the smallest form that a
// source relies on: every implementation passes [Run], on a real server of its kind that
// can be stopped and started again. A stream that promises more tests that in its own
// package.
//
// # What is promised
//
//   - Every cluster reads every published message, in the order of the stream and complete.
//     Sequences ascend; there may be gaps between them.
//   - Messages that were not acknowledged are redelivered: after the end of their reader,
//     after Nak when the stream is opened again, after a crash of the server. Messages below
//     the floor are not. Of those above it, acknowledged ones may be redelivered to another
//     reader.
//   - The floor never passes an unacknowledged message, and reaches the head when all are
//     acknowledged; then nothing is pending.
//   - A message that is no CloudEvent has an identity, the same for every cluster and every
//     time. A recreated stream has another epoch.
//   - A consumer is created at the sequence that Begin returns, and not while Begin fails.
//   - Publish returns nil only after all events are stored. An event that is published again
//     may be stored again, with the same identity. Its error reports which events are not
//     stored, and which of them never will be; all others are.
package streamtest
