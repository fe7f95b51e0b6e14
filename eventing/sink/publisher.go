package sink

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// batchContentType is the content type of a batch of CloudEvents in JSON.
const batchContentType = "application/cloudevents-batch+json; charset=UTF-8"

// structuredContentType is the content type of one CloudEvent in JSON.
const structuredContentType = "application/cloudevents+json; charset=UTF-8"

// PublisherConfig is the configuration of a [Publisher].
type PublisherConfig struct {
	// Sink is the configuration of the address, without the URL.
	Sink Config

	// Batch is the maximum number of events in one request, in the batch content mode;
	// with 1, each is sent alone in the binary mode. A sink that does not accept
	// batches receives single events. From 1 to 1000. Defaults to 1.
	Batch int

	// BatchBytes bounds the body of a batch; an event that is larger is sent alone.
	// Defaults to 512 KiB, half of what many servers accept.
	BatchBytes int

	// MaxEventBytes is the largest event that the sink accepts, in bytes of its data.
	// Defaults to 0, which means no limit.
	MaxEventBytes int64

	// InFlight is the maximum number of requests at once, of all calls of Publish together.
	// Types that fail take at most a quarter of them. A request without an answer does not
	// count after a second, up to twice as many. Defaults to 64.
	InFlight int

	// Timeout bounds one request. Defaults to 10 s.
	Timeout time.Duration

	// Logger logs a sink that does not accept events (first at warn, then at error once
	// a minute). Defaults to discarding everything.
	Logger *slog.Logger

	// Now is the clock of Retry-After and of the log. Defaults to time.Now.
	Now func() time.Time
}

func (c PublisherConfig) withDefaults() PublisherConfig {
	c.Batch = cmp.Or(c.Batch, 1)
	c.BatchBytes = cmp.Or(c.BatchBytes, 512<<10)
	c.InFlight = cmp.Or(c.InFlight, 64)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

func (c PublisherConfig) validate() error {
	switch {
	case c.Batch < 1 || c.Batch > 1000:
		return fmt.Errorf("batch of %d events: want 1 to 1000", c.Batch)
	case c.BatchBytes < 1 || c.InFlight < 1 || c.MaxEventBytes < 0:
		return errors.New("a bound is negative")
	case c.Timeout < 0:
		return errors.New("the timeout is negative")
	}
	return c.Sink.Validate()
}

// probes is the number of events of a type that a call of Publish sends, and how many
// of them may fail, after a call in which all events of the type failed.
const probes = 4

// grace is the time that requests under way have to finish after the context of Publish
// has ended: an event whose request is aborted may have been accepted, and is sent
// again.
const grace = 5 * time.Second

// Publisher publishes events to an address that accepts CloudEvents over HTTP, for
// example a broker's, instead of to a stream. It is safe for concurrent use.
type Publisher struct {
	client   *http.Client
	url      *url.URL
	public   string // without a password
	failures *failurelog.Log
	cfg      PublisherConfig

	places *places

	mu    sync.Mutex
	pause time.Time // the end of the pause that the sink requested
}

var _ eventing.Publisher = (*Publisher)(nil)

// NewPublisher returns a Publisher to the sink, an absolute URL. The error describes an
// invalid argument.
func NewPublisher(sink string, cfg PublisherConfig) (*Publisher, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up publisher: %w", err)
	}
	u, public, err := ParseURL(sink)
	if err != nil {
		return nil, fmt.Errorf("set up publisher: URL of the sink: %w", err)
	}
	client, err := cfg.Sink.client(u, cfg.InFlight)
	if err != nil {
		return nil, fmt.Errorf("set up publisher: %w", err)
	}
	return &Publisher{
		client: client, url: u, public: public, cfg: cfg, places: newPlaces(cfg.InFlight, cfg.Now),
		failures: failurelog.New(cfg.Logger, cfg.Now, "publishing outputs to a sink; they stay in the outbox", slog.String("url", public)),
	}, nil
}

