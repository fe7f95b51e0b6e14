// Package devcluster runs what Tandem needs on one machine: PostgreSQL, a NATS
// server, and the parts of each cluster, every one an operating-system process
// of its own, so that a kill -9 is a real one.
//
// # What is promised
//
//   - A process that dies is started again after a second, as Kubernetes would,
//     until it is stopped for ever.
//   - [Supervisor.Stop] ends everything within five seconds, in the order that
//     the caller gives.
//   - On Linux nothing outlives its supervisor, even if that is killed with
//     SIGKILL: the kernel tells each process that its parent died.
//   - A process that cannot start gives an error of one line: what is wrong
//     and what to do.
//
// # What is not
//
// It is for trying out and for tests. Nothing here is a way to run Tandem in
// earnest: that is Kubernetes' work, and config/ has the manifests.
package devcluster
