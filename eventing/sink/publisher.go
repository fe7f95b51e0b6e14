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
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// batchContentType is that of a batch of CloudEvents in JSON.
const batchContentType = "application/cloudevents-batch+json; charset=UTF-8"

// PublisherConfig sets up a [Publisher]. A field left at zero takes the
// default named beside it.
type PublisherConfig struct {
	// Sink is what belongs to the address beside the URL.
	Sink Config

	// Batch is how many events go into one request, in the batch content mode;
	// with 1 each goes alone in the binary one. What takes no batches gets its
	// events one by one. From 1 to 1000. Defaults to 1.
	Batch int

	// BatchBytes bounds the body of a batch, but for an event that is larger
	// alone. Defaults to 512 KiB, half of what many servers take.
	BatchBytes int

	// InFlight is how many requests one call of Publish has under way at once.
	// Defaults to 64.
	InFlight int

	// Timeout bounds one request. Defaults to 10 s.
	Timeout time.Duration

	// BackoffBase is the wait after the first try that was in vain; it doubles
	// with each, up to BackoffCap. They default to 100 ms and 2 s.
	BackoffBase, BackoffCap time.Duration

	// Logger is told when a sink does not take events (warn, then error once a
	// minute). Defaults to discarding everything.
	Logger *slog.Logger

	// Now is the clock of Retry-After and of the log. Defaults to time.Now.
	Now func() time.Time
}

func (c PublisherConfig) withDefaults() PublisherConfig {
	c.Batch = cmp.Or(c.Batch, 1)
	c.BatchBytes = cmp.Or(c.BatchBytes, 512<<10)
	c.InFlight = cmp.Or(c.InFlight, 64)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.BackoffBase = cmp.Or(c.BackoffBase, 100*time.Millisecond)
	c.BackoffCap = cmp.Or(c.BackoffCap, 2*time.Second)
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
	case c.BatchBytes < 1 || c.InFlight < 1:
		return errors.New("a bound is negative")
	case c.Timeout < 0 || c.BackoffBase < 0 || c.BackoffCap < c.BackoffBase:
		return errors.New("want no negative times, and a backoff cap of at least the base")
	}
	return c.Sink.Validate()
}

// Publisher publishes events to an address that takes CloudEvents over HTTP,
// as a broker's, instead of to a stream. It may be used concurrently.
type Publisher struct {
	client   *http.Client
	url      *url.URL
	public   string // the URL without a password
	failures *failurelog.Log
	cfg      PublisherConfig
}

var _ eventing.Publisher = (*Publisher)(nil)

// NewPublisher makes a SinkPublisher to the sink, an absolute URL. The error
// says what is wrong with the arguments.
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
		client: client, url: u, public: public, cfg: cfg,
		failures: failurelog.New(cfg.Logger, cfg.Now, "publishing to a sink", slog.String("url", public)),
	}, nil
}

// URL is where events go, without a password.
func (p *Publisher) URL() string { return p.public }

// Publish sends events, and returns nil only when the sink answered 2xx to every
// one of them. What may pass (no answer, 5xx, 401, 403, 404, 408, 409, 415, 429, a
// redirect) is tried again until ctx ends; any other answer refuses an event, and
// the error names it. The sink may get an event several times.
func (p *Publisher) Publish(ctx context.Context, events []event.Event) error {
	var group errgroup.Group // an event that is refused holds up no others
	group.SetLimit(p.cfg.InFlight)
	for len(events) > 0 {
		chunk, body, err := p.chunk(events)
		if err != nil {
			return errors.Join(fmt.Errorf("publish to %s: %w", p.public, err), group.Wait())
		}
		events = events[len(chunk):]
		group.Go(func() error { return p.send(ctx, chunk, body) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("publish to %s: %w", p.public, err)
	}
	return nil
}

// chunk takes as many events as go into one request, and gives the body of more
// than one.
func (p *Publisher) chunk(events []event.Event) ([]event.Event, []byte, error) {
	if p.cfg.Batch == 1 {
		return events[:1], nil, nil
	}
	body := []byte{'['}
	n := 0
	for n < min(len(events), p.cfg.Batch) {
		longer, err := cloudevent.AppendJSON(body, p.cfg.Sink.Apply(events[n]))
		if err != nil {
			return nil, nil, fmt.Errorf("encode event %s of %s: %w", events[n].ID(), events[n].Source(), err)
		}
		if n > 0 && len(longer)+1 > p.cfg.BatchBytes {
			break
		}
		body = append(longer, ',')
		n++
	}
	body[len(body)-1] = ']'
	return events[:n], body, nil
}

// send sends a chunk, and its events one by one if the sink does not take them
// together.
func (p *Publisher) send(ctx context.Context, chunk []event.Event, body []byte) error {
	if len(chunk) > 1 {
		r := EncodeBatch(body)
		if err := p.try(ctx, r); err == nil || !errors.As(err, new(*refusal)) {
			return err
		}
	}
	var errs []error
	for _, e := range chunk {
		r, err := Encode(p.cfg.Sink.Apply(e))
		if err == nil {
			err = p.try(ctx, r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("event %s of %s: %w", e.ID(), e.Source(), err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// refusal is an answer that trying again does not change.
type refusal struct {
	code   int
	reason []byte
}

func (r *refusal) Error() string {
	return fmt.Sprintf("refused with %d %s: %s", r.code, http.StatusText(r.code), bytes.TrimSpace(r.reason))
}

// Is makes [eventing.ErrTooLarge] of a refusal for the size.
func (r *refusal) Is(target error) bool {
	return target == eventing.ErrTooLarge && r.code == http.StatusRequestEntityTooLarge
}

// try sends a request until the answer is a verdict. The error is a refusal, or
// why it was tried until ctx ended.
func (p *Publisher) try(ctx context.Context, r *Request) error {
	wait := backoff.Backoff{Base: p.cfg.BackoffBase, Limit: p.cfg.BackoffCap}
	for {
		err := p.once(ctx, r, &wait)
		switch {
		case err == nil:
			p.failures.Succeeded(ctx)
			return nil
		case errors.As(err, new(*refusal)):
			p.failures.Succeeded(ctx)
			return err
		}
		if ctx.Err() == nil {
			p.failures.Failed(ctx, err)
		}
		if !backoff.Sleep(ctx, &wait) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

func (p *Publisher) once(ctx context.Context, r *Request, wait *backoff.Backoff) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	res, err := p.client.Do(r.HTTP(p.url).WithContext(ctx))
	if err != nil {
		return Cause(err)
	}
	defer func() { _ = res.Body.Close() }() // nothing is lost with it
	said, err := ReadReason(res)
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code >= 400 && code < 500 && !mayPass(code), code == http.StatusUnsupportedMediaType && r.Batch:
		return &refusal{code: code, reason: said}
	}
	wait.AtLeast = 0
	if err == nil {
		wait.AtLeast = RetryAfter(res.Header.Get("Retry-After"), p.cfg.Now(), p.cfg.Timeout)
	}
	return &StatusError{Code: res.StatusCode}
}

// mayPass says whether a status in the 400s is not the event's fault, or not for
// ever: a wrong address, a missing permission, a sink of something else.
func mayPass(code int) bool {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout,
		http.StatusConflict, http.StatusUnsupportedMediaType, http.StatusTooManyRequests:
		return true
	}
	return false
}

// Ready reports what keeps events from being published, as far as is known.
func (p *Publisher) Ready() error {
	if err := p.failures.Current(); err != nil {
		return fmt.Errorf("publish to %s: %w", p.public, err)
	}
	return nil
}
