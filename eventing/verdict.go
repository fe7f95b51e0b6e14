package eventing

import (
	"net/http"
)

// verdict is what an answer means for the event.
type verdict uint8

const (
	// again: nothing is known against the event, it is delivered again.
	again verdict = iota
	// taken: done.
	taken
	// refused: the event's own fault, it becomes a dead letter.
	refused
	// broken: the function broke on this event. It is delivered again, and if
	// that goes on for too long it becomes a dead letter.
	broken
)

// ofFunction says what a function's status code means. Only what is clearly the
// event's fault is held against it: a wrong address, a missing permission or a
// media type that the sink does not know are ours to mend, and until then the
// event waits. Of the 5xx only 500 is the function's own word that this event
// broke it; 502 and 504 are a gateway's. 3xx means a wrong address too, since a redirect is not followed.
func ofFunction(status int) verdict {
	switch {
	case status >= 200 && status < 300:
		return taken
	case status == http.StatusInternalServerError:
		return broken
	case status < 400 || status > 500:
		return again
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusRequestTimeout, http.StatusConflict,
		http.StatusUnsupportedMediaType, http.StatusTooManyRequests:
		return again
	}
	return refused
}

// ofDeadLetterSink says what the dead letter sink's status code means. An event
// has nowhere else to go from there, so everything but a 2xx is tried again.
func ofDeadLetterSink(status int) verdict {
	if status >= 200 && status < 300 {
		return taken
	}
	return again
}
