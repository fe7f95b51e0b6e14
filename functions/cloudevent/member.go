package cloudevent

import (
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/tandem-fn/tandem/functions/internal/jsonscan"
)

// AppendMember appends e as an element of a batch, if a reader of the batch
// receives the same event as in binary content mode. Otherwise ok is false and
// nothing is appended, because a function that sees two forms of an event may
// compute two results. Moreover, data that is declared as JSON and is invalid would
// break the batch or inject other events into it.
func AppendMember(buf []byte, e event.Event) (_ []byte, ok bool) {
	c, err := contextOf(e)
	if err != nil || c.Time != nil && c.Time.IsZero() {
		return buf, false
	}
	if len(e.DataEncoded) == 0 {
		e.DataEncoded = nil
	} else {
		if c.DataContentType == nil || *c.DataContentType == "" {
			return buf, false // in JSON it would imply one
		}
		isJSON := declaresJSON(*c.DataContentType)
		if isJSON && !standsAlone(e.DataEncoded) {
			return buf, false
		}
		e.DataBase64 = !isJSON
	}
	for name, value := range c.Extensions {
		if _, isText := value.(string); isText {
			continue
		}
		text, err := types.Format(value)
		if err != nil {
			return buf, false
		}
		if c == e.Context {
			e = e.Clone()
		}
		e.SetExtension(name, text)
	}
	long, err := AppendJSON(buf, e)
	if err != nil {
		return buf, false
	}
	return long, true
}

// standsAlone reports whether data is one JSON value without white space around it,
// which a JSON reader would remove.
func standsAlone(data []byte) bool {
	return data[0] > ' ' && data[len(data)-1] > ' ' && utf8.Valid(data) && jsonscan.Valid(data)
}
