// Package push is a websocket server for functions/chat, one for each cluster: it
// pushes to browsers what the function emits, and sends to the cluster's ingest
// address what people type.
//
// # What is promised
//
//   - Everybody who looks at a room gets every event of it once, whichever cluster's
//     function emitted it and however often: repeats are known by source and id.
//   - Who comes gets what happened lately, then what happens. A browser that is too
//     slow is disconnected, and gets all of it when it comes back.
//   - What somebody sends is answered: stored in the stream, or not, and why. The
//     browser gives it its id, so to send it again, on the other side too, is right.
//
// # What is not
//
// It is for trying out. Nobody proves who they are, and what happened lately is the
// end of the stream of outputs, kept in memory: in earnest it would be read from the
// tables. It takes requests only for the host names that it is told, and from pages
// of these.
package push
