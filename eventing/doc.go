// Package eventing declares the terms shared by everything that reads or writes a stream
// or speaks HTTP: [Stream], [Reader] and [Message], [Publisher], the identity of
// messages ([Origin]), the redundancy of a cluster ([Hedge]), and the names of headers
// and extensions.
//
// Each package below it has one subject:
//
//   - source delivers the messages of a stream to a function and acknowledges them;
//   - delivery sends one event to the function: its attempts and its outcome;
//   - sink is an HTTP address that accepts CloudEvents: credentials, requests, outputs;
//   - ingest accepts CloudEvents over HTTP and stores them in a stream;
//   - relay publishes outputs that their winner left in the outbox;
//   - serve answers CloudEvents over HTTP with functions, process runs it;
//   - jetstream implements Stream on NATS JetStream, streamtest tests every Stream;
//   - telemetry serves metrics and health, devcluster starts clusters on one machine.
//
// # Guarantees
//
//   - A message is acknowledged to its stream only after the function, or the dead
//     letter sink, answered 2xx. If a process ends before that, the message is redelivered.
//   - Every message has an identity, source and id, that is the same in every cluster
//     and on every delivery: the CloudEvent's own, or that of [Origin.Identity].
//   - A failure that the event did not cause does not count against the event: it is
//     retried until it is over.
//
// A message is delivered at least once. The ledger behind the function applies its
// effects once. Messages are unordered, unless the source orders them by subject.
package eventing
