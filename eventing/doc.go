// Package eventing defines the terms that everything which speaks to a stream or over
// HTTP shares: [Stream], [Reader] and [Message], [Publisher], the identity of messages
// ([Origin]), how much redundancy a cluster wants ([Hedge]), and the names of headers
// and extensions.
//
// The packages below it each do one thing:
//
//   - source delivers the messages of a stream to a function and acknowledges them;
//   - delivery is one event's way to the function, with its attempts and outcome;
//   - sink is an HTTP address that accepts CloudEvents: credentials, requests, outputs;
//   - ingest accepts CloudEvents over HTTP and stores them in a stream;
//   - relay publishes outputs that their winner did not live to publish;
//   - serve answers CloudEvents over HTTP with functions, process runs it;
//   - jetstream is NATS JetStream as a stream, streamtest the tests of every stream;
//   - telemetry serves metrics and health, devcluster starts clusters on one machine.
//
// # Guarantees
//
//   - A message is acknowledged to its stream only after the function, or the dead
//     letter sink, answered 2xx. If any process dies before, the message is redelivered.
//   - Every message has an identity, source and id, that is the same in every cluster
//     and on every delivery: the CloudEvent's own, or that of [Origin.Identity].
//   - An answer that is not the event's fault does not count against the event: it is
//     retried for as long as it takes.
//
// A message is delivered at least once; the ledger behind the function makes one effect
// of it. Messages are unordered, unless the source orders them by subject.
package eventing
