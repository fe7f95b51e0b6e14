package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/sethvargo/go-retry"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/chat"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// source is the source of browsers' events, the same on all sides, so that a
// browser may send an event again to another side.
const source = "/chat/browsers"

const (
	// future and past bound the error of a browser's clock. Its time sorts
	// messages, so a message from next year would stay the last one.
	future = time.Minute
	past   = 24 * time.Hour
)

// request is a message of a browser.
type request struct {
	// ID is a UUIDv7 that the browser created. Its time is the event's time, so
	// that the event is the same whenever it is sent.
	ID   string         `json:"id"`
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

// answer is the answer to a request, which a browser receives among events.
type answer struct {
	Stored string `json:"stored,omitempty"` // the id
	Failed string `json:"failed,omitempty"` // likewise
	Reason string `json:"reason,omitempty"`
}

// sender is the field of the data that contains the sender, by type.
var sender = map[string]string{
	chat.Posted: "author",
	chat.Read:   "member",
	chat.Joined: "member",
	chat.Left:   "member",
	chat.Named:  "",
}

// event returns the event of a request from member in room. It calls the function
// to find out whether it would refuse the event: the function has no side effects,
// and the user still sees the answer.
func (r request) event(ctx context.Context, room, member string, now time.Time) (event.Event, error) {
	field, ok := sender[r.Type]
	if !ok {
		return event.Event{}, fmt.Errorf("type %q: clients may not send it", r.Type)
	}
	if r.Data == nil {
		r.Data = map[string]any{}
	}
	r.Data["room"] = room
	if field != "" {
		r.Data[field] = member
	}
	e := event.New()
	e.SetSource(source)
	e.SetID(r.ID)
	e.SetType(r.Type)
	if err := e.SetData(event.ApplicationJSON, r.Data); err != nil {
		return event.Event{}, err
	}
	if err := cloudevent.Check(e); err != nil {
		return event.Event{}, err
	}
	at := functions.Time(e)
	switch {
	case at.IsZero():
		return event.Event{}, errors.New("id: want a UUIDv7")
	case at.After(now.Add(future)), at.Before(now.Add(-past)):
		return event.Event{}, fmt.Errorf("id: its time is %s, but the server's time is %s: check your clock", at.Format(time.DateTime), now.UTC().Format(time.DateTime))
	}
	if _, err := chat.Function().Handle(ctx, e); err != nil {
		return event.Event{}, err
	}
	return e, nil
}

// poster sends events to an ingest address.
type poster struct {
	url     string
	timeout time.Duration
	client  *http.Client
}

// post returns when the event is stored. It retries while the error is not the
// event's: the stream deduplicates.
func (p *poster) post(ctx context.Context, e event.Event) error {
	body, err := cloudevent.AppendJSON(nil, e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	pauses := retry.WithCappedDuration(2*time.Second, retry.NewExponential(100*time.Millisecond))
	var last error
	err = retry.Do(ctx, pauses, func(ctx context.Context) error {
		again, err := p.try(ctx, body)
		if last == nil || ctx.Err() == nil {
			last = err // the actual error, not the timeout
		}
		if again {
			return retry.RetryableError(err)
		}
		return err
	})
	if err != nil && last != nil {
		return last
	}
	return err
}

func (p *poster) try(ctx context.Context, body []byte) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", event.ApplicationCloudEventsJSON)
	resp, err := p.client.Do(r)
	if err != nil {
		return ctx.Err() == nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	const limit = 4 << 10
	reason, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	switch {
	case resp.StatusCode/100 == 2:
		return false, nil
	case err != nil:
		return true, err
	}
	return resp.StatusCode >= 500, fmt.Errorf("the ingest address answers %d: %s", resp.StatusCode, strings.TrimSpace(string(reason)))
}

// text returns the answer in the form for browsers.
func (a answer) text() []byte {
	text, err := json.Marshal(a)
	if err != nil {
		panic(err) // it contains only strings
	}
	return text
}
