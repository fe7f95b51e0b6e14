package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	// memoryTimeout bounds how long a request waits for memory.
	memoryTimeout = 2 * time.Second

	// bodyTimeout bounds how long a body may take to arrive.
	bodyTimeout = 20 * time.Second

	// discardTimeout bounds how long the rest of the body of a rejected request is
	// read.
	discardTimeout = 2 * time.Second

	// gzipOverhead is how much larger than its content a compressed body may be, in
	// bytes.
	gzipOverhead = 64 << 10
)

// A refusal is an answer other than 202.
type refusal struct {
	status int
	reason string // in metrics
	text   string
}

// Error returns the text of the answer.
func (r *refusal) Error() string { return r.text }

func refuse(status int, reason, format string, args ...any) *refusal {
	return &refusal{status: status, reason: reason, text: oneLine(fmt.Sprintf(format, args...))}
}

// receive reads and decodes the body of a request, after it has memory for it.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, batch bool) ([]byte, *share, *refusal) {
	zipped, refused := isGzip(r.Header)
	if refused != nil {
		h.discard(w, r)
		return nil, nil, refused
	}
	limit := h.config.MaxEventBytes
	allowed := limit // of bytes on the wire
	if zipped {
		allowed += gzipOverhead
	}
	if r.ContentLength > allowed {
		h.discard(w, r)
		return nil, nil, tooLarge(limit)
	}
	size := r.ContentLength
	if size < 0 || zipped {
		size = limit // unknown
	}

	cost := eventCost
	if batch {
		cost = batchCost
	}
	connection := http.NewResponseController(w)
	ctx, cancel := context.WithTimeout(r.Context(), memoryTimeout)
	memory, ok := h.budget.acquire(ctx, cost(size), size <= smallBody, func() { _ = connection.SetReadDeadline(h.config.Now()) })
	cancel()
	if !ok {
		h.discard(w, r)
		return nil, nil, refuse(http.StatusServiceUnavailable, reasonBusy, "not stored, send it again: too many events are being accepted (TANDEM_IN_FLIGHT_BYTES)")
	}
	_ = connection.SetReadDeadline(h.config.Now().Add(bodyTimeout)) // a server without this keeps its own limit
	body, err := readBody(r, size, limit, allowed, zipped)
	if !memory.read(cost(int64(len(body)))) {
		err = errEvicted
	}
	if err != nil {
		refused := h.unread(w, r, err)
		memory.release()
		return nil, nil, refused
	}
	// By reading the server detects that the sender has disconnected.
	_ = connection.SetReadDeadline(h.config.Now().Add(h.config.Timeout + discardTimeout))
	return body, memory, nil
}

var (
	errTooLarge = errors.New("the body is too large")
	errGzip     = errors.New("the body is not valid gzip")
	errEvicted  = errors.New("the body was too slow")
)

// unread returns the refusal of a request whose body could not be read.
func (h *Handler) unread(w http.ResponseWriter, r *http.Request, err error) *refusal {
	switch {
	case errors.Is(err, errTooLarge):
		h.discard(w, r)
		return tooLarge(h.config.MaxEventBytes)
	case errors.Is(err, errGzip):
		h.discard(w, r)
		return refuse(http.StatusBadRequest, reasonInvalid, "%v", err)
	case errors.Is(err, errEvicted):
		w.Header().Set("Connection", "close")
		return refuse(http.StatusServiceUnavailable, reasonBusy, "not stored, send it again: the body arrived too slowly while other events waited for memory (TANDEM_IN_FLIGHT_BYTES)")
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return refuse(http.StatusRequestTimeout, reasonIncomplete, "the body did not arrive within %s", bodyTimeout)
	}
	return refuse(http.StatusBadRequest, reasonIncomplete, "read body: %v", err)
}

func tooLarge(limit int64) *refusal {
	return refuse(http.StatusRequestEntityTooLarge, reasonTooLarge, "too large: at most %d bytes (TANDEM_MAX_EVENT_BYTES)", limit)
}

// isGzip reports whether a body is compressed with gzip. It rejects all other encodings.
func isGzip(header http.Header) (bool, *refusal) {
	zipped := false
	for _, line := range header["Content-Encoding"] {
		for encoding := range strings.SplitSeq(line, ",") {
			encoding = strings.ToLower(strings.TrimSpace(encoding))
			switch {
			case encoding == "" || encoding == "identity":
			case (encoding == "gzip" || encoding == "x-gzip") && !zipped:
				zipped = true
			default:
				return false, refuse(http.StatusUnsupportedMediaType, reasonUnsupported, "content-encoding %q is not supported: send the body as it is, or with gzip", clip(strings.Join(header["Content-Encoding"], ", ")))
			}
		}
	}
	return zipped, nil
}

// readBody reads a body of at most limit bytes, of which at most allowed arrive over
// the wire. Size is the largest expected size.
func readBody(r *http.Request, size, limit, allowed int64, zipped bool) ([]byte, error) {
	if !zipped && r.ContentLength >= 0 {
		body := make([]byte, size)
		_, err := io.ReadFull(r.Body, body)
		return body, err
	}
	wire := &io.LimitedReader{R: r.Body, N: allowed + 1}
	var content io.Reader = wire
	if zipped {
		unzipped, err := gzip.NewReader(wire)
		if err != nil {
			return nil, gzipError(err, wire)
		}
		content = unzipped
	}
	var body bytes.Buffer
	_, err := body.ReadFrom(io.LimitReader(content, limit+1))
	switch {
	case int64(body.Len()) > limit:
		return nil, errTooLarge
	case err != nil && zipped:
		return nil, gzipError(err, wire)
	}
	return body.Bytes(), err
}

// gzipError maps an error of a gzip reader that reads from wire.
func gzipError(err error, wire *io.LimitedReader) error {
	var timeout interface{ Timeout() bool }
	switch {
	case wire.N <= 0:
		return errTooLarge
	case errors.As(err, &timeout):
		return err
	}
	return fmt.Errorf("%w: %w", errGzip, err)
}

// discard reads the rest of a rejected body. Otherwise the connection would be reset
// while the sender still writes, the answer would be lost, and the sender would not know
// the reason. The rest of a body that is larger than an event may be is not read.
func (h *Handler) discard(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Expect") != "" { // the sender waits for 100 Continue
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(h.config.Now().Add(discardTimeout))
	if n, err := io.CopyN(io.Discard, r.Body, h.config.MaxEventBytes); err == nil && n == h.config.MaxEventBytes {
		w.Header().Set("Connection", "close")
	}
}
