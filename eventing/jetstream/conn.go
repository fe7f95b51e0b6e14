package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
)

// reopenPause is the wait before an attempt to connect again after nats.go has given up.
const reopenPause = 250 * time.Millisecond

// ErrNotConnected says that there is no connection to NATS now. It is being made,
// and the log of [Config] knows why it is not there: it is an
// failurelog.ErrReported.
var ErrNotConnected = errors.New("not connected to NATS")

// notConnectedError is [ErrNotConnected] with the address.
type notConnectedError struct{ where string }

func (e *notConnectedError) Error() string {
	return fmt.Sprintf("%s at %s", ErrNotConnected, e.where)
}

func (e *notConnectedError) Unwrap() []error {
	return []error{ErrNotConnected, failurelog.ErrReported}
}

// Config sets up a [Conn]. The zero Config is ready to use.
type Config struct {
	// Name is what the server lists the connection under: say which program it
	// is and in which cluster. Defaults to "tandem".
	Name string

	// Logger is told when the connection is lost (warn) and made (info), never
	// about passwords. Defaults to discarding everything.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "tandem")
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// Conn is a connection to NATS that is made again for ever. It may be shared.
type Conn struct {
	nc      atomic.Pointer[nats.Conn]
	address string
	options []nats.Option
	logger  *slog.Logger
	where   string // URLs without passwords
	told    atomic.Bool
	closing atomic.Bool

	received, sent atomic.Uint64 // bytes of connections before nc

	storings storings

	mu   sync.Mutex
	apis map[string]natsjs.JetStream  // by prefix
	lost chan struct{}                // closed when the connection is lost, then a new one
	read map[string]map[string]string // by consumer, then by origin, the stream
}

// Connect connects to the servers at address, one URL or several with commas
// between. It does not wait for one to answer: a server that is not there yet is
// tried again until [Conn.Close], and until then everything else says
// [ErrNotConnected]. The error says that the address or the configuration is not
// usable.
func Connect(ctx context.Context, address string, cfg Config) (*Conn, error) {
	cfg = cfg.withDefaults()
	where, err := withoutPasswords(address)
	if err != nil {
		return nil, err
	}
	c := &Conn{address: address, logger: cfg.Logger, where: where, lost: make(chan struct{}), apis: map[string]natsjs.JetStream{}, read: map[string]map[string]string{}}
	c.storings.conn = c
	// The handlers run without a caller whose context they could have, and
	// before there is a client.
	ctx = context.WithoutCancel(ctx)
	c.options = []nats.Option{
		nats.Name(cfg.Name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 500*time.Millisecond),
		nats.Timeout(2 * time.Second),
		// A server that is gone without a word is noticed after 10 to 15 s.
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(nc *nats.Conn) { c.connected(ctx, nc) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { c.connected(ctx, nc) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) { c.disconnected(ctx, nc, err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.inVain(ctx, err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.logger.LogAttrs(ctx, slog.LevelWarn, "NATS reported an error", slog.String("url", c.where), slog.Any("err", err))
		}),
		nats.ClosedHandler(func(nc *nats.Conn) { go c.reopen(ctx, nc) }),
	}
	nc, err := nats.Connect(address, c.options...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", where, err)
	}
	c.nc.CompareAndSwap(nil, nc)
	return c, nil
}

// client returns the connection of nats.go.
func (c *Conn) client() *nats.Conn { return c.nc.Load() }

// reopen connects again after nats.go has given up. It does so for errors of the server
// that it does not know, as when a message exceeds a max_payload that was lowered since.
func (c *Conn) reopen(ctx context.Context, old *nats.Conn) {
	if c.closing.Load() {
		return
	}
	if !c.told.Swap(true) {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "NATS ended the connection; reconnecting", slog.String("url", c.where), slog.Any("err", old.LastError()))
	}
	for !c.closing.Load() {
		time.Sleep(reopenPause)
		nc, err := nats.Connect(c.address, c.options...)
		if err != nil {
			c.inVain(ctx, err)
			continue
		}
		stats := old.Stats()
		c.received.Add(stats.InBytes)
		c.sent.Add(stats.OutBytes)
		// Subscriptions and the contexts of the API are the old connection's.
		c.storings.mu.Lock()
		c.mu.Lock()
		c.nc.Store(nc)
		c.storings.prefix = ""
		clear(c.apis)
		c.mu.Unlock()
		c.storings.mu.Unlock()
		if c.closing.Load() {
			nc.Close()
		}
		return
	}
}

// in gives the JetStream of a domain, or for none that of the server.
func (c *Conn) in(domain string) natsjs.JetStream { return c.at(apiPrefix(domain)) }

// apiPrefix is what the subjects of a domain's API begin with.
func apiPrefix(domain string) string {
	if domain == "" {
		return "$JS.API"
	}
	return "$JS." + domain + ".API"
}

// at gives the JetStream whose API has this prefix.
func (c *Conn) at(prefix string) natsjs.JetStream {
	prefix = strings.TrimSuffix(prefix, ".")
	c.mu.Lock()
	defer c.mu.Unlock()
	if js := c.apis[prefix]; js != nil {
		return js
	}
	js, err := natsjs.NewWithAPIPrefix(c.client(), prefix, natsjs.WithDefaultTimeout(RequestTimeout))
	if err != nil {
		// Domains are checked, and prefixes come from a server.
		panic("jetstream: set up the API at " + prefix + ": " + err.Error())
	}
	c.apis[prefix] = js
	return js
}

// Close sends what is waiting to be sent, within ctx and 5 s, and ends the
// connection. An error says that some of it may not have been sent, as an
// acknowledgement, whose message then comes again.
func (c *Conn) Close(ctx context.Context) error {
	c.closing.Store(true)
	nc := c.client()
	defer nc.Close()
	if !nc.IsConnected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("flush connection to NATS: %w", err)
	}
	return nil
}

// Traffic gives how many bytes of messages were received and sent so far.
func (c *Conn) Traffic() (received, sent uint64) {
	stats := c.client().Stats()
	return c.received.Load() + stats.InBytes, c.sent.Load() + stats.OutBytes
}

// Ready reports [ErrNotConnected] with the address, or nil.
func (c *Conn) Ready() error {
	if c.client().IsConnected() {
		return nil
	}
	return &notConnectedError{where: c.where}
}

// Wait waits until there is a connection, for so long at most. The error is
// [ErrNotConnected] with the address.
func (c *Conn) Wait(ctx context.Context, atMost time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for c.Ready() != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return c.Ready()
		}
	}
	return nil
}

