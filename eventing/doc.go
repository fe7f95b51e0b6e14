// Package eventing brings events from shared streams to a function and back:
// a [Source] delivers what a [Stream] holds over HTTP, a relay publishes what a
// dead winner left behind, and [Ingest] takes events in.
//
// # What is promised
//
//   - A message is acknowledged to its stream only after the function, or the
//     dead letter sink, answered 2xx. Whatever dies in between is delivered
//     again, by this process or the next one.
//   - Every message has an identity, source and id, that is the same in every
//     cluster and on every delivery: the CloudEvent's own, or for a message that
//     is none the one of [Origin.Identity].
//   - An answer that is not the event's fault is never held against it: the
//     source waits and tries again, for as long as it takes.
//
// # What is not
//
// A message is delivered at least once, and again after a crash or a lost
// acknowledgement; the ledger behind the function makes one effect of it.
// Nothing is promised about order, unless [SourceConfig.Ordered].
//
// # Design
//
// The package knows neither a stream's protocol nor the database: a stream
// implements [Stream], [Reader] and [Message], whoever stores progress and
// outputs implements [ProgressSaver] and [Relay], and the main packages under
// cmd join them.
package eventing
