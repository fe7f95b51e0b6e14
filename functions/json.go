package functions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
)

// JSON returns a [Func] that decodes the event's data into a T and calls handle.
// Decoding is that of encoding/json: unknown fields are ignored, a field that is missing
// or null stays zero, of duplicate names the last one counts. If T or *T has a method
// Validate() error, it is called before handle.
//
// The event is refused with [Reject] if its data are missing, have a content type other
// than JSON, are not JSON (one value, in UTF-8) or are null; if a field has another type
// than in T; and if Validate returns an error. The reason names the field, its kind and
// the expected type: "lines[2].price: it is a string: want a number". It quotes numbers
// and names of fields, no text.
func JSON[T any](handle func(ctx context.Context, e event.Event, data T) (Effects, error)) Func {
	return func(ctx context.Context, e event.Event) (Effects, error) {
		var data T
		if err := readJSON(e, &data); err != nil {
			return Effects{}, Reject(fmt.Errorf("read data: %w", err))
		}
		return handle(ctx, e, data)
	}
}

func readJSON[T any](e event.Event, data *T) error {
	if contentType := e.DataContentType(); contentType != "" && contentType != event.ApplicationJSON {
		mediaType, _, err := mime.ParseMediaType(contentType)
		if err != nil || !isJSONType(mediaType) {
			return fmt.Errorf("their content type is %q: want %s", contentType, event.ApplicationJSON)
		}
	}
	text := e.Data()
	switch trimmed := bytes.TrimSpace(text); {
	case len(trimmed) == 0:
		return errors.New("there are none")
	case string(trimmed) == "null":
		return errors.New("they are null")
	case !utf8.Valid(text):
		return errors.New("they are not UTF-8")
	}
	if err := json.Unmarshal(text, data); err != nil {
		return explainError[T](text, err)
	}
	type validator interface{ Validate() error }
	if v, ok := any(data).(validator); ok { // even if the method is T's
		return v.Validate()
	}
	if v, ok := any(*data).(validator); ok { // T is a pointer
		return v.Validate()
	}
	return nil
}

func isJSONType(mediaType string) bool {
	return mediaType == event.ApplicationJSON || mediaType == event.TextJSON || strings.HasSuffix(mediaType, "+json")
}
