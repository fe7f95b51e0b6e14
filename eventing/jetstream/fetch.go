package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
)

// Fetch reads the message from the stream by its sequence.
func (r *reader) Fetch(ctx context.Context, m eventing.Message) (eventing.Message, error) {
	without, ok := m.(*message)
	if !ok {
		return nil, fmt.Errorf("fetch message %d: it is not a message of this stream", m.Sequence())
	}
	stored, err := r.getMessage(ctx, m.Sequence())
	if err != nil {
		return nil, err
	}
	full := *without
	full.msg = &nats.Msg{Subject: stored.Subject, Reply: without.reply, Header: stored.Header, Data: stored.Data}
	return &full, nil
}

// getMessage returns a message of the stream. The error wraps [eventing.ErrGone] if the stream
// does not have it.
func (r *reader) getMessage(ctx context.Context, sequence uint64) (*natsjs.RawStreamMsg, error) {
	stored, err := repeat(ctx, func(ctx context.Context) (*natsjs.RawStreamMsg, error) {
		ctx, cancel := r.conn.api(ctx)
		defer cancel()
		stored, err := r.stored.GetMsg(ctx, sequence)
		return stored, because(ctx, err)
	})
	direct := r.stored.CachedInfo().Config.AllowDirect
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		err = eventing.ErrGone
		if direct { // any server answers, even one that does not have all messages yet
			var next uint64
			if next, err = r.nextSequence(ctx, sequence); err == nil {
				err = eventing.ErrGone
				if next == sequence {
					err = errors.New("the server that answered does not have it yet")
				}
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("fetch message %d: %w", sequence, err)
	}
	if direct {
		stored.Subject = added(stored.Header, subjectHeader) // the client would return a header of the message with this name
		stored.Header = withoutDirect(stored.Header)
	}
	return stored, nil
}

// Headers that servers add to a message read by a direct get.
const (
	pendingHeader   = "Nats-Num-Pending"
	sequenceHeader  = "Nats-Sequence"
	subjectHeader   = "Nats-Subject"
	timestampHeader = "Nats-Time-Stamp"
)

var directHeaders = []string{"Nats-Stream", subjectHeader, sequenceHeader, timestampHeader, pendingHeader, "Nats-Last-Sequence"}

// withoutDirect returns the headers with which a message was stored, from those of a direct
// get. The identity of a message that is not a CloudEvent depends on them. The server adds its
// own after those of the message.
func withoutDirect(header nats.Header) nats.Header {
	for _, name := range directHeaders {
		switch values := header[name]; len(values) {
		case 0:
		case 1:
			delete(header, name)
		default:
			header[name] = values[:len(values)-1]
		}
	}
	if len(header) == 0 {
		return nil
	}
	return header
}

// added returns the value of a header that the server added.
func added(header nats.Header, name string) string {
	values := header[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// nextSequence asks the leader of the stream for the first sequence of a message from a
// sequence on; 0 if there is none.
func (r *reader) nextSequence(ctx context.Context, from uint64) (uint64, error) {
	return repeat(ctx, func(ctx context.Context) (uint64, error) {
		ctx, cancel := r.conn.api(ctx)
		defer cancel()
		body, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": ">"})
		if err != nil {
			return 0, err
		}
		answer, err := r.conn.client().RequestWithContext(ctx, apiPrefix(r.stream.cfg.Domain)+".STREAM.MSG.GET."+r.stream.cfg.Name, body)
		if err != nil {
			return 0, because(ctx, err)
		}
		var got struct {
			Error   *natsjs.APIError `json:"error"`
			Message struct {
				Sequence uint64 `json:"seq"`
			} `json:"message"`
		}
		if err := json.Unmarshal(answer.Data, &got); err != nil {
			return 0, err
		}
		switch {
		case got.Error == nil:
			return got.Message.Sequence, nil
		case got.Error.ErrorCode == natsjs.ErrMsgNotFound.APIError().ErrorCode:
			return 0, nil
		default:
			return 0, got.Error
		}
	})
}

const (
	// directBatch is the number of messages in one direct get, and plainBatch the number
	// of concurrent gets from a stream that does not allow direct gets.
	directBatch = 512
	plainBatch  = 16

	// directStall is the longest wait for the next message of a request.
	directStall = 2 * time.Second
)

// getMessages returns messages of the stream from a sequence on and before end, at most n, in
// order, of at most bytes together if there are several, and the sequence at which to
// continue.
func (r *reader) getMessages(ctx context.Context, from, end uint64, n, bytes int) ([]*natsjs.RawStreamMsg, uint64, error) {
	n = int(min(uint64(n), end-from))
	if !r.stored.CachedInfo().Config.AllowDirect {
		return r.getPlainly(ctx, from, min(n, plainBatch), bytes)
	}
	got, complete, err := r.getDirectly(ctx, from, min(n, directBatch), bytes)
	if err != nil {
		return nil, from, err
	}
	if i := slices.IndexFunc(got, func(m *natsjs.RawStreamMsg) bool { return m.Sequence >= end }); i >= 0 {
		return got[:i], end, nil
	}
	next := from
	if len(got) > 0 {
		next = got[len(got)-1].Sequence + 1
	}
	if next >= end || complete {
		return got, next, nil
	}
	// The rest is deleted, or the server that answered does not have it yet.
	first, err := r.nextSequence(ctx, next)
	switch {
	case err != nil:
		return got, next, err
	case first == 0 || first >= end:
		return got, end, nil
	default:
		return got, first, nil
	}
}

// getPlainly reads messages one by one from the leader of the stream.
func (r *reader) getPlainly(ctx context.Context, from uint64, n, bytes int) (got []*natsjs.RawStreamMsg, next uint64, err error) {
	type answer struct {
		message *natsjs.RawStreamMsg
		err     error
	}
	answers := make([]chan answer, n)
	for i := range answers {
		answers[i] = make(chan answer, 1)
		go func() {
			m, err := r.getMessage(ctx, from+uint64(i))
			answers[i] <- answer{m, err}
		}()
	}
	next = from
	for _, a := range answers {
		switch a := <-a; {
		case errors.Is(a.err, eventing.ErrGone):
		case a.err != nil:
			return got, next, a.err
		default:
			if bytes -= len(a.message.Data); bytes < 0 && len(got) > 0 {
				return got, next, nil
			}
			got = append(got, a.message)
		}
		next++
	}
	return got, next, nil
}

// getDirectly reads messages with one request, from any server of the stream. Complete
// reports whether it ended for another reason than that this server has no more.
func (r *reader) getDirectly(ctx context.Context, from uint64, n, bytes int) (got []*natsjs.RawStreamMsg, complete bool, err error) {
	lost := r.conn.loss()
	if err := r.conn.Ready(); err != nil {
		return nil, false, err
	}
	body, err := json.Marshal(map[string]any{"seq": from, "batch": n, "max_bytes": max(bytes, 1)})
	if err != nil {
		return nil, false, err
	}
	messages := make(chan *nats.Msg, n+16)
	inbox := r.conn.client().NewInbox()
	sub, err := r.conn.client().ChanSubscribe(inbox, messages)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only without a connection
	if err := r.conn.client().PublishRequest(apiPrefix(r.stream.cfg.Domain)+".DIRECT.GET."+r.stream.cfg.Name, inbox, body); err != nil {
		return nil, false, err
	}
	timer := time.NewTimer(directStall)
	defer timer.Stop()
	more := true // this server has more messages
	for {
		select {
		case m := <-messages:
			timer.Reset(directStall)
			switch status := m.Header.Get(statusHeader); {
			case m.Header.Get(sequenceHeader) != "":
			case status == "204":
				return got, more, nil
			case status == "404":
				return got, false, nil
			default:
				return nil, false, fmt.Errorf("get messages from %d on: the server answers %s %s", from, status, m.Header.Get(descriptionHeader))
			}
			stored, err := parseDirect(m)
			if err != nil {
				return nil, false, err
			}
			got = append(got, stored)
			pending := added(m.Header, pendingHeader)
			stored.Header = withoutDirect(m.Header)
			if more = pending != "0"; pending == "" { // a server that does not support batches has sent all
				return got, true, nil
			}
		case <-lost:
			return nil, false, &notConnectedError{where: r.conn.where}
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-timer.C:
			return nil, false, fmt.Errorf("get messages from %d on: %w", from, context.DeadlineExceeded)
		}
	}
}

// parseDirect parses the headers that the server added to a message.
func parseDirect(m *nats.Msg) (*natsjs.RawStreamMsg, error) {
	stored := &natsjs.RawStreamMsg{Subject: added(m.Header, subjectHeader), Header: m.Header, Data: m.Data}
	if _, err := fmt.Sscan(added(m.Header, sequenceHeader), &stored.Sequence); err != nil {
		return nil, fmt.Errorf("get a message: its sequence: %w", err)
	}
	var err error
	if stored.Time, err = time.Parse(time.RFC3339Nano, added(m.Header, timestampHeader)); err != nil {
		return nil, fmt.Errorf("get message %d: its time: %w", stored.Sequence, err)
	}
	return stored, nil
}
