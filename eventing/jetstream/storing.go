package jetstream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// storings are the calls of [Publisher.Publish] on a connection that wait for answers.
// The client would create a future for each message, with a timer and two channels,
// which doubles the time of publishing.
type storings struct {
	conn *Conn

	mu      sync.Mutex
	prefix  string // of the subjects of answers, with a dot at its end; empty until used
	last    uint64
	waiting map[uint64]*storing // by their number
}

// storing is one call of Publish.
type storing struct {
	all     *storings
	number  uint64
	stream  string
	success []byte           // the beginning of the answer when the stream has stored a message
	subject func(int) string // of a message

	ready chan struct{} // holds a token when the wait is over

	// Guarded by the lock of storings.
	answers []answer // for each message
	open    int      // messages without an answer
	enough  int      // how many may be open after the wait
}

// answer is the answer to one message.
type answer struct {
	arrived bool
	err     error // nil if the message is stored
}

// begin returns a storing for messages in a stream, without any yet. Call end after it.
func (a *storings) begin(stream string, subject func(int) string) (*storing, error) {
	s := &storing{all: a, stream: stream, success: []byte(`{"stream":` + strconv.Quote(stream) + `,`), subject: subject, ready: make(chan struct{}, 1)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.prefix == "" {
		prefix := a.conn.client().NewInbox() + "."
		if _, err := a.conn.client().Subscribe(prefix+">", a.receive); err != nil {
			return nil, err
		}
		a.prefix, a.waiting = prefix, map[uint64]*storing{}
	}
	a.last++
	s.number = a.last
	a.waiting[s.number] = s
	return s, nil
}

// end forgets unanswered messages.
func (s *storing) end() {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	delete(s.all.waiting, s.number)
}

// skip records err as the answer to the next message.
func (s *storing) skip(err error) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.answers = append(s.answers, answer{arrived: true, err: err})
}

// reasons returns why each message is not stored, nil if it is. The reason for
// unanswered ones is err.
func (s *storing) reasons(err error) []error {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	reasons := make([]error, len(s.answers))
	for i, a := range s.answers {
		reasons[i] = a.err
		if !a.arrived {
			reasons[i] = err
		}
	}
	return reasons
}

// send publishes the next message. If the client cannot send it, the error is its
// answer.
func (s *storing) send(m *nats.Msg) {
	s.all.mu.Lock()
	i := len(s.answers)
	s.answers = append(s.answers, answer{})
	s.open++
	s.all.mu.Unlock()
	reply := append(make([]byte, 0, 64), s.all.prefix...)
	reply = append(strconv.AppendUint(reply, s.number, 36), '.')
	m.Reply = string(strconv.AppendUint(reply, uint64(i), 36))
	if err := s.all.conn.client().PublishMsg(m); err != nil {
		s.answer(i, err)
	}
}

// answer records the answer to message i.
func (s *storing) answer(i int, err error) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if i >= len(s.answers) || s.answers[i].arrived {
		return
	}
	s.answers[i] = answer{arrived: true, err: err}
	s.open--
	if s.open == s.enough {
		select {
		case s.ready <- struct{}{}:
		default:
		}
	}
}

// receive processes an answer.
func (a *storings) receive(m *nats.Msg) {
	number, index, _ := strings.Cut(strings.TrimPrefix(m.Subject, a.prefix), ".")
	n, err := strconv.ParseUint(number, 36, 64)
	if err != nil {
		return
	}
	i, err := strconv.ParseUint(index, 36, 31)
	if err != nil {
		return
	}
	a.mu.Lock()
	s := a.waiting[n]
	a.mu.Unlock()
	if s != nil {
		// Streams of two domains may both answer; the first answer counts.
		s.answer(int(i), s.check(int(i), m))
	}
}

// check returns why the answer to message i does not confirm that it is stored.
func (s *storing) check(i int, m *nats.Msg) error {
	if bytes.HasPrefix(m.Data, s.success) && !bytes.Contains(m.Data, []byte(`"error"`)) {
		return nil
	}
	if len(m.Data) == 0 && m.Header.Get(statusHeader) == "503" {
		return natsjs.ErrNoStreamResponse
	}
	var answer struct {
		Error  *natsjs.APIError `json:"error"`
		Stream string           `json:"stream"`
	}
	err := json.Unmarshal(m.Data, &answer)
	switch {
	case err != nil || answer.Error == nil && answer.Stream == "":
		return natsjs.ErrInvalidJSAck
	case answer.Error != nil:
		return answer.Error
	case answer.Stream != s.stream:
		return fmt.Errorf("stored in stream %s instead, which has subject %s", answer.Stream, s.subject(i))
	}
	return nil
}

// wait waits until at most enough messages are unanswered, for at most [RequestTimeout]. Lost is
// closed when the connection is lost, and the answers with it.
func (s *storing) wait(ctx context.Context, lost <-chan struct{}, enough int) error {
	timer := time.NewTimer(RequestTimeout)
	defer timer.Stop()
	for {
		s.all.mu.Lock()
		s.enough = enough
		open := s.open
		s.all.mu.Unlock()
		if open <= enough {
			return nil
		}
		select {
		case <-s.ready: // possibly of an earlier wait
		case <-timer.C:
			return natsjs.ErrAsyncPublishTimeout
		case <-lost:
			return &notConnectedError{where: s.all.conn.where}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
