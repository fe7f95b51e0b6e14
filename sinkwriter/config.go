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

// Publisher sends output events to a stream or a sink. Publish returns nil only when
// every event is stored there. Its error wraps a [contract.PublishError], which has the
// reason of each event that is not; after any other error all are published again. It
// must honour ctx and be safe for concurrent use.
type Publisher interface {
	Publish(ctx context.Context, events []event.Event) error
}

// Config sets up a [Writer]. Cluster is required; any other field left at zero
// takes the default named beside it.
type Config struct {
	// Cluster names the cluster that this process runs in, as it stands in the
	// ledger: lower-case letters, digits and '-', at most 63, beginning with a
	// letter. Required.
	Cluster string

	// Publisher is given the outputs of what was committed here, right after
	// the commit. Defaults to none: a relay publishes them once they are
	// overdue.
	Publisher Publisher

	// CheckOutput returns why Publisher never accepts an output, as one that is too
	// large; the event is then refused before it is committed, as its own fault. Nil
	// accepts all. It must be safe for concurrent use.
	CheckOutput func(ctx context.Context, output event.Event) error

	// Connections bounds how many batches are committed at the same time, each
	// on a connection of the pool. A third one begins when half a batch waits, or an
	// offer for 10 ms. From 1 to 16. Defaults to 2.
	Connections int

	// BatchEvents bounds the events that are committed in one transaction. From
	// 1 to 10,000. Defaults to 512.
	BatchEvents int

	// BatchBytes bounds the size of what one transaction writes, roughly as
	// encoded; an event that is larger on its own has a transaction for itself.
	// Behind a slow link batches are smaller: what it carries in half of the claim
	// timeout and a round trip.
	// From 1 KiB to 256 MiB. Defaults to 4 MiB.
	BatchBytes int

	// ClaimTimeout is how long an unfinished transaction of this process may block others,
	// above the round trip to the server, which is measured. A smaller value makes slow
	// clients lose their claims, a larger one shows as latency when a process stops between
	// claim and commit. From 10 ms to 10 s. Defaults to 200 ms.
	ClaimTimeout time.Duration

	// CommitTimeout bounds one attempt to commit a batch. A statement of a batch may
	// take ClaimTimeout and a 25th of it, or 8 times what batches usually take; then the
	// batch is divided. An event that is tried alone has all of it. From 100 ms to 20 s.
	// Defaults to 5 s.
	CommitTimeout time.Duration

	// PublishTimeout bounds one call of Publisher, and how long after a first failure
	// the winner itself retries outputs before it leaves them to the relay. From 100 ms
	// to 25 s. Defaults to 15 s.
	PublishTimeout time.Duration

	// BacklogBytes bounds the outputs that wait in the outbox of the database
	// to be published, as stored. Beyond it an event that has outputs is refused
	// with [ErrBacklog] until a relay or a writer has caught up; nothing is lost
	// by it. At least 1 MiB. Defaults to 1 GiB.
	BacklogBytes int64

	// NoDivergence leaves the search for divergence out, for functions that are
	// meant to compute something else each time, as those that ask a service:
	// no digest is stored, and none is compared. Defaults to false.
	NoDivergence bool

	// Logger is told about batches that had to be tried again (warn),
	// divergence (error) and rejected events (warn), never about payloads.
	// Defaults to discarding everything.
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
