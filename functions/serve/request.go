package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
)

// mode is a content mode of the CloudEvents HTTP binding.
type mode uint8

const (
	binary mode = iota
	structured
	batch
)

// contentMode tells the content mode by the content type (HTTP binding 1.0.2,
// section 3).
func contentMode(r *http.Request) (mode, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return 0, withStatus(http.StatusUnsupportedMediaType, fmt.Errorf("content-encoding %q is not supported: send the body as it is", clip(encoding, 64)))
	}
	const prefix = "application/cloudevents"
	contentType := r.Header.Get("Content-Type")
	if len(contentType) < len(prefix) || !strings.EqualFold(contentType[:len(prefix)], prefix) {
		return binary, nil
	}
	mediaType, parameters, _ := strings.Cut(contentType, ";")
	if i := strings.Index(strings.ToLower(parameters), "charset="); i >= 0 {
		charset, _, _ := strings.Cut(parameters[i+len("charset="):], ";")
		charset = strings.Trim(charset, ` "`)
		if !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8") && !strings.EqualFold(charset, "us-ascii") {
			return 0, withStatus(http.StatusUnsupportedMediaType, fmt.Errorf("charset %q is not supported: send UTF-8", clip(charset, 64)))
		}
	}
	switch mediaType = strings.ToLower(strings.TrimSpace(mediaType)); mediaType {
	case event.ApplicationCloudEventsJSON:
		return structured, nil
	case event.ApplicationCloudEventsBatchJSON:
		return batch, nil
	}
	return 0, withStatus(http.StatusUnsupportedMediaType, fmt.Errorf("content type %q is not supported: send %s or %s, or the event in headers",
		clip(mediaType, 64), event.ApplicationCloudEventsJSON, event.ApplicationCloudEventsBatchJSON))
}

// readBody reads all of a body, of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	length := r.ContentLength
	if length > limit {
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
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, limit)); err != nil {
		if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
			return nil, tooLarge(limit)
		}
		return nil, fmt.Errorf("read body: %w", err)
	}
	return body.Bytes(), nil
}

func tooLarge(limit int64) error {
	return withStatus(http.StatusRequestEntityTooLarge, fmt.Errorf("the body is too large: at most %d bytes are taken", limit))
}

// readEvent reads the one event of a request that is not a batch. Body is kept.
func readEvent(m mode, header http.Header, body []byte, lenient bool) (e event.Event, err error) {
	if m == structured {
		e, err = readStructured(body, lenient)
	} else {
		e, err = readBinary(header, body, lenient)
	}
	switch {
	case errors.Is(err, errNoEvent):
		return event.Event{}, withStatus(http.StatusUnsupportedMediaType, err)
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
