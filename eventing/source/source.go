package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
)

// Config is the configuration of a [Source].
type Config struct {
	// Function is the function's name, under which checkpoints are saved. Required.
	Function string

	// Types are the event types that are delivered; one that ends with '*' is a prefix.
	// Messages of other types are acknowledged, and are not redelivered if a type is
	// added later. Defaults to the types that the function states, or to all if it
	// states none.
	Types []string

	// InFlight is the maximum number of events in requests at once, from all streams
	// together. From 1 to 16384. Defaults to [delivery.DefaultInFlight].
	InFlight int

	// Batch is the maximum number of events in one request, in the batch content mode.
	// A function that does not state that it accepts batches receives single events,
	// and no function receives more than it accepts. A batch consists of the events
	// that are ready when a request is made; no event waits for a batch to fill. 1
	// means single events. Up to [MaxBatch], the default.
	Batch int

	// MaxBytes bounds the memory for payloads of messages that are being delivered or wait,
	// from all streams together. A message that waits for long is kept without its payload,
	// in about 1 KiB; these messages take at most twice MaxBytes in addition, so there are
	// at most MaxBytes / 512 of them. At least 1 MiB. Defaults to 64 MiB.
	MaxBytes int

	// Rate is the maximum number of events delivered per second; 0 means no limit.
	Rate int

	// Hedge is the redundancy that holds unless another one is set at run time
	// ([Checkpoints]). Defaults to the race.
	Hedge eventing.Hedge

	// ShareDelay is the minimum wait for an event of another cluster's share, while the
	// hedge is to share. Up to [eventing.MaxHedge]. Defaults to 100 ms.
	ShareDelay time.Duration

	// Ordered keeps the order of events that have the same subject: an event is delivered
	// after the earlier ones of its subject in its stream are acknowledged. Events behind
	// a dead letter are stored in Blocked until there is a verdict. Events without a
	// subject are unordered. There must be no other Source of the same cluster and
	// function.
	Ordered bool

	// Blocked stores the events behind dead letters, and knows the verdicts. Required
	// if Ordered.
	Blocked Blocked

	// Deferred stores the events that only a change of the deployment can fix, while others
	// are committed. If nil, they wait in the stream.
	Deferred Deferred

	// Attempts stores for how long events that break the function have been attempted.
	// If nil, they are kept in this process's memory.
	Attempts Attempts

	// Suspects lets one cluster at a time attempt an event that may have ended the
	// function's process. Needs a Ledger. Nil if the source must not coordinate
	// suspects with other clusters.
	Suspects Suspects

	// Ledger knows which events any cluster has committed. Without it the source races,
	// whatever hedge is set at run time. Required if Hedge is not the race.
	Ledger Ledger

	// CatchUpLag is the age of a message from which on the source catches up: it looks
	// messages up in the ledger before it delivers them, and divides the uncommitted ones
	// with other clusters that catch up. Less than 0 means never. Defaults to 1 s. Needs a
	// Ledger.
	CatchUpLag time.Duration

	// Cluster is the name of this cluster among Peers, the clusters with which it divides a
	// backlog or shares the events. Without Peers nothing is divided.
	Cluster string
	Peers   Peers

	// Heartbeat is the time between heartbeats for messages in flight. It must be well
	// below the acknowledgement timeout of the streams. Defaults to 30 s.
	Heartbeat time.Duration

	// SaveInterval is the time between saves of the checkpoint. Defaults to 1 s.
	SaveInterval time.Duration

	// ActiveUntil returns until when this process may deliver, acknowledge, pull and save
	// as the active replica ([Replica]). Nil means always.
	ActiveUntil func() time.Time

	// Metrics receives the measurements. Nil counts nothing.
	Metrics *Metrics

	// Logger logs streams that cannot be read and checkpoints that cannot be saved
	// (first at warn, then at error once a minute). Defaults to discarding everything.
	Logger *slog.Logger

	// Now is the clock. Only differences between its results are used. Defaults to
	// time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	c.InFlight = cmp.Or(c.InFlight, delivery.DefaultInFlight)
	c.Batch = cmp.Or(c.Batch, MaxBatch)
	c.MaxBytes = cmp.Or(c.MaxBytes, 64<<20)
	c.Heartbeat = cmp.Or(c.Heartbeat, 30*time.Second)
	c.SaveInterval = cmp.Or(c.SaveInterval, time.Second)
	c.ShareDelay = cmp.Or(c.ShareDelay, defaultShareDelay)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.CatchUpLag = cmp.Or(c.CatchUpLag, time.Second)
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Function == "":
		return errors.New("function: missing")
	case c.InFlight < 1 || c.InFlight > 16384:
		return fmt.Errorf("in flight %d: want 1 to 16384", c.InFlight)
	case c.Batch < 1 || c.Batch > MaxBatch:
		return fmt.Errorf("batch of %d: want 1 to %d", c.Batch, MaxBatch)
	case c.MaxBytes < 1<<20:
		return fmt.Errorf("max bytes %d: want at least 1 MiB", c.MaxBytes)
	case c.Rate < 0:
		return fmt.Errorf("rate %d: want 0 or more events per second", c.Rate)
	case c.Hedge.Delay < 0 || c.Hedge.Delay > eventing.MaxHedge:
		return fmt.Errorf("hedge %s: want up to %s", c.Hedge, eventing.MaxHedge)
	case c.ShareDelay < 0 || c.ShareDelay > eventing.MaxHedge:
		return fmt.Errorf("share delay %s: want up to %s", c.ShareDelay, eventing.MaxHedge)
	case c.Ledger == nil && !c.Hedge.Race():
		return errors.New("to hedge, to share or to stand by needs a ledger: set Ledger")
	case c.Hedge.Share && c.Peers == nil:
		return errors.New("to share the events needs the other clusters: set Peers")
	case c.Ordered && c.Blocked == nil:
		return errors.New("to keep the order needs verdicts on dead letters: set Blocked")
	case c.Heartbeat < 0 || c.SaveInterval < 0:
		return errors.New("a duration is negative")
	}
	return CheckTypes(c.Types)
}

