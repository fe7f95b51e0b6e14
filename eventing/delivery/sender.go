package delivery

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/sink"
)

// DefaultInFlight is the default maximum number of events in requests at once.
const DefaultInFlight = 1024

// Config is the configuration of a [Sender].
type Config struct {
	// Function is the function's name, sent with dead letters as the extension
	// tandemfunction. Required.
	Function string

	// Timeout bounds one attempt, from connecting to the end of the answer. It must
	// exceed the function's cold start. Defaults to 60 s.
	Timeout time.Duration

	// Grace is the time that an attempt under way has to finish after ctx ended.
	// Defaults to 2 s.
	Grace time.Duration

	// TryFor is how long an event may break the function, which means an answer of 500,
	// before it becomes a dead letter. Times in which the function was unavailable do not
	// count, and at least three answers are needed. Defaults to 15 min.
	TryFor time.Duration

	// BackoffBase is the wait after the first failed attempt. It doubles with each, up
	// to BackoffCap. Defaults to 100 ms.
	BackoffBase time.Duration

	// BackoffCap bounds the wait between two attempts. A high value delays events after
	// the function has recovered. Defaults to 5 s.
	BackoffCap time.Duration

	// RetryAfterCap bounds the wait that a Retry-After header can request. Defaults to
	// 60 s.
	RetryAfterCap time.Duration

	// InFlight is the maximum number of requests at once; as many idle connections are
	// kept open. Defaults to [DefaultInFlight].
	InFlight int

	// SaveDeadLetter saves a dead letter that its sink has rejected several times, for example
	// with 413: the event, and code, reason and number of its attempts. If nil, the dead
	// letter is retried without end.
	SaveDeadLetter func(ctx context.Context, e event.Event, code int, reason string, attempts int) error

	// Broker reports whether the sink is a Broker, or another server that stores the events
	// that it answers with 2xx. Otherwise it is a function, and a 2xx without a receipt is
	// not an acknowledgement: the answer is another server's, for example a default
	// backend's, and the event is retried.
	Broker bool

	// Sink is the configuration of the function's address, without the URL.
	Sink sink.Config

	// Failed is called after each attempt that had no answer, or one that is not the
	// event's fault. Nil does nothing.
	Failed func(context.Context)

	// Logger logs a function that does not answer (first at warn, then at error once a
	// minute) and rejected events (warn), but no payloads. Defaults to discarding
	// everything.
	Logger *slog.Logger

	// Now is the clock of Retry-After and of the log. Defaults to time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	c.Timeout = cmp.Or(c.Timeout, 60*time.Second)
	c.Grace = cmp.Or(c.Grace, 2*time.Second)
	c.TryFor = cmp.Or(c.TryFor, 15*time.Minute)
	c.BackoffBase = cmp.Or(c.BackoffBase, 100*time.Millisecond)
	c.BackoffCap = cmp.Or(c.BackoffCap, 5*time.Second)
	c.RetryAfterCap = cmp.Or(c.RetryAfterCap, 60*time.Second)
	c.InFlight = cmp.Or(c.InFlight, DefaultInFlight)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Failed == nil {
		c.Failed = func(context.Context) {}
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Function == "":
		return errors.New("function: missing")
	case c.Timeout < 0 || c.Grace < 0 || c.TryFor < 0 || c.BackoffBase < 0 || c.BackoffCap < 0 || c.RetryAfterCap < 0:
		return errors.New("a duration is negative")
	case c.BackoffCap < c.BackoffBase:
		return fmt.Errorf("backoff cap %s: want at least the backoff base %s", c.BackoffCap, c.BackoffBase)
	case c.InFlight < 0:
		return fmt.Errorf("in flight %d: want at least 1", c.InFlight)
	}
	return c.Sink.Validate()
}

// Sender sends events to a function over HTTP: single ones in the binary content mode of
// CloudEvents, and batches to a function that states that it accepts them. It is safe
// for concurrent use.
type Sender struct {
	outages     outages
	batch       batchLimit // the limit of the function
	types       functionTypes
	isFunction  atomic.Bool // a function has answered at its address
	client      *http.Client
	balancer    *balancer
	function    *target
	deadLetters *target
	cfg         Config
}

// target is a destination of events.
type target struct {
	members    []member
	public     string // its first URL, without a password
	failures   *failurelog.Log
	atFunction bool // at the function's addresses
}

// New returns a Sender to the function at sink. Events that the function rejects are
// sent to deadLetterSink. Both are absolute URLs, http or https, each with the
// addresses of several instances separated by commas. The error names an invalid one.
func New(sink, deadLetterSink string, cfg Config) (*Sender, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up delivery: %w", err)
	}
	d := &Sender{cfg: cfg}
	d.balancer = &balancer{cfg: &d.cfg, probe: d.ask, instances: map[string]*instance{}}
	var err error
	if d.function, err = d.newTarget("function", sink); err != nil {
		return nil, err
	}
	if d.deadLetters, err = d.newTarget("dead letter sink", deadLetterSink); err != nil {
		return nil, err
	}
	transport, err := cfg.Sink.Transport(cfg.InFlight, d.function.urls()...)
	if err != nil {
		return nil, fmt.Errorf("set up delivery: %w", err)
	}
	d.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return d, nil
}

