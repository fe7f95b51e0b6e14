package relay

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
)

// Outbox holds committed outputs until they are published. An output is reserved for its
// winner for contract.RelayTakeover; then it is overdue. sinkwriter.Outbox implements it
// on PostgreSQL.
type Outbox interface {
	// Relay takes over overdue outputs, calls publish concurrently with some at a time, deletes the
	// stored ones, sets aside those that can never be stored, and returns the numbers of both.
	Relay(ctx context.Context, publish func(context.Context, []event.Event) error) (published, rejected int, err error)
}

// Config is the configuration of [Run].
type Config struct {
	// Interval is the time between two searches for overdue outputs, plus or minus a
	// quarter. After a search that found some, the next one starts immediately.
	// Defaults to 1 s.
	Interval time.Duration

	// Timeout bounds one search and publishing its outputs. Defaults to 20 s.
	Timeout time.Duration

	// Logger logs failures (first at warn, then at error once a minute) and the number
	// of published outputs (info). Defaults to discarding everything.
	Logger *slog.Logger

	// Now is the clock of the log. Defaults to time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.Timeout = cmp.Or(c.Timeout, 20*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

// Run publishes overdue outputs to publisher until ctx ends. It may run in every
// cluster at once.
func Run(ctx context.Context, relay Outbox, publisher eventing.Publisher, cfg Config) {
	cfg = cfg.withDefaults()
	trouble := failurelog.New(cfg.Logger, cfg.Now, "relaying outputs; they stay in the outbox")
	failing := backoff.Backoff{Base: cfg.Interval, Limit: max(cfg.Interval, 10*time.Second)}
	for {
		published, rejected, err := relayOnce(ctx, relay, publisher, cfg.Timeout)
		if published > 0 {
			cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "published outputs that their winner left in the outbox", slog.Int("events", published))
		}
		if rejected > 0 {
			cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "outputs were rejected for good and are set aside: see tandem rejected-outputs list", slog.Int("events", rejected))
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && published+rejected > 0: // some outputs fail, others do not
			trouble.Failed(ctx, err)
			failing.Reset()
			continue
		case err != nil:
			trouble.Failed(ctx, err)
			if !backoff.Sleep(ctx, &failing) {
				return
			}
			continue
		}
		trouble.Succeeded(ctx)
		failing.Reset()
		if published+rejected == 0 && !backoff.Sleep(ctx, &backoff.Backoff{Base: cfg.Interval, Limit: cfg.Interval}) {
			return
		}
	}
}

func relayOnce(ctx context.Context, relay Outbox, publisher eventing.Publisher, timeout time.Duration) (published, rejected int, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return relay.Relay(ctx, publisher.Publish)
}
