package sink

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// tokenAge is the age after which a token is read again. Knative replaces it long
// before it expires.
const tokenAge = 5 * time.Second

// withToken adds the token to requests to the sink's hosts.
type withToken struct {
	next    http.RoundTripper
	file    string
	origins []string // of the sink

	mu     sync.Mutex
	header []string // Authorization; nil if there is no token
	readAt time.Time
}

// RoundTrip implements [http.RoundTripper].
func (t *withToken) RoundTrip(req *http.Request) (*http.Response, error) {
	if !slices.Contains(t.origins, Origin(req.URL)) {
		return t.next.RoundTrip(req)
	}
	header, err := t.authorization()
	if err != nil {
		return nil, fmt.Errorf("read the sink's token: %w", err)
	}
	if header != nil {
		req = req.Clone(req.Context()) // the original headers are shared by all attempts
		req.Header["Authorization"] = header
	}
	res, err := t.next.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		t.expire()
	}
	return res, err
}

// authorization returns the values of the header; nil if there is no token.
func (t *withToken) authorization() ([]string, error) {
	now := time.Now() //nolint:forbidigo // of a process; nothing is computed from it
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.readAt.IsZero() && now.Sub(t.readAt) < tokenAge {
		return t.header, nil
	}
	token, err := os.ReadFile(t.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	t.header, t.readAt = nil, now
	if token = bytes.TrimSpace(token); len(token) > 0 {
		t.header = []string{"Bearer " + string(token)}
	}
	return t.header, nil
}

// expire makes the next request read the token again.
func (t *withToken) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readAt = time.Time{}
}
