// Package ingest accepts CloudEvents over HTTP and stores them in a stream. It answers
// 202 only after the stream has stored them.
package ingest
