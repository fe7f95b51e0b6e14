package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// rules returns the rules for events, or for dead letters, which need not be fully
// valid events.
func rules(deadLetter bool) cloudevent.Rules {
	return cloudevent.Rules{Old: true, MaxName: cloudevent.MaxName, Lenient: deadLetter}
}

// contentMode returns the content mode. The error reports an encoding or format that is
// not supported.
func contentMode(r *http.Request) (cloudevent.Mode, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return 0, withStatus(http.StatusUnsupportedMediaType, fmt.Errorf("content-encoding %q is not supported: send the body as it is", clip(encoding, 64)))
	}
	mode, err := cloudevent.ModeOf(r.Header.Get("Content-Type"))
	if err != nil {
		return 0, withStatus(http.StatusUnsupportedMediaType, err)
	}
	return mode, nil
}

// readBody reads all of a body, of at most limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	length := r.ContentLength
	if length > limit {
		drainBody(r)
		return nil, tooLarge(limit)
	}
	// A declared length is trusted only up to a little memory.
	const trusted = 64 << 10
	if length >= 0 && length <= trusted {
		body := make([]byte, length)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, fmt.Errorf("read body: %w", err)
		}
		return body, nil
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(io.LimitReader(r.Body, limit+1)); err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	if int64(body.Len()) > limit {
		drainBody(r)
		return nil, tooLarge(limit)
	}
	return body.Bytes(), nil
}

// drainBody reads the rest of a body that is too large. Otherwise the connection would
// be reset while the sender still writes, the answer would be lost, and the sender
// would retry without end. The rest of a body that is larger than a dead letter may be
// is not read.
func drainBody(r *http.Request) {
	if r.Header.Get("Expect") == "" { // otherwise the sender waits for 100 Continue
		_, _ = io.CopyN(io.Discard, r.Body, maxDeadLetter) // an error does not change the answer
	}
}

// slow is the duration of a request's arrival after which the server's deadlines are
// extended.
const slow = 500 * time.Millisecond

// receiveRequest authorizes a request, determines its content mode, and reads its body,
// of at most limit bytes. If the body was slow, it extends the server's deadlines: they
// run from the start of the request, and the read deadline runs until the end of the
// answer too, because the server detects by reading that the sender has disconnected.
func (h *Handler) receiveRequest(w http.ResponseWriter, r *http.Request, limit int64) (mode cloudevent.Mode, body []byte, err error) {
	begin := h.config.Now()
	if h.config.Authorizer != nil {
		if err := h.config.Authorizer.Authorize(r.Context(), r.Header); err != nil {
			return 0, nil, err
		}
	}
	if mode, err = contentMode(r); err != nil {
		return 0, nil, err
	}
	body, err = readBody(r, limit)
	if now := h.config.Now(); now.Sub(begin) > slow {
		end := now.Add(h.config.Deadline + h.config.CommitTimeout + time.Second)
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(end) // a server without this keeps its own limits
		_ = c.SetWriteDeadline(end)
	}
	return mode, body, err
}

func tooLarge(limit int64) error {
	return withStatus(http.StatusRequestEntityTooLarge, fmt.Errorf("the body is too large: want at most %d bytes (TANDEM_MAX_EVENT_BYTES)", limit))
}

// readEvent reads the event of a request that is not a batch. It keeps body.
func readEvent(m cloudevent.Mode, header http.Header, body []byte, deadLetter bool) (e event.Event, err error) {
	switch {
	case m == cloudevent.Structured:
		e, err = cloudevent.ReadJSON(body, rules(deadLetter))
	case header["Ce-Datacontenttype"] != nil && !deadLetter:
		// HTTP binding 1.0.2, section 3.1.1.
		err = errors.New("header ce-datacontenttype: not an attribute of the HTTP binding, send content-type")
	default:
		e, err = cloudevent.ReadBinary(header, body, rules(deadLetter))
	}
	switch {
	case errors.Is(err, cloudevent.ErrNone):
		return event.Event{}, withStatus(http.StatusUnsupportedMediaType, fmt.Errorf("this is not a CloudEvent: %w", err))
	case err != nil:
		return event.Event{}, withStatus(http.StatusBadRequest, fmt.Errorf("this is not a valid CloudEvent: %w", err))
	}
	return e, nil
}

// clip bounds text that an answer quotes.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "…"
}

// oneLine returns an error's text as one line of bounded length.
func oneLine(text string) string {
	return clip(strings.Join(strings.Fields(text), " "), maxReason)
}
