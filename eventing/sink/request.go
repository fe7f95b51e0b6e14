package sink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

const (
	// maxReason bounds the part of an answer's body that is kept as the reason for a
	// rejection, in bytes.
	maxReason = 1024

	// maxDrain bounds how much of an answer's body is read so that its connection can
	// be reused, in bytes.
	maxDrain = 64 << 10
)

// StatusError is an answer that does not acknowledge the event and is not the event's
// fault.
type StatusError struct {
	Code int
}

// Error returns the code, its text, and what to check if an operator must act.
func (e *StatusError) Error() string {
	hint := ""
	switch {
	case e.Code >= 200 && e.Code < 300:
		hint = " without a Tandem receipt: the server is not a function and has committed nothing; check K_SINK, or set TANDEM_SINK_KIND=broker if it is a Broker"
	case e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden:
		hint = ": this source may not call it; check its credentials and audience"
	case e.Code == http.StatusNotFound || e.Code >= 300 && e.Code < 400:
		hint = ": wrong URL; check K_SINK"
	case e.Code == http.StatusUnsupportedMediaType:
		hint = ": the server does not accept CloudEvents; check K_SINK"
	}
	return fmt.Sprintf("answered %d %s%s", e.Code, http.StatusText(e.Code), hint)
}

// Request is an event encoded in the binary content mode.
type Request struct {
	header http.Header
	body   []byte
	Batch  bool // several events, in the batch content mode
}

// Encode returns e as a request in the binary content mode.
func Encode(e event.Event) (*Request, error) {
	header, body, err := cloudevent.WriteBinary(e, headerName)
	if err != nil {
		return nil, err
	}
	// Repeating the request is harmless. The empty list declares this to net/http,
	// which then replaces a connection that was closed while idle.
	header["Idempotency-Key"] = nil
	return &Request{header: header, body: body}, nil
}

// maxHeader bounds the attributes of an event in headers, in bytes. Servers and proxies reject
// larger headers: nginx, Tomcat and others accept 8 KiB by default, Envoy 60 KiB.
const maxHeader = 6 << 10

// maxFitting bounds a body in the structured content mode, in bytes: well below the limit of
// functions, because the body of the same event in the binary mode is smaller.
const maxFitting = 512 << 10

// EncodeFitting returns e as a request that proxies accept: in the binary content mode,
// or, if its attributes are too large for headers, in the structured one.
func EncodeFitting(e event.Event) (*Request, error) {
	r, err := Encode(e)
	if err != nil || HeaderFits(r.header) {
		return r, err
	}
	structured, err := EncodeStructured(e)
	if err != nil || len(structured.body) > maxFitting {
		return r, err
	}
	return structured, nil
}

// EncodeStructured returns e as a request in the structured content mode, with its
// attributes in the body.
func EncodeStructured(e event.Event) (*Request, error) {
	body, ok := cloudevent.AppendMember(nil, e)
	if !ok { // the data does not match its content type, or has none
		e = e.Clone()
		e.DataBase64 = true
		var err error
		if body, err = cloudevent.AppendJSON(nil, e); err != nil {
			return nil, err
		}
	}
	return &Request{header: http.Header{"Content-Type": {structuredContentType}, "Idempotency-Key": nil}, body: body}, nil
}

// HeaderFits reports whether proxies accept the attributes of an event in these headers:
// at most 6 KiB.
func HeaderFits(header http.Header) bool {
	size := 0
	for name, values := range header {
		for _, value := range values {
			size += len(name) + len(value) + len(": \r\n")
		}
	}
	return size <= maxHeader
}

// EncodeBatch returns the request of a batch, whose body is a JSON array of events.
func EncodeBatch(body []byte) *Request {
	return &Request{header: http.Header{"Content-Type": {batchContentType}, "Idempotency-Key": nil}, body: body, Batch: true}
}

// Once makes net/http report a connection that breaks before the answer, even if it was
// used before, instead of sending the request again on another one. It returns r.
func (r *Request) Once() *Request {
	delete(r.header, "Idempotency-Key")
	return r
}

// With sets a header, and returns r.
func (r *Request) With(name, value string) *Request {
	r.header.Set(name, value)
	return r
}

// Has reports whether a header is set.
func (r *Request) Has(name string) bool { return r.header.Get(name) != "" }

// Accepting requests an answer of a media type, and returns r.
func (r *Request) Accepting(mediaType string) *Request {
	r.header["Accept"] = []string{mediaType}
	return r
}

// headerName returns the canonical header of an attribute. The switch avoids the work
// for usual ones.
func headerName(attribute string) string {
	switch attribute {
	case "specversion":
		return "Ce-Specversion"
	case "id":
		return "Ce-Id"
	case "source":
		return "Ce-Source"
	case "type":
		return "Ce-Type"
	case "subject":
		return "Ce-Subject"
	case "time":
		return "Ce-Time"
	case "datacontenttype":
		return "Content-Type"
	}
	return textproto.CanonicalMIMEHeaderKey("Ce-" + attribute)
}

// HTTP returns a new HTTP request for each attempt.
func (r *Request) HTTP(u *url.URL) *http.Request {
	req := &http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.header, Body: http.NoBody,
	}
	if len(r.body) > 0 {
		req.ContentLength = int64(len(r.body))
		body := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.body)), nil }
		req.Body, _ = body()
		req.GetBody = body
	}
	return req
}

// ReadReason reads the beginning of an answer's body and skips the rest, so that the
// connection can be reused.
func ReadReason(res *http.Response) ([]byte, error) {
	if res.ContentLength == 0 {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReason))
	if err != nil {
		return body, err
	}
	_, err = io.CopyN(io.Discard, res.Body, maxDrain)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return body, err
}

// Cause removes the URL from an error of net/http, because it is logged separately.
func Cause(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// RetryAfter parses the header Retry-After, seconds or a date (RFC 9110, section
// 10.2.3), as a duration from 0 to limit. It returns 0 if there is no header or it is
// neither.
func RetryAfter(header string, now time.Time, limit time.Duration) time.Duration {
	if header == "" {
		return 0
	}
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), limit)
}
