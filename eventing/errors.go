package eventing

import "errors"

// ErrTooLarge says that an event is larger than its stream takes. To publish it
// again cannot help.
var ErrTooLarge = errors.New("the event is larger than the stream takes")
