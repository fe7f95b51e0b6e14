package delivery

import (
	"net/http"
)

// Outcome is what an answer means for the event.
type Outcome uint8

const (
	// Retry means that the event is not to blame. It is delivered again.
	Retry Outcome = iota
	// Accepted means that the function has processed the event.
	Accepted
	// Rejected means that the event is at fault. It becomes a dead letter.
	Rejected
	// Failed means that the function broke on this event. It is delivered again, and if
	// that goes on for too long it becomes a dead letter.
	Failed
)

// functionOutcome says what a function's status code means. Only what is clearly the
// event's fault is held against it: a wrong address, a missing permission or a
// media type that the sink does not know are ours to mend, and until then the
// event waits. Of the 5xx only 500 is the function's own word that this event
// broke it; 502 and 504 are a gateway's. 3xx means a wrong address too, since a redirect is not followed.
func functionOutcome(status int) Outcome {
	switch {
	case status >= 200 && status < 300:
		return Accepted
	case status == http.StatusInternalServerError:
		return Failed
	case status < 400 || status > 500:
		return Retry
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
		http.StatusRequestTimeout, http.StatusConflict,
		http.StatusUnsupportedMediaType, http.StatusTooManyRequests:
		return Retry
	}
	return Rejected
}

// deadLetterOutcome says what the dead letter sink's status code means. An event
// has nowhere else to go from there, so everything but a 2xx is tried again.
func deadLetterOutcome(status int) Outcome {
	if status >= 200 && status < 300 {
		return Accepted
	}
	return Retry
}
