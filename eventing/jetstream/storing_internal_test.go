package jetstream

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// newStoring returns a storing of messages that were sent, and a function that answers one
// of them.
func newStoring(messages int) (*storing, func(index string, answer *nats.Msg)) {
	all := &storings{conn: &Conn{}, prefix: "_INBOX.x.", waiting: map[uint64]*storing{}}
	s, _ := all.begin("EVENTS", func(int) string { return "events.t" }) // fails only without a prefix
	s.answers, s.open = make([]answer, messages), messages
	return s, func(index string, answer *nats.Msg) {
		answer.Subject = "_INBOX.x." + index
		all.receive(answer)
	}
}

func stored(answer string) *nats.Msg { return &nats.Msg{Data: []byte(answer)} }

func TestAMessageIsStoredWhenItIsAnsweredItself(t *testing.T) {
	t.Parallel()

	s, answer := newStoring(3)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, index := range []string{"1.0", "1.0", "2.1", "1.3", "1.z", "1", "", "1.2"} {
		answer(index, stored(`{"stream":"EVENTS","seq":1}`))
	}
	if err := s.wait(ended, nil, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("while one is not answered: %v", err)
	}
	if err := s.wait(ended, nil, 1); err != nil {
		t.Errorf("while one may be open: %v", err)
	}
	answer("1.1", stored(`{"stream":"EVENTS", "domain":"west", "seq":7, "duplicate":true}`))
	if err := s.wait(ended, nil, 0); err != nil {
		t.Errorf("when all are answered: %v", err)
	}
	lost := make(chan struct{})
	close(lost)
	s.open = 1
	if err := s.wait(t.Context(), lost, 0); !errors.Is(err, ErrNotConnected) {
		t.Errorf("after the connection was lost: %v", err)
	}
}

func TestAnAnswerThatIsNoSuccessIsAnError(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		answer *nats.Msg
		want   string
	}{
		{stored(`{"stream":"OTHER","seq":1}`), "stored in stream OTHER instead, which has subject events.t"},
		{stored(`{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"EVENTS","seq":0}`), "nats: API error: code=503 err_code=10077 description=maximum messages exceeded"},
		{stored(`{"stream":"EVENTS","seq":0,"error":{"code":400,"err_code":1,"description":"no"}}`), "nats: API error: code=400 err_code=1 description=no"},
		{stored(`{}`), natsjs.ErrInvalidJSAck.Error()},
		{stored(`?`), natsjs.ErrInvalidJSAck.Error()},
		{&nats.Msg{Header: nats.Header{"Status": {"503"}}}, natsjs.ErrNoStreamResponse.Error()},
	} {
		s, answer := newStoring(3)
		answer("1.1", tt.answer)
		answer("1.2", stored(`{"stream":"EVENTS","seq":1}`))
		if err := s.wait(t.Context(), nil, 1); err != nil {
			t.Errorf("%s: the wait ends with %v, though two of three are answered", tt.answer.Data, err)
		}
		unanswered := errors.New("unanswered")
		reasons := s.reasons(unanswered)
		if err := reasons[1]; err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.answer.Data, err, tt.want)
		}
		if !errors.Is(reasons[0], unanswered) || reasons[2] != nil {
			t.Errorf("%s: reasons of the others are %v", tt.answer.Data, reasons)
		}
	}
}