// Broker reports whether the sink stores events instead of committing them
// ([Config.Broker]).
func (d *Sender) Broker() bool { return d.cfg.Broker }

func (d *Sender) newTarget(what, addresses string) (*target, error) {
	t := &target{atFunction: true}
	for address := range strings.SplitSeq(addresses, ",") {
		u, public, err := sink.ParseURL(strings.TrimSpace(address))
		if err != nil {
			return nil, fmt.Errorf("set up delivery: URL of the %s: %w", what, err)
		}
		in := d.balancer.instanceAt(u, public)
		if slices.ContainsFunc(t.members, func(m member) bool { return m.instance == in }) {
			return nil, fmt.Errorf("set up delivery: URL of the %s: %s://%s is named twice", what, u.Scheme, u.Host)
		}
		t.atFunction = t.atFunction && (d.function == nil || d.function.has(u.Host))
		t.members = append(t.members, member{instance: in, url: u})
		t.public = cmp.Or(t.public, public)
	}
	t.failures = failurelog.New(d.cfg.Logger, d.cfg.Now, "delivering to the "+what+"; its events are retried", slog.String("url", t.public))
	return t, nil
}

// has reports whether an instance of the target is at a host.
func (t *target) has(host string) bool {
	return slices.ContainsFunc(t.members, func(m member) bool { return m.url.Host == host })
}

func (t *target) urls() []*url.URL {
	urls := make([]*url.URL, len(t.members))
	for i, m := range t.members {
		urls[i] = m.url
	}
	return urls
}

// maxOutcomes bounds the outcomes of a batch, in bytes.
const maxOutcomes = 4 << 20

// answer is the answer to one request.
type answer struct {
	status   int // 0 if there was no answer
	outcome  outcome.Outcome
	outcomes []outcome.Outcome // of the events of a batch; nil if it has none
	receipt  string            // of a single event
	body     []byte            // its beginning, of a single event
	answered bool              // the function answered for an event
	err      error             // why it is retried
	brokenBy string            // how the connection broke after the request was sent; empty if it did not
	draining bool              // the function is shutting down
	versions string            // of the functions

	unsent    bool // there was no connection
	elsewhere bool // another instance may have another answer
}

// send sends a request of so many events once, and again to another instance if the first one
// is unavailable, and returns the answer. Usual reports whether the events were not sent
// before. Stays reports whether one of the events may make an instance hang.
func (d *Sender) send(ctx context.Context, t *target, r *sink.Request, events int, usual, stays bool) answer {
	// A request may outlive ctx by the grace, because the function may be about to
	// commit.
	tryCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Timeout)
	defer cancel()
	unhook := context.AfterFunc(ctx, func() { time.AfterFunc(d.cfg.Grace, cancel) })
	defer unhook()

	var a answer
	var sent []*instance
	for m := d.balancer.pick(t, nil); m != nil; m = d.balancer.pick(t, sent) {
		if len(sent) > 0 {
			d.cfg.Failed(ctx)
		}
		if len(t.members) == 1 {
			a = d.sendTo(tryCtx, t, m.url, r, events)
			break
		}
		watched, w := d.balancer.watch(tryCtx, t, m.instance, stays)
		a = d.sendTo(watched, t, m.url, r, events)
		w.end(tryCtx, &a, usual)
		if !a.elsewhere || ctx.Err() != nil {
			break
		}
		sent, stays = append(sent, m.instance), stays || w.abandoned
	}
	if a.outcome.Kind != outcome.Deployment || !r.Has(outcome.KeyHeader) { // the attempt is expected to fail
		a.report(ctx, t)
	}
	return a
}

