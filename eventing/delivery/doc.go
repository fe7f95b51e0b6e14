// Package delivery sends events to a function over HTTP, one per request in the binary
// content mode or several in the batch mode, and maps each answer to an outcome: the
// event is accepted, retried, counted as a failed attempt, or rejected and turned into a
// dead letter.
package delivery
