package chat_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/chat"
	"github.com/tandem-fn/tandem/functions/functionstest"
)

const events = "testdata/events.json"

func TestEffectsAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	functionstest.Check(t, chat.Function(), functionstest.Events(t, events))
}

func TestEffectsAreTheGoldenOnes(t *testing.T) {
	t.Parallel()
	functionstest.Golden(t, chat.Function(), functionstest.Events(t, events), "testdata/chat.golden")
}

func TestFunctionIsDeclaredWell(t *testing.T) {
	t.Parallel()
	if err := chat.Function().Validate(); err != nil {
		t.Error(err)
	}
}

// happened returns an event of that type with these data.
func happened(eventType, data string, at time.Time) event.Event {
	e := event.New()
	e.SetSource("/chat/east")
	e.SetID("1")
	e.SetType(eventType)
	e.SetDataContentType(event.ApplicationJSON)
	e.DataEncoded = []byte(data)
	if !at.IsZero() {
		e.SetTime(at)
	}
	return e
}

func TestEventsThatCannotBeAreRejected(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	long := strings.Repeat("x", 5000)
	tests := []struct {
		eventType, data string
		at              time.Time
		says            string
	}{
		{chat.Posted, `{"author":"Ann","text":"x"}`, now, "room: missing"},
		{chat.Posted, `{"room":"ops","text":"x"}`, now, "author: missing"},
		{chat.Posted, `{"room":"ops","author":"Ann"}`, now, "text: missing"},
		{chat.Posted, `{"room":"ops","author":"Ann","text":"` + long + `"}`, now, "text: it has 5000 bytes: want at most 4000"},
		{chat.Posted, `{"room":"ops","author":"Ann","text":"x"}`, time.Time{}, "time: missing"},
		{chat.Posted, `{"room":"` + long + `","author":"Ann","text":"x"}`, now, "room: it has 5000 bytes: want at most 64"},
		{chat.Read, `{"room":"ops","member":"Ann"}`, now, "message: want the UUID"},
		{chat.Read, `{"room":"ops","message":"019cad82-b2fa-7000-8000-000000000000"}`, now, "member: missing"},
		{chat.Named, `{"room":"ops","name":"Ops"}`, now, "version: want 1 or more"},
		{chat.Named, `{"room":"ops","version":1}`, now, "name: missing"},
		{chat.Named, `{"room":"ops","name":"Ops","version":1.5}`, now, "version: it is the number 1.5: want a whole number"},
		{chat.Joined, `{"room":"ops"}`, now, "member: missing"},
		{chat.Joined, `{"room":"ops","member":"Ann"}`, time.Time{}, "time: missing"},
		{chat.Left, `{"member":"Ann"}`, now, "room: missing"},
		{chat.Left, `{"room":"ops","member":"Ann"}`, time.Time{}, "time: missing"},
		{chat.PushMessage, `{}`, now, "want one of com.example.chat.member.joined,"},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i, " ", tt.says[:min(20, len(tt.says))]), func(t *testing.T) {
			t.Parallel()

			fx, err := chat.Function().Handle(t.Context(), happened(tt.eventType, tt.data, tt.at))
			var rejected *functions.RejectError
			if !errors.As(err, &rejected) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want a rejection that says %q", err, tt.says)
			}
			if len(fx.Writes)+len(fx.Outputs) != 0 {
				t.Errorf("it has effects all the same: %v", fx)
			}
		})
	}
}

func TestWhoJoinsHasReadWhatWasSaidBefore(t *testing.T) {
	t.Parallel()

	marker := func(at time.Time) string {
		fx, err := chat.Function().Handle(t.Context(), happened(chat.Joined, `{"room":"ops","member":"Ann"}`, at))
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range fx.Writes {
			if w.Table == "chat_reads" {
				return w.Row["read_to"].(string)
			}
		}
		t.Fatal("there is no read marker")
		return ""
	}
	message := func(at time.Time) string {
		fx, err := chat.Function().Handle(t.Context(), happened(chat.Posted, `{"room":"ops","author":"Bob","text":"x"}`, at))
		if err != nil {
			t.Fatal(err)
		}
		var data struct{ Message string }
		text, err := json.Marshal(fx.Outputs[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &data); err != nil {
			t.Fatal(err)
		}
		return data.Message
	}
	for _, at := range []time.Time{
		time.Date(2026, 3, 2, 8, 0, 0, 123e6, time.UTC), time.Unix(1, 0), time.Date(2200, 1, 1, 0, 0, 0, 999e6, time.UTC),
	} {
		m := marker(at)
		if before, after := message(at.Add(-time.Millisecond)), message(at); before >= m || m >= after {
			t.Errorf("at %s the marker is %s, between the messages %s and %s", at, m, before, after)
		}
	}
	if got := marker(time.Unix(-5, 0)); got != "00000000-0000-7000-8000-000000000000" {
		t.Errorf("before 1970 it is %s", got)
	}
}
