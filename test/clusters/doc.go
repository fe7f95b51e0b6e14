// Package clusters holds the end-to-end tests: real processes of two or three clusters, a real
// PostgreSQL and a real NATS server, and thousands of events (make clusters: 20,000 in each
// test). A test kills every kind of process. Every total must be exact, and every output must
// exist with a single id.
package clusters
