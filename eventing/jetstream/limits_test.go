package jetstream_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// sized returns event n, whose message has the given size with its headers, of which a
// part is in an extension.
func sized(t *testing.T, n, bytes, extension int) event.Event {
	t.Helper()

	e := newEvents(n, 1)[0]
	e.SetExtension("padding", strings.Repeat("x", extension))
	e.DataEncoded = nil
	without := messageSize(t, e)
	e.DataEncoded = make([]byte, bytes-without)
	return e
}

// messageSize returns the bytes of an event's message after PUB and its arguments.
func messageSize(t *testing.T, e event.Event) int {
	t.Helper()

	header, data, err := jetstream.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	header[nats.MsgIdHdr] = []string{eventing.MessageID(e.Source(), e.ID())}
	text := "NATS/1.0\r\n"
	for name := range header {
		text += name + ": " + header[name][0] + "\r\n"
	}
	return len(text+"\r\n") + len(data)
}

func TestALimitThatWasLoweredEndsNoConnectionForGood(t *testing.T) {
	t.Parallel()

	server := startServer(t)
	conn := connect(t, server.Server)
	publisher := newPublisher(t, conn)
	publishWith(t, publisher, newEvents(1, 1)...)
	reader := openReader(t, process{conn})
	server.SetMaxPayload(t, 10_000)
	events := newEvents(2, 20)
	events[5] = sized(t, 7, 20_000, 0)
	// The server closes the connection at the large one. It reports the limit on the
	// next connection.
	var err error
	eventtest.Eventually(t, "all others are stored", func() bool {
		err = publisher.Publish(t.Context(), events)
		for i, reason := range contract.ReasonsOf(err, len(events)) {
			if i != 5 && reason != nil {
				return false
			}
		}
		return errors.As(err, new(*eventing.Rejection))
	})
	for i, reason := range contract.ReasonsOf(err, len(events)) {
		if large := i == 5; large != errors.As(reason, new(*eventing.Rejection)) || large == (reason == nil) {
			t.Errorf("event %d: %v", i, reason)
		}
	}
	if err := publisher.Check(t.Context(), events[5]); !errors.Is(err, eventing.ErrTooLarge) || !strings.Contains(err.Error(), "max_payload of the server is 10000") {
		t.Errorf("checked: %v", err)
	}
	// The reader of the connection continues.
	got := 0
	eventtest.Eventually(t, "the events are read", func() bool {
		err := reader.Pull(t.Context(), 100, 1<<20, func(m eventing.Message) {
			if err := m.Ack(); err != nil {
				t.Log(err)
			}
			got++
		})
		if err != nil {
			reader = openReader(t, process{conn})
		}
		return got >= 20
	})
}

func TestAnEventThatIsTooLargeIsRefusedAsTheServerWould(t *testing.T) {
	t.Parallel()

	server := startServer(t)
	conn := connect(t, server.Server)
	publisher := newPublisher(t, conn)
	js := native(t, server.Server)
	const payload = 1 << 20 // the server's default
	config := natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Storage: natsjs.FileStorage, Duplicates: 2 * time.Minute}
	for n, tt := range []struct {
		name       string
		maxMsgSize int32
		size, ext  int
		code       int
		says       string
	}{
		{"as large as max_payload", -1, payload, 0, 0, ""},
		{"larger by one byte", -1, payload + 1, 0, http.StatusRequestEntityTooLarge, "it has with its headers 1048577 bytes, max_payload of the server is 1048576"},
		{"headers count", -1, payload + 1, 1000, http.StatusRequestEntityTooLarge, "1048577"},
		{"as large as max_msg_size", 5000, 5000, 100, 0, ""},
		{"larger than max_msg_size", 5000, 5001, 100, http.StatusRequestEntityTooLarge, "it has with its headers 5001 bytes, max_msg_size of stream EVENTS is 5000"},
		{"max_msg_size was raised", 6000, 5001, 100, 0, ""},
		{"headers larger than JetStream stores", -1, 70_000, 66_000, http.StatusRequestHeaderFieldsTooLarge, "the limit of JetStream is 65535"},
	} {
		t.Log(tt.name)
		config.MaxMsgSize = tt.maxMsgSize
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		e := sized(t, n, tt.size, tt.ext)
		eventtest.Eventually(t, "it is checked by the limit that is set now", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := publisher.Check(ctx, e)
			if tt.code == 0 {
				return err == nil
			}
			var rejected *eventing.Rejection
			return errors.As(err, &rejected) && rejected.Code == tt.code && errors.Is(err, eventing.ErrTooLarge) && strings.Contains(err.Error(), tt.says)
		})
		// The stream confirms it.
		var err error
		eventtest.Eventually(t, "the stream answers", func() bool {
			err = publisher.Publish(t.Context(), []event.Event{e})
			return err == nil || errors.As(err, new(*eventing.Rejection))
		})
		if errors.As(err, new(*eventing.Rejection)) != (tt.code != 0) {
			t.Errorf("published: %v", err)
		}
	}
}
