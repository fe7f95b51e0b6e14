// Package jetstream implements the stream of package eventing on NATS JetStream: a
// [Stream] to read from and a [Publisher] that stores events.
//
// # Guarantees
//
//   - A lost connection is reconnected without limit. A missing consumer is created with
//     the settings that Tandem needs. A missing stream is created by its publishers. An
//     existing stream is not changed.
//   - CloudEvents are written in the binary content mode of the NATS binding and read in
//     both modes. A message that is not a CloudEvent has an identity of its own, which is
//     the same through a mirror.
//
// # Limits
//
// JetStream answers before its files are synced, unless the server runs with
// sync_interval: always. Messages that it loses in a power failure are lost.
//
// # Design
//
// A consumer redelivers unacknowledged messages only after AckWait, 90 s. It must be
// that long while their source runs and waits for a function. A source that was killed
// would wait that long for its own messages. So opening a [Stream] with outstanding
// messages briefly reduces AckWait. Resetting the consumer, which newer servers can do,
// would redeliver everything above the floor, including acknowledged messages.
package jetstream
