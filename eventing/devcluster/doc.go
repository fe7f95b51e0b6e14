// Package devcluster starts what Tandem needs on one machine: PostgreSQL, NATS, and the
// source, the function and the ingest address of each cluster. Each is an operating-system
// process of its own under a [supervisor.Supervisor], so that a kill -9 is a real one.
//
// A [Deployment] is all of it, or a part: for `make run`, `make chat`, chaos, drills,
// benchmarks and tests. Its [Config] has the choices in which they differ.
//
// Package link has the links between them, which can be cut and slowed. Packages pgtest
// and natstest start the servers for tests.
//
// A server that cannot start returns an error of one line: what is wrong and what to do.
//
// devcluster is for development and tests. In production Kubernetes does this work:
// config/ has the manifests.
package devcluster
