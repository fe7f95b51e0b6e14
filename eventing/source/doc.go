// Package source delivers the messages of one or more streams to one function, in one
// cluster, and acknowledges each message after the function has answered for it.
//
// A message's way through the package:
//
//   - consumer.go reads it from its stream, from the position that checkpoint.go finds;
//   - inflight.go holds it until it is acknowledged, and bounds memory;
//   - scheduler.go decides what happens next and when: a lookup in the ledger
//     (lookup.go, and catchup.go for a backlog), a wait (hedgecontroller.go), or a
//     delivery, which is in order if so configured (ordering.go, blocked.go);
//   - package delivery sends it, alone or in a batch (batch.go);
//   - ack.go acknowledges it, retries it or hands it back to the stream.
//
// savecheckpoint.go saves once a second how far the stream is acknowledged, saveattempts.go
// how often an event has failed; stalldetector.go has lost messages redelivered.
//
// # Design
//
// The package knows neither a stream's protocol nor the database: a stream implements
// [eventing.Stream], the database the small interfaces [Checkpoints], [Ledger],
// [Attempts] and [Blocked].
package source
