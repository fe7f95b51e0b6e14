package eventing

import "errors"

// ErrTooLarge means that an event is larger than its stream accepts. A retry does not
// help.
var ErrTooLarge = errors.New("the event is larger than the stream accepts")

// ErrMissed means that a stream delivered messages that did not arrive here.
var ErrMissed = errors.New("messages that were delivered have not arrived")

// ErrGone means that a stream has deleted a message.
var ErrGone = errors.New("the stream has deleted the message")

// ErrTruncated means that a stream lost messages that its consumer had read, for
// example in an unclean leader election. Other messages may have their sequences now.
var ErrTruncated = errors.New("the stream lost messages that were delivered")