// sendTo sends a request to a URL of a target.
func (d *Sender) sendTo(ctx context.Context, t *target, u *url.URL, r *sink.Request, events int) answer {
	ctx, sent := traceSent(ctx)
	res, err := d.client.Do(r.HTTP(u).WithContext(ctx))
	if err != nil {
		return answer{err: sink.Cause(err), brokenBy: sent.brokenBy(err), unsent: !sent.connected.Load()}
	}
	defer func() { _ = res.Body.Close() }() // the body is not needed
	if t == d.function {
		d.batch.read(d.cfg.Now(), res)
		d.types.read(d.cfg.Now(), res.Header)
	}
	if t.atFunction && isOfFunction(res) {
		d.isFunction.Store(true)
	}
	a := answer{status: res.StatusCode, draining: res.Header.Get(outcome.DrainingHeader) != "", versions: res.Header.Get(eventing.VersionsHeader)}
	if r.Batch && res.Header.Get("Content-Type") == outcome.OutcomesType {
		if err := a.readOutcomes(res, events); err != nil {
			return answer{status: res.StatusCode, err: err}
		}
	} else {
		a.body, err = sink.ReadReason(res)
		a.receipt = res.Header.Get(outcome.ReceiptHeader)
		a.outcome = outcome.FromHTTP(res.StatusCode, res.Header, string(a.body))
		a.brokenBy = brokenBehind(res, a.body)
		if err == nil {
			a.outcome.RetryAfter = sink.RetryAfter(res.Header.Get("Retry-After"), d.cfg.Now(), d.cfg.RetryAfterCap)
		}
		if a.outcome.Kind == outcome.Committed && !d.acknowledges(t, res.Header) {
			a.outcome.Kind, a.outcome.Won = outcome.Unavailable, false
		}
	}
	a.judge()
	return a
}

// acknowledges reports whether a 2xx with this header acknowledges an event or dead letter.
// A function's answers to events have receipts. For a dead letter sink at the function's
// address it is enough that a function has answered there before; any other dead letter
// sink may be anything that stores the events that it answers with 2xx.
func (d *Sender) acknowledges(t *target, header http.Header) bool {
	if t == d.deadLetters {
		return d.cfg.Broker || d.isFunction.Load() || !t.atFunction
	}
	return d.cfg.Broker || hasReceipt(header)
}

// hasReceipt reports whether an answer has a receipt. A 2xx of a function has one; without
// it, the answer is another server's, which did not commit the event.
func hasReceipt(header http.Header) bool {
	receipt := header.Get(outcome.ReceiptHeader)
	return receipt == outcome.ReceiptWon || receipt == outcome.ReceiptLost
}

// isOfFunction reports whether an answer is a function's.
func isOfFunction(res *http.Response) bool {
	return hasReceipt(res.Header) || res.Header.Get(outcome.MaxBatchHeader) != "" || res.StatusCode == http.StatusUnprocessableEntity
}

// readOutcomes reads the outcomes of the events of a batch.
func (a *answer) readOutcomes(res *http.Response, events int) error {
	var body bytes.Buffer
	body.Grow(int(min(max(0, res.ContentLength), maxOutcomes)) + bytes.MinRead)
	_, err := body.ReadFrom(io.LimitReader(res.Body, maxOutcomes))
	if err == nil {
		a.outcomes, err = outcome.Parse(body.Bytes(), events)
	}
	if err != nil {
		return fmt.Errorf("read the outcomes of a batch: %w", err)
	}
	return nil
}

// judge sets whether the function has answered for an event, or why not.
func (a *answer) judge() {
	all := a.outcomes
	if all == nil {
		all = []outcome.Outcome{a.outcome}
	}
	for _, o := range all {
		switch o.Kind {
		case outcome.Committed, outcome.Rejected, outcome.Pending:
			a.answered, a.err = true, nil
			return
		case outcome.Failed:
			a.answered = true
		case outcome.Deployment, outcome.Unavailable:
		}
		a.err = &sink.StatusError{Code: cmp.Or(o.Status, a.status)}
	}
}

// report records whether the function answers.
func (a *answer) report(ctx context.Context, t *target) {
	switch {
	case a.err == nil:
		t.failures.Succeeded(ctx)
	case a.status > 0 || ctx.Err() == nil:
		t.failures.Failed(ctx, a.err)
	}
}

// Ready returns why events cannot be delivered; nil if no reason is known.
func (d *Sender) Ready() error {
	for _, t := range []*target{d.function, d.deadLetters} {
		if err := t.failures.Current(); err != nil {
			return fmt.Errorf("deliver to %s: %w", t.public, err)
		}
	}
	return nil
}

// Probe checks whether a host of the function accepts connections, without a request
// that would start a function that is scaled to zero. The result is logged and affects
// [Sender.Ready]; the error lets a caller retry. With a proxy in between it checks
// nothing, and returns nil.
func (d *Sender) Probe(ctx context.Context) error {
	var err error
	for _, u := range d.function.urls() {
		if err = dial(ctx, u); err == nil {
			d.function.failures.Succeeded(ctx)
			return nil
		}
	}
	if ctx.Err() == nil {
		d.function.failures.Failed(ctx, err)
	}
	return fmt.Errorf("connect to the function: %w", err)
}

// dial connects to the host of a URL, unless a proxy is in between.
func dial(ctx context.Context, u *url.URL) error {
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err != nil || proxy != nil {
		return nil //nolint:nilerr // the first delivery will tell
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme // net.Dial knows http and https
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	_ = conn.Close() // it was not used
	return nil
}
