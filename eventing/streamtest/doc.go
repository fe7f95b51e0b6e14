// Package streamtest says what an [eventing.Stream] is, as tests that every
// implementation must pass: [Run] is called by a test of each. It needs a real
// server of the kind, that can be stopped and started again.
//
// # What is promised
//
//   - What was published is read by every cluster, in the order of the stream,
//     with all that it had, and once if nothing goes wrong.
//   - What was not acknowledged comes again: when its reader has gone, when it was
//     handed back, when the server was killed. What was acknowledged does not,
//     whoever reads.
//   - The floor never passes what is not acknowledged, and gets to where all is.
//   - A message that is no CloudEvent has an identity of its own, the same for
//     every cluster and every time. A stream that was made again is another one.
//   - A place is made where it is told to begin, and nowhere while nobody can say.
//   - Whoever publishes is told nothing before all is stored, and what is
//     published again is stored once, by source and id.
package streamtest
