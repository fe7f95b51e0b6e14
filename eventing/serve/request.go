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

// maxName bounds id, source and type, in bytes. They are in the ledger's key, in
// indexes and in subjects.
const maxName = 1024

// rules say which events are taken, or which dead letters, which are events that
// need not be valid in every respect.
func rules(deadLetter bool) cloudevent.Rules {
	return cloudevent.Rules{Old: true, MaxName: maxName, Lenient: deadLetter}
}

// contentMode tells the content mode, or what there is about the body that is not
// supported.
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
		dismiss(r)
		return nil, tooLarge(limit)
	}
	// A sender's word is taken for a little memory only.
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
		dismiss(r)
		return nil, tooLarge(limit)
	}
	return body.Bytes(), nil
}

// dismiss reads what is left of a body that is too large. Otherwise the connection
// would be reset while the sender still writes, and what he is told would be lost: he
// would try again for ever. Who is larger than a dead letter may be is cut off.
func dismiss(r *http.Request) {
	if r.Header.Get("Expect") == "" { // else he waits for a word before he sends
		_, _ = io.CopyN(io.Discard, r.Body, maxDeadLetter) // the answer is the same
	}
}

// slow is how long it may take until all of a request is there before that is made
// up for.
const slow = 500 * time.Millisecond

// receive lets a request in, tells its content mode, and reads its body, of at most
// limit bytes. It sees to it that there is time left for the answer: what the server
// allows runs from the beginning of the request, for reading until the end of the
// answer too, as reading is how it notices that the sender has gone.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, limit int64) (mode cloudevent.Mode, body []byte, err error) {
	begin := h.config.Now()
	if h.config.Gate != nil {
		if err := h.config.Gate.Admit(r.Context(), r.Header); err != nil {
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
		_ = c.SetReadDeadline(end) // a server that cannot keeps its own limits
		_ = c.SetWriteDeadline(end)
	}
	return mode, body, err
}

func tooLarge(limit int64) error {
	return withStatus(http.StatusRequestEntityTooLarge, fmt.Errorf("the body is too large: at most %d bytes are taken (TANDEM_MAX_EVENT_BYTES)", limit))
}

// readEvent reads the one event of a request that is not a batch. Body is kept.
func readEvent(m cloudevent.Mode, header http.Header, body []byte, deadLetter bool) (e event.Event, err error) {
	switch {
	case m == cloudevent.Structured:
		e, err = cloudevent.ReadJSON(body, rules(deadLetter))
	case header["Ce-Datacontenttype"] != nil && !deadLetter:
		// HTTP binding 1.0.2, section 3.1.1.
		err = errors.New("header ce-datacontenttype: it does not exist, send content-type")
	default:
		e, err = cloudevent.ReadBinary(header, body, rules(deadLetter))
	}
	switch {
	case errors.Is(err, cloudevent.ErrNone):
		return event.Event{}, withStatus(http.StatusUnsupportedMediaType, fmt.Errorf("this is no CloudEvent: %w", err))
	case err != nil:
		return event.Event{}, withStatus(http.StatusBadRequest, fmt.Errorf("this is no valid CloudEvent: %w", err))
	}
	return e, nil
}

// shakeHands answers the validation request of CloudEvents' web hooks (HTTP 1.1
// Web Hooks for Event Delivery 1.0.2, section 4): everybody may send, at any rate.
func shakeHands(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Allow", "OPTIONS, POST")
	if r.Header.Get("WebHook-Request-Origin") != "" {
		header.Set("WebHook-Allowed-Origin", "*")
		header.Set("WebHook-Allowed-Rate", "*")
	}
	w.WriteHeader(http.StatusOK)
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
