// Package delivery sends events to a function over HTTP, one per request in the binary
// content mode or several in the batch mode, and decides what an answer means: the event
// is accepted, retried, counted as a failed attempt, or rejected and made a dead letter.
package delivery