// MaxBatch is the largest [Config.Batch].
const MaxBatch = 1000

// Source delivers the messages of its streams to one function concurrently, and
// acknowledges each after it is committed or a dead letter. There is one Source for a
// cluster and function. Create it with [New].
type Source struct {
	cfg         Config
	streams     eventing.Streams
	consumers   consumers
	table       *inflight.Table
	sender      *delivery.Sender
	checkpoints Checkpoints
	filter      filter
	hedge       hedgeController
	witnesses   witnesses
	typesCheck  typesCheck
	stored      *storedEvents // nil if the order is not kept
	deferrals   *deferrals    // nil if events are not deferred

	ending atomic.Bool // Run's context has ended: other clusters go first with events

	saving, asking, verdicts, peers, watching, leasing *failurelog.Log
}

// New returns a Source that delivers the messages of streams with sender, and saves its
// progress in checkpoints. The error describes an invalid argument.
func New(streams eventing.Streams, sender *delivery.Sender, checkpoints Checkpoints, cfg Config) (*Source, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up source: %w", err)
	}
	if list, ok := streams.(eventing.StreamList); streams == nil || ok && len(list) == 0 {
		return nil, errors.New("set up source: no stream to read from")
	}
	s := &Source{
		cfg:         cfg,
		streams:     streams,
		sender:      sender,
		checkpoints: checkpoints,
		saving:      failurelog.New(cfg.Logger, cfg.Now, "saving the checkpoint; delivery continues, and a restart re-reads the stream from the last saved one"),
		asking:      failurelog.New(cfg.Logger, cfg.Now, "looking up events in the ledger; a few events at a time are delivered without it"),
		verdicts:    failurelog.New(cfg.Logger, cfg.Now, "looking up verdicts on dead letters; their subjects stay blocked"),
		peers:       failurelog.New(cfg.Logger, cfg.Now, "looking up the other clusters; a backlog is not divided, and events are shared with the clusters known last"),
		watching:    failurelog.New(cfg.Logger, cfg.Now, "watching the set of streams; the known streams are read"),
		leasing:     failurelog.New(cfg.Logger, cfg.Now, "leasing events that may have ended the function's process; they wait"),
		hedge: hedgeController{
			reading:  failurelog.New(cfg.Logger, cfg.Now, "reading the hedge; the last known one holds"),
			standing: failurelog.New(cfg.Logger, cfg.Now, "standing by; the hedge does not change"),
		},
	}
	s.table = inflight.New(inflight.Config{
		Now: cfg.Now, InFlight: cfg.InFlight, Rate: cfg.Rate, MaxBatch: s.maxBatch, MaxBytes: cfg.MaxBytes, CatchUpLag: s.catchUpLag(), Ordered: cfg.Ordered,
		Ledger: cfg.Ledger != nil, Lease: s.leases(), Defers: cfg.Deferred != nil,
	})
	if cfg.Ordered {
		s.stored = newStoredEvents(s)
	}
	s.deferrals = newDeferrals(s)
	if cfg.Ledger == nil {
		s.table.SetHedge(eventing.Hedge{}) // only the race works without a ledger; the hedge is known
	}
	s.table.SetShareDelay(cfg.ShareDelay)
	s.filter, _ = newFilter(cfg.Types) // validate has checked them
	cfg.Metrics.watch(s.inFlight)
	return s, nil
}

// active reports whether this process may deliver, acknowledge and save.
func (s *Source) active() bool {
	return s.cfg.ActiveUntil == nil || s.cfg.Now().Before(s.cfg.ActiveUntil())
}

