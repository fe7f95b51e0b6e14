package eventing

import "errors"

// ErrTooLarge says that an event is larger than its stream takes. To publish it
// again cannot help.
var ErrTooLarge = errors.New("the event is larger than the stream takes")

// ErrMissed says that a stream has handed out messages that did not arrive.
var ErrMissed = errors.New("messages that were handed out have not arrived")
