// Package ingest accepts CloudEvents over HTTP and stores them in a stream. It answers 202
// only after the stream has stored them.
//
// # Design
//
// The memory of all requests together is bounded (budget.go). A request reserves memory
// before its body is read, and waits up to two seconds for it. A slow body loses its
// memory to requests that wait. So many, large or slow requests are answered with 503
// instead of exhausting the memory of the process, and small events overtake large ones.
//
// The health of ingest is that of the stream (health.go). An event that could not be
// stored is evidence that the stream stores nothing, unless the event or its type is the
// cause. A probe waits neither for another one nor longer than its timeout.
package ingest
