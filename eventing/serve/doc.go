// Package serve takes CloudEvents over HTTP, has the right function compute
// their Effects, has these committed, and answers with a status that says whose
// fault it was if that did not work.
//
// # What is promised
//
//   - 204 is answered only after the committer said that the event is committed,
//     now or before. The header Tandem-Receipt says "won" or "lost", Tandem-Key
//     has the event's key in the ledger.
//   - 400, 413 and 415: what came is no valid CloudEvent. 422: it is one, but can
//     never work, or no function takes its type. 500: the function broke on it
//     (error, panic, deadline). 503, with Retry-After: anything else, none of it
//     the event's fault. 401 and 403: whoever sent it may not. Bodies of errors are
//     text, one line, or for a batch one line for each event that was refused.
//   - A batch is answered with 2xx only if every event in it is committed. They are
//     offered to the committer together, and each has its own fate.
//   - An answer is given within Config.Deadline and Config.CommitTimeout after
//     the request has been read, whatever the function does. What was begun is
//     finished though its sender has gone.
//   - Of an event's data nothing is logged.
//
// # What is not
//
// A function that ignores its context cannot be stopped; it is left behind and
// counted, and [Handler.Alive] says when there are too many of them.
//
// # Design
//
// The codes are the ones that Knative Eventing acts upon: it gives up at once on
// 400, 413, 415 and 422 (dead letter), and tries again on 500, 503 and 404. So a
// path that does not exist, a fault of whoever set the address, is not held against
// the event.
//
// Messages are read by package cloudevent, of version 0.3 too. An event sent here
// is the same to its function as if it had come through a stream.
package serve
