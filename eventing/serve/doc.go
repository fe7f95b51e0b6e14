// Package serve accepts CloudEvents over HTTP, calls the function of each event's type, commits the
// Effects that it returns, and answers with a status that tells a sender whether to retry.
//
// # Guarantees
//
//   - 204 is answered only after the committer has confirmed that the event is
//     committed, now or before. The header Tandem-Receipt is "won" or "lost",
//     Tandem-Key is the event's key in the ledger.
//   - 400, 413 and 415: the request is not a valid CloudEvent. 422: it is valid, but can
//     never succeed, or no function has its type. 500: the function broke on it
//     (error, panic, deadline). 503, with Retry-After: any other error, none of it
//     attributable to the event; its header Tandem-Outcome is deployment, with the missing
//     object, if only a migration or a grant can help. 401 and 403: the sender is
//     unauthenticated, or not allowed to send. Bodies of errors are text: one line, or
//     one line for each rejected event of a batch.
//   - Each event of a batch has its own outcome. A sender that accepts the type of
//     package outcome receives them all, whatever the status, and as soon as most events
//     are decided: a slow event is pending, and computed and committed without the sender.
//     For other senders a batch is answered when all events are decided, and with 2xx only
//     if every event in it is committed.
//   - An event is computed once at a time in this process. An event that is sent again
//     while it is computed shares that computation and its outcome. The outcome of an
//     event whose sender did not receive it is kept for a minute.
//   - Every answer states how many events and bytes a request may have.
//   - A request is answered within Config.Deadline and Config.CommitTimeout after it
//     was read, even if a function hangs. Work that has begun is finished even if the
//     sender disconnects.
//   - The data of an event is not logged.
//
// # Limits
//
// A function that ignores its context cannot be stopped. Its call is abandoned and counted, and
// [Handler.Alive] returns an error if there are too many of them.
//
// The computation of events continues after their batch was answered, for up to Config.MaxPending
// events. Above that, events of other batches are answered with 503.
//
// # Design
//
// Knative Eventing acts on the codes as follows: 400, 413, 415 and 422 end delivery at once (dead
// letter); 500, 503 and 404 are retried. So a path that does not exist, an error in an address,
// does not count against the event.
//
// Package outcome defines the encoding of outcomes. Package cloudevent reads the messages,
// including version 0.3. A function receives the same event whether it was sent here or through a
// stream.
package serve