func (c *Conn) connected(ctx context.Context, nc *nats.Conn) {
	c.told.Store(false)
	c.logger.LogAttrs(ctx, slog.LevelInfo, "connected to NATS", slog.String("url", nc.ConnectedUrlRedacted()))
}

func (c *Conn) disconnected(ctx context.Context, nc *nats.Conn, err error) {
	c.mu.Lock()
	close(c.lost)
	c.lost = make(chan struct{})
	c.mu.Unlock()
	if !nc.IsClosed() {
		c.told.Store(true)
		c.logger.LogAttrs(ctx, slog.LevelWarn, "connection to NATS lost; reconnecting",
			slog.String("url", c.where), slog.Any("err", err))
	}
}

// inVain is called for each try; one line is enough.
func (c *Conn) inVain(ctx context.Context, err error) {
	if errors.Is(err, nats.ErrNoServers) {
		return // the next error says why
	}
	if !c.told.Swap(true) {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "cannot connect to NATS; retrying: check NATS_URL",
			slog.String("url", c.where), slog.Any("err", err))
	}
}

// loss is closed when the connection that is there now is lost.
func (c *Conn) loss() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// api gives the context of one request to the JetStream API. It ends after
// [RequestTimeout], and as soon as the connection is lost, since no answer comes then.
func (c *Conn) api(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, timeout := context.WithTimeout(ctx, RequestTimeout)
	ctx, lose := context.WithCancelCause(ctx)
	lost := c.loss()
	go func() {
		select {
		case <-lost:
			lose(&notConnectedError{where: c.where})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		lose(nil)
		timeout()
	}
}

// because gives the reason for err, which came of a request with a context of
// [Conn.api]: the loss of the connection, or err.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrNotConnected) {
		return cause
	}
	return err
}

// withoutPasswords gives the URLs of address as they can be shown.
func withoutPasswords(address string) (string, error) {
	var shown []string
	for part := range strings.SplitSeq(address, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") {
			part = "nats://" + part
		}
		u, err := url.Parse(part)
		if err != nil || u.Host == "" {
			// Not the parser's error: it repeats the URL, password and all.
			return "", errors.New("connect to NATS: want a URL as nats://HOST:4222")
		}
		u.User = nil
		shown = append(shown, u.String())
	}
	return strings.Join(shown, ","), nil
}
