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

// reopenPause is the wait before connecting again after nats.go has closed the
// connection.
const reopenPause = 250 * time.Millisecond

// ErrNotConnected means that there is no connection to NATS now. The connection is
// being retried, and the reason is in the log of [Config]: the error wraps
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

// Config is the configuration of a [Conn]. The zero Config is ready to use.
type Config struct {
	// Name is the name of the connection in the server's lists: the program and its
	// cluster. Defaults to "tandem".
	Name string

	// Logger logs when the connection is lost (warn) and made (info), without
	// passwords. Defaults to discarding everything.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "tandem")
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// Conn is a connection to NATS that reconnects without limit. It may be shared.
type Conn struct {
	nc      atomic.Pointer[nats.Conn]
	address string
	options []nats.Option
	logger  *slog.Logger
	where   string // without passwords
	told    atomic.Bool
	closing atomic.Bool

	received, sent atomic.Uint64 // of connections before nc

	storings storings

	mu   sync.Mutex
	apis map[string]natsjs.JetStream  // by prefix
	lost chan struct{}                // is closed when the connection is lost, and replaced
	read map[string]map[string]string // by consumer, then by origin, the stream
}

// Connect connects to the servers at address, one URL or several separated by commas.
// It does not wait for an answer: it retries until [Conn.Close], and until there is a
// connection all other calls return [ErrNotConnected]. The error means that the address
// or the configuration is invalid.
func Connect(ctx context.Context, address string, cfg Config) (*Conn, error) {
	cfg = cfg.withDefaults()
	where, err := withoutPasswords(address)
	if err != nil {
		return nil, err
	}
	c := &Conn{address: address, logger: cfg.Logger, where: where, lost: make(chan struct{}), apis: map[string]natsjs.JetStream{}, read: map[string]map[string]string{}}
	c.storings.conn = c
	// The handlers run without a caller's context, and before there is a client.
	ctx = context.WithoutCancel(ctx)
	c.options = []nats.Option{
		nats.Name(cfg.Name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 500*time.Millisecond),
		nats.Timeout(2 * time.Second),
		// A server that disappears is detected after 10 to 15 s.
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(func(nc *nats.Conn) { c.connected(ctx, nc) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { c.connected(ctx, nc) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) { c.disconnected(ctx, nc, err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.logConnectFailure(ctx, err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.logger.LogAttrs(ctx, slog.LevelWarn, "NATS reported an error: see err and the server's log", slog.String("url", c.where), slog.Any("err", err))
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

// client returns the current connection of nats.go.
func (c *Conn) client() *nats.Conn { return c.nc.Load() }

// reopen connects again after nats.go has closed the connection. nats.go does so for
// errors of the server that it does not know, for example when a message exceeds a
// max_payload that was lowered meanwhile.
func (c *Conn) reopen(ctx context.Context, old *nats.Conn) {
	if c.closing.Load() {
		return
	}
	if !c.told.Swap(true) {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "NATS closed the connection; reconnecting: see err", slog.String("url", c.where), slog.Any("err", old.LastError()))
	}
	for !c.closing.Load() {
		time.Sleep(reopenPause)
		nc, err := nats.Connect(c.address, c.options...)
		if err != nil {
			c.logConnectFailure(ctx, err)
			continue
		}
		stats := old.Stats()
		c.received.Add(stats.InBytes)
		c.sent.Add(stats.OutBytes)
		// Subscriptions and the contexts of the API belong to the old connection.
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

// in returns the JetStream API of a domain; without a domain, that of the server.
func (c *Conn) in(domain string) natsjs.JetStream { return c.at(apiPrefix(domain)) }

// apiPrefix returns the prefix of the subjects of a domain's API.
func apiPrefix(domain string) string {
	if domain == "" {
		return "$JS.API"
	}
	return "$JS." + domain + ".API"
}

// at returns the JetStream API with this prefix.
func (c *Conn) at(prefix string) natsjs.JetStream {
	prefix = strings.TrimSuffix(prefix, ".")
	c.mu.Lock()
	defer c.mu.Unlock()
	if js := c.apis[prefix]; js != nil {
		return js
	}
	js, err := natsjs.NewWithAPIPrefix(c.client(), prefix, natsjs.WithDefaultTimeout(RequestTimeout))
	if err != nil {
		// Domains were validated, and prefixes come from a server.
		panic("jetstream: set up the API at " + prefix + ": " + err.Error())
	}
	c.apis[prefix] = js
	return js
}

// Close sends buffered messages, within ctx and 5 s, and closes the connection. The
// error means that some messages may not have been sent, for example an
// acknowledgement, whose message is then redelivered.
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

// Traffic returns how many bytes of messages were received and sent so far.
func (c *Conn) Traffic() (received, sent uint64) {
	stats := c.client().Stats()
	return c.received.Load() + stats.InBytes, c.sent.Load() + stats.OutBytes
}

// Ready returns [ErrNotConnected] with the address, or nil if there is a connection.
func (c *Conn) Ready() error {
	if c.client().IsConnected() {
		return nil
	}
	return &notConnectedError{where: c.where}
}

// Wait waits for a connection, for at most atMost. The error is [ErrNotConnected] with
// the address.
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
		c.logger.LogAttrs(ctx, slog.LevelWarn, "connection to NATS lost; reconnecting: check the server and the network",
			slog.String("url", c.where), slog.Any("err", err))
	}
}

// logConnectFailure is called for each failed attempt to connect. It logs the first one.
func (c *Conn) logConnectFailure(ctx context.Context, err error) {
	if errors.Is(err, nats.ErrNoServers) {
		return // the next error has the reason
	}
	if !c.told.Swap(true) {
		c.logger.LogAttrs(ctx, slog.LevelWarn, "cannot connect to NATS; retrying: check NATS_URL",
			slog.String("url", c.where), slog.Any("err", err))
	}
}

// loss returns a channel that is closed when the current connection is lost.
func (c *Conn) loss() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// api returns the context of one request to the JetStream API. It ends after
// [RequestTimeout], and when the connection is lost, because there is no answer after
// that.
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

// because returns the reason for err, the error of a request with a context of
// [Conn.api]: the loss of the connection, or err itself.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrNotConnected) {
		return cause
	}
	return err
}

// withoutPasswords returns the URLs of address for logs.
func withoutPasswords(address string) (string, error) {
	var shown []string
	for part := range strings.SplitSeq(address, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") {
			part = "nats://" + part
		}
		u, err := url.Parse(part)
		if err != nil || u.Host == "" {
			// The parser's error would contain the URL with the password.
			return "", errors.New("connect to NATS: want a URL as nats://HOST:4222")
		}
		u.User = nil
		shown = append(shown, u.String())
	}
	return strings.Join(shown, ","), nil
}
