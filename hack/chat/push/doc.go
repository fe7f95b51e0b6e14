// Package push is a websocket server for functions/chat, one for each cluster: it
// pushes the function's output events to browsers, and sends the messages of users
// to the cluster's ingest address.
//
// # Guarantees
//
//   - Every browser in a room receives every event of it once, whichever cluster's function emitted it and however often: events are deduplicated on source and id.
//   - A browser that connects first receives recent events, then new ones. A browser that is too slow is disconnected, and receives all of them when it reconnects.
//   - Every request of a browser is answered: stored in the stream, or not, with the reason. The browser assigns the id, so that it can safely send the request again, also to
//     the other side.
//
// # Not guaranteed
//
// It is a demo. Users are not authenticated. The recent events are the end of the
// stream of outputs, kept in memory; in production they would be read from the
// tables. It only accepts requests for the configured host names, and from pages of
// these.
package push
