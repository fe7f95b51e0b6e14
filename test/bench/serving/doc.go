// Package serving measures what it costs to take an event over HTTP: the endpoint as
// it is served, with func's server and a writer that commits nothing, beside a bare
// net/http handler that reads the body and answers 204.
//
// # What is promised
//
//   - Each server is a process of its own and is sent the same bytes by the same
//     generator over as many connections; the rounds go round robin.
//   - Server and generator have cores of their own, as many as there are to share, so
//     that what the generator costs does not stand in the figures. If the server was
//     not busy, the generator was the limit, and that is said.
//   - Every answer is looked at; one that is not 204 is an error.
//   - [Instance] measures the real instance, built as for an image, on a database that
//     it commits to.
//
// # What is not
//
// The generator is on the same machine, and the network is its loopback.
package serving
