package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pullWait is how long the server may wait for messages until it ends a
	// request for some. It is shorter than the lease of a source by more than the time
	// between two renewals: to one that stands still, no message is delivered any more
	// when another takes over.
	pullWait = 1500 * time.Millisecond

	// pullPatience is how long nothing may come after that, or after the server
	// has said that the request is over, until it is given up.
	pullPatience = 2 * time.Second

	// Headers of what the server says about a request, and of how many messages
	// it has still to send for it.
	statusHeader      = "Status"
	descriptionHeader = "Description"
	missingHeader     = "Nats-Pending-Messages"

	// exceedsBytes is how the server ends a request whose next message has no room.
	exceedsBytes = "Message Size Exceeds MaxBytes"
)

// pullRequest asks a consumer for messages.
type pullRequest struct {
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes,omitempty"`
	Expires  time.Duration `json:"expires"`
}

// errTooSmall says that the next message is larger than was asked for.
var errTooSmall = errors.New("the next message is larger")

// request is one request for n messages of at most bytes together, 0 for as many as
// they are. That it ended early, since nothing came or ctx ended, is no error. The
// error is errTooSmall if not one message came for lack of room.
//
// It is not the client's Fetch: when a request ends, the server says so, and a
// replicated consumer hands its messages out only after most replicas know of
// them; so the word of the end overtakes the messages, and the client does not wait
// for these. They would come again after AckWait. With a bound in bytes that
// happens with every request that is met.
func (r *reader) request(ctx context.Context, n, bytes int, receive func(*nats.Msg)) error {
	lost := r.conn.loss()
	if err := r.conn.Ready(); err != nil {
		return err
	}
	body, err := json.Marshal(pullRequest{Batch: n, MaxBytes: bytes, Expires: pullWait})
	if err != nil {
		return err
	}
	messages := make(chan *nats.Msg, n+16) // room for all, and for what is said
	inbox := r.conn.client().NewInbox()
	sub, err := r.conn.client().ChanSubscribe(inbox, messages)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // only fails without a connection
	if err := r.conn.client().PublishRequest(r.pullFrom, inbox, body); err != nil {
		return err
	}

	timer := time.NewTimer(pullWait + pullPatience)
	defer timer.Stop()
	p := pulling{asked: n, due: n, receive: receive}
	take := func(m *nats.Msg) {
		if p.take(m); p.over {
			timer.Reset(pullPatience)
		}
	}
	for p.came < p.due {
		select {
		case m := <-messages: // mostly it is there, and costs a fraction of what waiting does
			take(m)
			continue
		default:
		}
		select {
		case m := <-messages:
			take(m)
		case <-lost:
			// The server, or its successor, knows nothing of the request.
			p.drain(messages)
			return &notConnectedError{where: r.conn.where}
		case <-ctx.Done():
			p.drain(messages)
			return nil
		case <-timer.C:
			if p.over {
				return fmt.Errorf("ask for messages: %d that the server has sent did not come", p.due-p.came)
			}
			return nil // the server is gone, or about to be
		}
	}
	if p.tooSmall && p.came == 0 {
		return errTooSmall
	}
	return p.err
}

// pulling is how far a request has come.
type pulling struct {
	asked    int // messages
	came     int
	due      int  // as many as were asked for, until the server says how many there are
	over     bool // it has said so
	tooSmall bool // since the next message has no room
	err      error
	receive  func(*nats.Msg)
}

// take takes what the server sends. What it says itself has no reply subject.
func (p *pulling) take(m *nats.Msg) {
	if m.Reply != "" || m.Header.Get(statusHeader) == "" {
		p.came++
		p.receive(m)
		return
	}
	status, description := m.Header.Get(statusHeader), m.Header.Get(descriptionHeader)
	if status == "100" { // to say that it is there
		return
	}
	p.over, p.tooSmall = true, description == exceedsBytes
	missing, err := strconv.Atoi(m.Header.Get(missingHeader))
	switch {
	case err == nil && (status == "408" || status == "409"):
		p.due = p.asked - missing
	case status == "404":
		p.due = p.came
	default:
		p.due = p.came
		p.err = fmt.Errorf("ask for messages: the server answers %s %s", status, description)
	}
}

// drain takes what is there already.
func (p *pulling) drain(messages <-chan *nats.Msg) {
	for {
		select {
		case m := <-messages:
			p.take(m)
		default:
			return
		}
	}
}
