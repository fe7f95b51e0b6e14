// Package serving measures the cost of accepting an event over HTTP. It compares the
// endpoint as it is served, with func's server and a writer that commits nothing, with
// a bare net/http handler that reads the body and answers 204.
//
// # Guarantees
//
//   - Each server is a process of its own and receives the same bytes from the same generator over the same number of connections; the rounds go round robin.
//   - Server and generator have cores of their own, as many as there are to share, so that the figures do not include the cost of the generator. If the server was not busy, the
//     generator was the limit, and the report mentions it.
//   - Every answer is checked; any status other than 204 is an error.
//   - [Instance] measures the real instance, built as for an image, on a database that it commits to.
//
// # Not guaranteed
//
// The generator runs on the same machine, and the network is its loopback interface.
package serving
