// Package devcluster starts Tandem on one machine: PostgreSQL, NATS, and the source, the
// function and the ingest address of each cluster. Each is an operating-system process
// under a [supervisor.Supervisor], so that a kill -9 is a real one.
//
// A [Deployment] is all of it, or a part: for `make run`, `make chat`, chaos, drills,
// benchmarks and tests. They differ in its [Config].
//
// Package link has the links between processes, which can be cut and slowed. Packages
// pgtest and natstest start the servers for tests.
//
// A server that cannot start returns an error of one line: the cause and what to do.
//
// devcluster is for development and tests. In production Kubernetes does this work:
// config/ has the manifests.
package devcluster
