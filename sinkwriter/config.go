package sinkwriter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// Publisher sends output events to a stream or a sink. Publish returns nil only if
// every event is stored there. To report a failure for each event it returns an error
// that wraps a [contract.PublishError]; after any other error all events are published
// again. Publish must honour ctx and be safe for concurrent use.
type Publisher interface {
	Publish(ctx context.Context, events []event.Event) error
}

// Config configures a [Writer]. Cluster is required. A zero value in any other
// field selects its default.
type Config struct {
	// Cluster is the name, in the ledger, of the cluster that this process runs
	// in: lower-case letters, digits and '-', at most 63, beginning with a
	// letter. Required.
	Cluster string

	// Publisher receives the outputs of the events that this Writer committed,
	// right after the commit. Defaults to none: a relay publishes them once
	// they are overdue.
	Publisher Publisher

	// CheckOutput returns an error if Publisher would reject an output for good, for
	// example because it is too large. The offer is then refused before it is
	// committed, with FaultEvent. Nil accepts all outputs. It must be safe for
	// concurrent use.
	CheckOutput func(ctx context.Context, output event.Event) error

	// Connections is how many batches are committed at the same time, each on a
	// connection of the pool. A third one starts only when half a batch is waiting,
	// or an offer for 10 ms. From 1 to 16. Defaults to 2.
	Connections int

	// BatchEvents bounds the events that are committed in one transaction. From
	// 1 to 10,000. Defaults to 512.
	BatchEvents int

	// BatchBytes bounds the approximate encoded size of what one transaction
	// writes. A larger event has a transaction of its own. On a slow link batches
	// are smaller: at most what the link carries within half of the claim timeout
	// plus a round trip. From 1 KiB to 256 MiB. Defaults to 4 MiB.
	BatchBytes int

	// ClaimTimeout is how long an unfinished transaction of this process may block others,
	// in addition to the measured round trip to the server. With a smaller value slow
	// clients lose their claims; with a larger one latency grows when a process stops
	// between claim and commit. From 10 ms to 10 s. Defaults to 200 ms.
	ClaimTimeout time.Duration

	// CommitTimeout bounds one attempt to commit a batch. A statement of a batch times
	// out after ClaimTimeout plus a 25th of CommitTimeout, or after 8 times the usual
	// duration of a batch if that is more; then the batch is divided. A statement of an
	// event that is tried alone may take almost all of CommitTimeout. From 100 ms to 20
	// s. Defaults to 5 s.
	CommitTimeout time.Duration

	// PublishTimeout bounds one call of Publisher. It is also how long, after the first
	// failure, the winner retries outputs before it leaves them to the relay. From 100
	// ms to 25 s. Defaults to 15 s.
	PublishTimeout time.Duration

	// BacklogBytes bounds the stored size of the outputs that wait in the outbox
	// table to be published. Above it, events with outputs are refused with
	// [ErrBacklog] until a relay or a writer has caught up; nothing is lost. At
	// least 1 MiB. Defaults to 1 GiB.
	BacklogBytes int64

	// NoDivergence disables divergence detection, for functions that compute a
	// different result each time by design, such as those that call a service:
	// digests are neither stored nor compared. Defaults to false.
	NoDivergence bool

	// Logger receives records about retried batches (warn), rejected events
	// (warn) and divergence (error), never about payloads. Defaults to
	// discarding everything.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Connections = cmp.Or(c.Connections, 2)
	c.BatchEvents = cmp.Or(c.BatchEvents, 512)
	c.BatchBytes = cmp.Or(c.BatchBytes, 4<<20)
	c.ClaimTimeout = cmp.Or(c.ClaimTimeout, 200*time.Millisecond)
	c.CommitTimeout = cmp.Or(c.CommitTimeout, 5*time.Second)
	c.PublishTimeout = cmp.Or(c.PublishTimeout, 15*time.Second)
	c.BacklogBytes = cmp.Or(c.BacklogBytes, 1<<30)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	return c
}

func (c Config) validate() error {
	var errs []error
	within := func(name string, ok bool, value any, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s %v: want %s", name, value, want))
		}
	}
	within("Cluster", functions.ValidName(c.Cluster), fmt.Sprintf("%q", c.Cluster), "lower-case letters, digits and '-', at most 63, beginning with a letter")
	within("Connections", c.Connections >= 1 && c.Connections <= 16, c.Connections, "1 to 16")
	within("BatchEvents", c.BatchEvents >= 1 && c.BatchEvents <= 10_000, c.BatchEvents, "1 to 10000")
	within("BatchBytes", c.BatchBytes >= 1<<10 && c.BatchBytes <= 256<<20, c.BatchBytes, "1 KiB to 256 MiB")
	within("ClaimTimeout", c.ClaimTimeout >= 10*time.Millisecond && c.ClaimTimeout <= 10*time.Second, c.ClaimTimeout, "10ms to 10s")
	within("CommitTimeout", c.CommitTimeout >= 100*time.Millisecond && c.CommitTimeout <= 20*time.Second, c.CommitTimeout, "100ms to 20s")
	within("PublishTimeout", c.PublishTimeout >= 100*time.Millisecond && c.PublishTimeout <= 25*time.Second, c.PublishTimeout, "100ms to 25s")
	within("BacklogBytes", c.BacklogBytes >= 1<<20, c.BacklogBytes, "1 MiB or more")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure sinkwriter: %w", err)
	}
	return nil
}
