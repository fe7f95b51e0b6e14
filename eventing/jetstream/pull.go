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
	// pullWait is how long the server waits for messages before it ends a request. It
	// is shorter than the lease of a source by more than the time between two renewals:
	// if a source stalls, no message is delivered to it any more when another takes
	// over.
	pullWait = 1500 * time.Millisecond

	// pullPatience is the longest wait for a message after that, or after the server
	// has reported the end of the request.
	pullPatience = 2 * time.Second

	// Headers of the server's status of a request, and of how many messages it has
	// still to send for it.
	statusHeader      = "Status"
	descriptionHeader = "Description"
	missingHeader     = "Nats-Pending-Messages"

	// exceedsBytes is the description with which the server ends a request whose next
	// message does not fit.
	exceedsBytes = "Message Size Exceeds MaxBytes"
)

// pullRequest requests messages from a consumer.
type pullRequest struct {
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes,omitempty"`
	Expires  time.Duration `json:"expires"`
}

// errTooSmall means that the next message exceeds the requested size.
var errTooSmall = errors.New("the next message is larger")

// request requests n messages of at most bytes together; 0 bytes means no limit. A
// request that ends early, because no messages arrived or ctx ended, is not an error.
// The error is errTooSmall if no message arrived because the next one did not fit.
//
// It does not use the client's Fetch. When a request ends, the server sends a status,
// but a replicated consumer delivers its messages only after most replicas have
// confirmed them. So the status overtakes the messages, and the client does not wait
// for these; they would be redelivered after AckWait. With a limit in bytes that
// happens with every request that reaches it.
func (r *reader) request(ctx context.Context, n, bytes int, receive func(*nats.Msg)) error {
	lost := r.conn.loss()
	if err := r.conn.Ready(); err != nil {
		return err
	}
	body, err := json.Marshal(pullRequest{Batch: n, MaxBytes: bytes, Expires: pullWait})
	if err != nil {
		return err
	}
	messages := make(chan *nats.Msg, n+16) // room for all messages, and for statuses
	inbox := r.conn.client().NewInbox()
	sub, err := r.conn.client().ChanSubscribe(inbox, messages)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only without a connection
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
		case m := <-messages: // usually there is one, which costs a fraction of a wait
			take(m)
			continue
		default:
		}
		select {
		case m := <-messages:
			take(m)
		case <-lost:
			// The server, or its successor, does not know the request.
			p.drain(messages)
			return &notConnectedError{where: r.conn.where}
		case <-ctx.Done():
			p.drain(messages)
			return nil
		case <-timer.C:
			if p.over {
				return fmt.Errorf("request messages: %d messages that the server has sent did not arrive", p.due-p.came)
			}
			return nil // the server is, or will soon be, unavailable
		}
	}
	if p.tooSmall && p.came == 0 {
		return errTooSmall
	}
	return p.err
}

// pulling is the progress of a request.
type pulling struct {
	asked    int // messages
	came     int
	due      int  // the requested number, until the server states how many there are
	over     bool // the server has ended the request
	tooSmall bool // because the next message does not fit
	err      error
	receive  func(*nats.Msg)
}

// take processes a message of the server. A status has no reply subject.
func (p *pulling) take(m *nats.Msg) {
	if m.Reply != "" || m.Header.Get(statusHeader) == "" {
		p.came++
		p.receive(m)
		return
	}
	status, description := m.Header.Get(statusHeader), m.Header.Get(descriptionHeader)
	if status == "100" { // a heartbeat
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
		p.err = fmt.Errorf("request messages: the server answers %s %s", status, description)
	}
}

// drain processes the messages that have already arrived.
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
