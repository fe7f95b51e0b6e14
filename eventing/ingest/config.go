package ingest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Config is the configuration of a [Handler]. Its zero value is ready to use.
type Config struct {
	// MaxEventBytes bounds the body of a request, in bytes, compressed or not. At least 1.
	// Defaults to 1 MiB, like NATS for a message.
	MaxEventBytes int64

	// InFlightBytes bounds the memory of all requests together, in bytes. A request takes twice its
	// body and 16 KiB, a batch up to 768 KiB more; requests that get no memory within two seconds
	// are answered with 503. At least 1 MiB and four times MaxEventBytes. Defaults to 64 MiB.
	InFlightBytes int64

	// Timeout bounds storing the events of a request. Defaults to 5 s.
	Timeout time.Duration

	// RetryAfter is the wait that a 503 requests from the sender, in whole seconds.
	// Defaults to 1 s.
	RetryAfter time.Duration

	// Ready returns why this cluster could not store an event now, as far as known
	// without storing one; GET /health calls it. Nil means always ready.
	Ready func(ctx context.Context) error

	// TakesType reports whether the stream accepts more events of a type; a stream may
	// reject one type and accept others. Nil means always.
	TakesType func(ctx context.Context, eventType string) (bool, error)

	// Draining reports whether the process is about to end, which GET /health reports.
	// Nil means never.
	Draining func() bool

	// Metrics receives the measurements. Nil counts nothing.
	Metrics *Metrics

	// Logger logs events that cannot be stored (first at warn, then at error once a
	// minute), without payloads. Nil discards everything.
	Logger *slog.Logger

	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// leastInFlight is the minimum of Config.InFlightBytes.
const leastInFlight = 1 << 20

func (c Config) withDefaults() Config {
	c.MaxEventBytes = cmp.Or(c.MaxEventBytes, 1<<20)
	c.InFlightBytes = cmp.Or(c.InFlightBytes, 64<<20)
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.RetryAfter = cmp.Or(c.RetryAfter, time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Ready == nil {
		c.Ready = func(context.Context) error { return nil }
	}
	if c.TakesType == nil {
		c.TakesType = func(context.Context, string) (bool, error) { return true, nil }
	}
	if c.Draining == nil {
		c.Draining = func() bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.MaxEventBytes < 1:
		return fmt.Errorf("TANDEM_MAX_EVENT_BYTES %d: want at least 1", c.MaxEventBytes)
	case c.InFlightBytes < leastInFlight || c.InFlightBytes/4 < c.MaxEventBytes:
		return fmt.Errorf("TANDEM_IN_FLIGHT_BYTES %d: want at least %d, and four times TANDEM_MAX_EVENT_BYTES", c.InFlightBytes, leastInFlight)
	}
	return nil
}
