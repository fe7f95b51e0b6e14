package eventing

import "errors"

// ErrTooLarge says that an event is larger than its stream takes. To publish it
// again cannot help.
var ErrTooLarge = errors.New("the event is larger than the stream takes")

// ErrReported is in the chain of an error whose cause has been told to the log
// already. Who meets it does not tell it again.
var ErrReported = errors.New("reported")
