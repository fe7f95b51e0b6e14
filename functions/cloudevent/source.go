package cloudevent

import (
	"net/url"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Source returns e.Source(). It takes a tenth of the time if the source is a plain
// path, such as those of Tandem's own events.
func Source(e event.Event) string {
	if c, ok := e.Context.(*event.EventContextV1); ok {
		return sourceOf(c)
	}
	return e.Source()
}

func sourceOf(c *event.EventContextV1) string {
	if path := c.Source.Path; isPlainPath(path) && c.Source.URL == (url.URL{Path: path}) {
		return path
	}
	return c.Source.String()
}

// parseSource is [url.Parse].
func parseSource(source string) (url.URL, error) {
	if isPlainPath(source) {
		return url.URL{Path: source}, nil
	}
	u, err := url.Parse(source)
	if err != nil {
		return url.URL{}, err
	}
	return *u, nil
}

// isPlainPath reports whether a URI reference is an absolute path without escapes, and
// without characters that need one.
func isPlainPath(s string) bool {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '-' && c <= '9', c == '_', c == '~': // '-' to '9' are - . / 0 to 9
		default:
			return false
		}
	}
	return true
}