// awaitActive waits until this process may do that, and reports false if done is closed
// first.
func (s *Source) awaitActive(done <-chan struct{}) bool {
	return pollUntil(s.active, activePoll, done)
}

// pollUntil calls ready at an interval until it reports true; it reports false if done is
// closed first.
func pollUntil(ready func() bool, interval time.Duration, done <-chan struct{}) bool {
	for !ready() {
		timer := time.NewTimer(interval)
		select {
		case <-timer.C:
		case <-done:
			timer.Stop()
			return false
		}
	}
	return true
}

// activePoll is the time between checks whether a paused source may continue.
const activePoll = 20 * time.Millisecond

// maxBatch returns the maximum number of events, and of their bytes, in one request.
func (s *Source) maxBatch() (events, bytes int) {
	events, bytes = s.sender.MaxBatch()
	return min(events, s.cfg.Batch), bytes
}

// catchUpLag returns the age of a message from which on the source catches up; 0 means
// never.
func (s *Source) catchUpLag() time.Duration {
	if s.cfg.Ledger == nil {
		return 0
	}
	return max(s.cfg.CatchUpLag, 0)
}

// inFlight returns a description of the messages in flight.
func (s *Source) inFlight() (h holding) {
	for _, c := range s.consumers.current() {
		n, age := c.partition.Oldest(s.cfg.Now())
		h.messages += n
		h.oldest = max(h.oldest, age)
	}
	h.states, h.suspects, h.helped = s.table.Counts(), s.table.Suspects(), s.table.Helped()
	h.deferred = s.deferrals.deferredCounts()
	return h
}

// Run delivers until ctx ends, whatever fails meanwhile. Then it returns undelivered
// messages to the streams, waits up to [delivery.Config.Grace] for requests under way,
// saves the checkpoints a last time, and returns. Call it once.
func (s *Source) Run(ctx context.Context) {
	// These tasks run until the last message is finished.
	helping, help := context.WithCancel(context.WithoutCancel(ctx))
	defer help()
	var helpers sync.WaitGroup
	helpers.Go(func() { s.heartbeat(helping) })
	helpers.Go(func() { s.saveCheckpoints(helping) })
	helpers.Go(func() { s.probe(ctx) })
	helpers.Go(func() { s.followHedge(ctx) })
	helpers.Go(func() { s.followTypes(ctx) })
	helpers.Go(func() { s.followBlocked(ctx) })
	helpers.Go(func() { s.followPeers(ctx) })
	if s.stored != nil {
		helpers.Go(func() { s.stored.deleteSettled(helping) })
	}
	if s.deferrals != nil {
		helpers.Go(func() { s.deferrals.followDeferred(ctx) })
		helpers.Go(func() { s.deferrals.deleteSettled(helping) })
	}
	helpers.Go(func() { s.followLeases(ctx) })
	helpers.Go(func() { s.followWitness(ctx) })

	closed := make(chan struct{})
	var workers sync.WaitGroup
	workers.Go(func() { s.dispatch(ctx, closed) })
	if s.cfg.Ledger != nil {
		for range lookups {
			workers.Go(func() { s.lookUpAll(ctx) })
		}
	}

	if s.stored != nil {
		workers.Go(func() { s.stored.storeAll(ctx) })
		workers.Go(func() { s.stored.deliverAll(ctx) })
	}

	if s.deferrals != nil {
		workers.Go(func() { s.deferrals.deferAll(ctx) })
	}

	s.followStreams(ctx)
	s.ending.Store(true)
	s.consumers.pulling.Wait()
	s.handBackAll(ctx)
	close(closed)
	workers.Wait()
	s.handBackAll(ctx)
	help()
	helpers.Wait()
}

// Ready returns why events cannot be delivered: a stream that is not open, or a
// function or dead letter sink that does not answer. Nil if no reason is known.
func (s *Source) Ready() error {
	var errs []error
	s.consumers.mu.Lock()
	known := s.consumers.known
	s.consumers.mu.Unlock()
	if !known {
		errs = append(errs, errNoStreams)
	}
	for _, c := range s.consumers.current() {
		errs = append(errs, c.ready())
	}
	return errors.Join(append(errs, s.deferrals.ready(), s.typesProblem(), s.sender.Ready())...)
}

// openConfig returns the configuration for opening streams.
func (s *Source) openConfig() eventing.OpenConfig {
	return eventing.OpenConfig{MaxOutstanding: 2 * s.table.MaxEntries(), Gapless: s.cfg.Ordered}
}

// probe sends requests to the function until it answers, so that a wrong URL is
// detected before the first event.
func (s *Source) probe(ctx context.Context) {
	probeUntilItPasses(ctx, s.sender.Probe)
}

func probeUntilItPasses(ctx context.Context, probe func(context.Context) error) {
	wait := backoff.Backoff{Base: 200 * time.Millisecond, Limit: 5 * time.Second}
	for probe(ctx) != nil && backoff.Sleep(ctx, &wait) {
	}
}