// URL returns the address of the sink, without a password.
func (p *Publisher) URL() string { return p.public }

// Check returns a [eventing.Rejection] for an event that is larger than
// [PublisherConfig].MaxEventBytes.
func (p *Publisher) Check(_ context.Context, e event.Event) error {
	size, most := int64(len(e.DataEncoded)), p.cfg.MaxEventBytes
	if most == 0 || size <= most {
		return nil
	}
	return &eventing.Rejection{Code: http.StatusRequestEntityTooLarge, Err: fmt.Errorf("%w: its data has %d bytes, TANDEM_OUTPUT_MAX_BYTES is %d", eventing.ErrTooLarge, size, most)}
}

// Publish sends events, each once, and returns nil only if the sink answered 2xx to all of them. An
// event that is answered with 400, 413, 415, 422 or 431 is a [eventing.Rejection]. After any other
// answer, or none, the event may be published again.
//
// Of a type that fails, Publish sends only a few events, and only in a call that has no other type.
// A type that the sink rejects or does not answer delays no other type. When as many events as can
// be under way have failed and none was accepted, the rest is not sent. When ctx ends, requests
// under way have 5 s to finish.
func (p *Publisher) Publish(ctx context.Context, events []event.Event) error {
	c := p.newCall(ctx, events)
	var requests sync.WaitGroup
	for {
		g, l := c.next()
		if g == nil {
			break
		}
		chunk, body := c.chunk(g)
		requests.Go(func() { c.send(g, l, chunk, body) })
	}
	requests.Wait()
	c.end()
	if err := contract.Published(c.reasons); err != nil {
		return fmt.Errorf("publish to %s: %w", p.public, err)
	}
	return nil
}

// Ready returns why events cannot be published; nil if no reason is known.
func (p *Publisher) Ready() error {
	if err := p.failures.Current(); err != nil {
		return fmt.Errorf("publish to %s: %w", p.public, err)
	}
	return nil
}

// send sends a request once. It returns nil if the sink answered 2xx.
func (p *Publisher) send(ctx context.Context, r *Request) error {
	err := p.request(ctx, r)
	if err == nil || errors.As(err, new(*eventing.Rejection)) {
		p.failures.Succeeded(ctx)
	} else if ctx.Err() == nil {
		p.failures.Failed(ctx, err)
	}
	return err
}

func (p *Publisher) request(ctx context.Context, r *Request) error {
	request, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.Timeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()
	res, err := p.client.Do(r.HTTP(p.url).WithContext(request))
	if err != nil && request.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("no answer within %s", p.cfg.Timeout) // not the end of the caller's context
	}
	if err != nil {
		return Cause(err)
	}
	defer func() { _ = res.Body.Close() }() // the body is not needed
	said, err := ReadReason(res)
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case rejects(code):
		return &eventing.Rejection{Code: code, Err: refusal(code, said)}
	}
	if wait := RetryAfter(res.Header.Get("Retry-After"), p.cfg.Now(), p.cfg.Timeout); err == nil && wait > 0 {
		p.mu.Lock()
		p.pause = p.cfg.Now().Add(wait)
		p.mu.Unlock()
	}
	return &StatusError{Code: res.StatusCode}
}

// refusal returns the error for a status that rejects an event.
func refusal(code int, said []byte) error {
	err := fmt.Errorf("rejected with %d %s: %s", code, http.StatusText(code), bytes.TrimSpace(said))
	if code == http.StatusRequestEntityTooLarge {
		return fmt.Errorf("%w: %w", eventing.ErrTooLarge, err)
	}
	return err
}

// rejects reports whether a status rejects an event permanently. Every other status is
// about the address, a permission, or the sink's own state, which may change.
func rejects(code int) bool {
	switch code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType,
		http.StatusUnprocessableEntity, http.StatusRequestHeaderFieldsTooLarge:
		return true
	}
	return false
}
