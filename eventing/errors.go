package eventing

import "errors"

// ErrTooLarge means that an event is larger than its stream accepts. A retry does not
// help.
var ErrTooLarge = errors.New("the event is larger than the stream accepts")

// ErrMissed means that a stream has delivered messages that did not arrive.
var ErrMissed = errors.New("messages that were delivered have not arrived")

// ErrGone means that a stream does not have a message any more.
var ErrGone = errors.New("the stream does not have the message any more")

// ErrTruncated means that a stream lost messages that its consumer had read, as in an
// unclean election. Others may have their sequences now.
var ErrTruncated = errors.New("the stream lost messages that were delivered")
