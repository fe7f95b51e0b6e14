package jetstream

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

const (
	// limitsAge is the maximum age of the stream's limits for accepting an event.
	limitsAge = 10 * time.Second

	// limitsFresh is the maximum age for rejecting an event, and the pause after a
	// failed lookup.
	limitsFresh = time.Second

	// limitsTimeout bounds the lookup for which an event waits.
	limitsTimeout = 2 * time.Second

	// unknownLimit is the size above which an event waits for unknown limits.
	unknownLimit = 64 << 10

	// maxHeader is the maximum size of headers in JetStream, in bytes.
	maxHeader = 1<<16 - 1
)

// limits are the known limits of a stream. It is safe for concurrent use.
type limits struct {
	looking chan struct{} // holds a token during a lookup

	mu      sync.Mutex
	known   bool
	message int64     // max_msg_size; 0 for none
	learned time.Time // when message was learned
	tried   time.Time // the end of the latest lookup
}

// learn records the limits of a stream.
func (l *limits) learn(info *natsjs.StreamInfo) {
	at := time.Now() //nolint:forbidigo // an age
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.message, l.learned = true, max(0, int64(info.Config.MaxMsgSize)), at
}

// get returns max_msg_size, whether it is known, and its age.
func (l *limits) get() (message int64, known bool, age time.Duration) {
	at := time.Now() //nolint:forbidigo // an age
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.message, l.known, at.Sub(l.learned)
}

// lookUpLimits looks up the limits, unless another call has just done so.
func (p *Publisher) lookUpLimits(ctx context.Context) {
	l := &p.limits
	select {
	case l.looking <- struct{}{}:
		defer func() { <-l.looking }()
	case <-ctx.Done():
		return
	}
	l.mu.Lock()
	fresh := time.Since(l.tried) < limitsFresh //nolint:forbidigo // an age
	l.mu.Unlock()
	if fresh {
		return
	}
	if p.conn.Wait(ctx, limitsTimeout) == nil {
		_, _ = p.find(ctx) // it learns the limits; the next event tries again
	}
	l.mu.Lock()
	l.tried = time.Now() //nolint:forbidigo // an age
	l.mu.Unlock()
}

// Check returns a [eventing.Rejection] for an event that the stream can never accept: one
// that is larger, with its headers, than max_payload of the server or max_msg_size of the
// stream. It returns nil if the event is acceptable, and while the limits are unknown. A
// changed limit is known after some seconds, and before an event is rejected.
func (p *Publisher) Check(ctx context.Context, e event.Event) error {
	most := upperBound(e)
	stream, known, age := p.limits.get()
	switch payload := p.conn.client().MaxPayload(); {
	case !known && most <= unknownLimit, known && most <= min(maxHeader, atLeast(stream), atLeast(payload)):
		if age > limitsAge && len(p.limits.looking) == 0 {
			go func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), RequestTimeout)
				defer cancel()
				p.lookUpLimits(ctx)
			}()
		}
		return nil
	}
	err := p.exceeds(e)
	if known && (err == nil && age < limitsAge || err != nil && age < limitsFresh) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limitsTimeout)
	defer cancel()
	p.lookUpLimits(ctx)
	return p.exceeds(e)
}

// atLeast returns a limit of the server as one that can be compared: a limit of 0 or
// less means none, and becomes the largest size.
func atLeast(limit int64) int64 {
	if limit <= 0 {
		return 1 << 62
	}
	return limit
}

// exceeds returns a [eventing.Rejection] for an event that exceeds a known limit.
func (p *Publisher) exceeds(e event.Event) error {
	m := newMessage()
	if err := encode(m, e, ""); err != nil {
		return err
	}
	size, header := int64(messageSize(m)), int64(messageSize(m)-len(m.Data))
	stream, _, _ := p.limits.get()
	tooLarge := func(code int, is string, bytes int64, limit string, most int64) error {
		return &eventing.Rejection{Code: code, Err: fmt.Errorf("%w: %s %d bytes, %s is %d", eventing.ErrTooLarge, is, bytes, limit, most)}
	}
	switch payload := p.conn.client().MaxPayload(); {
	case size > atLeast(stream):
		return tooLarge(http.StatusRequestEntityTooLarge, "it has with its headers", size, "max_msg_size of stream "+p.cfg.Name, stream)
	case size > atLeast(payload):
		return tooLarge(http.StatusRequestEntityTooLarge, "it has with its headers", size, "max_payload of the server", payload)
	case header > maxHeader:
		return tooLarge(http.StatusRequestHeaderFieldsTooLarge, "its headers have", header, "the limit of JetStream", maxHeader)
	}
	return nil
}

// upperBound returns an upper bound of the size of an event's message. It is cheaper
// than encoding it.
func upperBound(e event.Event) int64 {
	const fixed, perAttribute, perByte = 512, 16, 3 // names and line ends; percent-encoding
	n := len(e.ID()) + len(cloudevent.Source(e)) + len(e.Type()) + len(e.Subject()) + len(e.DataContentType()) + len(e.DataSchema())
	attributes := 0
	if v1, ok := e.Context.(*event.EventContextV1); ok {
		for name, value := range v1.Extensions {
			text, ok := value.(string)
			if !ok {
				text = fmt.Sprint(value)
			}
			n += len(name) + len(text)
			attributes++
		}
	}
	return int64(fixed + perAttribute*attributes + perByte*n + len(e.DataEncoded))
}
