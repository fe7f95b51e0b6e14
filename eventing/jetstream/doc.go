// Package jetstream makes NATS JetStream the stream of package eventing: a
// [Stream] to read from and a [Publisher] to store events with.
//
// # What is promised
//
//   - A connection that is lost is made again, for ever. A consumer that is
//     missing is made, with the settings that Tandem needs, and a stream that is
//     missing by who publishes to it; a stream that is there is left as it is.
//   - CloudEvents are written in the binary content mode of the NATS binding and
//     read in both. A message that is none has an identity of its own, which is
//     the same through a mirror.
//
// # What is not
//
// JetStream answers before its files are synced, unless the server is run with
// sync_interval: always. What it loses in a power failure, nobody gets back.
//
// # Design
//
// A consumer hands its unacknowledged messages out again only after AckWait, 90 s,
// which is as it must be while their source is alive and waits for a function. A
// source that was killed would wait that long for its own messages. So opening a
// [Stream] with messages outstanding sets AckWait to a moment and back. Resetting
// the consumer, which newer servers can, would hand out again whatever is above
// the floor, also what was acknowledged.
package jetstream
