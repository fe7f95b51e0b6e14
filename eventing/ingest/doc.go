// Package ingest accepts CloudEvents over HTTP and stores them in a stream. It answers
// 202 only after the stream has stored them.
//
// # Design
//
// The memory of all requests together is bounded (budget.go). A request reserves what its
// body takes before the body is read, and waits for it for a moment; a body that is slow
// loses its memory to requests that wait. So many, large or slow requests are answered 503
// instead of ending the process, and small events pass by large ones.
//
// Health is that of the stream (health.go). An event that could not be stored is evidence
// that the stream stores nothing, unless the fault is the event's or its type's. A probe
// never waits for another one, nor longer than its bound.
package ingest
