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

// Config sets up a [Source]. A field left at zero takes the default named
// beside it.
type Config struct {
	// Function is the function's name, under which progress is saved. Required.
	Function string

	// Types are the event types that are delivered; one that ends with '*' stands
	// for all that begin so. Messages of other types are acknowledged, for good:
	// they do not come when a type is added later. Defaults to those that the function
	// says it knows: all, if it does not say so.
	Types []string

	// InFlight is how many events are in requests at once at most, from all streams
	// together. From 1 to 16384. Defaults to [delivery.DefaultInFlight].
	InFlight int

	// Batch is how many events go to the function in one request at most, in the batch
	// content mode. A function that does not say that it accepts batches gets single
	// events, and none gets more than it says. A batch is what waits when a request is
	// made; nothing waits for a batch to fill. 1 for single events; at most [MaxBatch],
	// the default.
	Batch int

	// MaxBytes bounds the memory that the payloads of messages take, those being delivered
	// and those that wait, from all streams together. Of a message that waits for long only
	// about 1 KiB is kept, without its payload; these take at most twice as much beside, so
	// that there are at most MaxBytes / 512 messages. At least 1 MiB. Defaults to 64 MiB.
	MaxBytes int

	// Rate is how many events per second the source delivers at most; 0 for no limit.
	Rate int

	// Hedge is how much redundancy is wanted unless something else is set at run time
	// ([Checkpoints]). Defaults to the race.
	Hedge eventing.Hedge

	// ShareDelay is how long an event waits at least that another cluster goes first with,
	// while the hedge is to share. Up to [eventing.MaxHedge]. Defaults to 100 ms.
	ShareDelay time.Duration

	// Ordered keeps the order of events that have the same subject: one is delivered
	// when those before it in its stream are acknowledged. What comes after a dead letter
	// is stored in Blocked until there is a verdict. Events without a subject come in
	// any order. It needs to be the only Source of its cluster and function.
	Ordered bool

	// Blocked returns the dead letters that wait for one. Required if Ordered.
	Blocked Blocked

	// Deferred stores the events that only a change of the deployment can fix, while others
	// are committed. Nil if they wait in the stream.
	Deferred Deferred

	// Attempts keeps for how long events that break the function have been tried. Nil
	// for this process' memory.
	Attempts Attempts

	// Suspects lets one cluster at a time try an event that may have ended the
	// function's process. It needs a Ledger. Nil if no other cluster could be down with
	// this one.
	Suspects Suspects

	// Ledger is asked what other clusters have done. Without one the source races,
	// whatever is set at run time; required if Hedge is not the race.
	Ledger Ledger

	// CatchUpLag is the age of a message from which on the source catches up: it looks
	// messages up in the ledger before it delivers them, and divides what is not committed
	// with other clusters that catch up. Less than 0 is never. Defaults to 1 s; it needs
	// a Ledger.
	CatchUpLag time.Duration

	// Cluster is the name of this cluster among Peers, the clusters that a backlog is
	// divided with, and those that it shares events with. Without Peers nothing is divided.
	Cluster string
	Peers   Peers

	// Heartbeat is how often the streams are told that a message is still at
	// work. It must be well below the time after which they hand it out again.
	// Defaults to 30 s.
	Heartbeat time.Duration

	// SaveInterval is how often progress is asked for and saved. Defaults to 1 s.
	SaveInterval time.Duration

	// ActiveUntil returns until when this process may deliver, acknowledge, pull and save:
	// it is the active replica ([Replica]). Nil for always.
	ActiveUntil func() time.Time

	// Metrics counts. Nil counts nothing.
	Metrics *Metrics

	// Logger is told about streams that cannot be read and progress that cannot
	// be saved (warn, then error once a minute). Defaults to discarding
	// everything.
	Logger *slog.Logger

	// Now is the clock. Only the time between two of its answers decides
	// anything. Defaults to time.Now.
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
		return errors.New("a ledger is needed to hedge, to share or to stand by")
	case c.Hedge.Share && c.Peers == nil:
		return errors.New("to share the events, the other clusters must be known: set Peers")
	case c.Ordered && c.Blocked == nil:
		return errors.New("to keep the order, verdicts are needed")
	case c.Heartbeat < 0 || c.SaveInterval < 0:
		return errors.New("a duration is negative")
	}
	return CheckTypes(c.Types)
}

// MaxBatch is the largest [Config.Batch].
const MaxBatch = 1000

// Source delivers the messages of its streams to one function, many at once, and
// acknowledges each after it is settled. There is one Source for a cluster and function.
// Create it with [New].
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
	stored      *storedEvents // nil if no order is kept
	deferrals   *deferrals    // nil if nothing is deferred

	ending atomic.Bool // Run's context has ended: others go first with events

	saving, asking, verdicts, peers, watching, leasing *failurelog.Log
}

// New returns a Source that delivers the messages of streams with sender, and saves in
// checkpoints how far it has read them. The error says what is wrong with the arguments.
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
		saving:      failurelog.New(cfg.Logger, cfg.Now, "saving the checkpoint"),
		asking:      failurelog.New(cfg.Logger, cfg.Now, "looking up the ledger; a few events at a time are delivered without it"),
		verdicts:    failurelog.New(cfg.Logger, cfg.Now, "looking up blocked subjects"),
		peers:       failurelog.New(cfg.Logger, cfg.Now, "looking up the other clusters; a backlog is not divided, and events are shared with those of before"),
		watching:    failurelog.New(cfg.Logger, cfg.Now, "watching the set of streams"),
		leasing:     failurelog.New(cfg.Logger, cfg.Now, "leasing events that may have ended the function's process"),
		hedge: hedgeController{
			reading:  failurelog.New(cfg.Logger, cfg.Now, "reading the hedge"),
			standing: failurelog.New(cfg.Logger, cfg.Now, "standing by"),
		},
	}
	s.table = inflight.New(inflight.Config{
		Now: cfg.Now, InFlight: cfg.InFlight, Rate: cfg.Rate, MaxBatch: s.maxBatch, MaxBytes: cfg.MaxBytes, CatchUpLag: s.catchUpLag(), Ordered: cfg.Ordered,
		Lease: s.leases(), Defers: cfg.Deferred != nil,
	})
	if cfg.Ordered {
		s.stored = newStoredEvents(s)
	}
	s.deferrals = newDeferrals(s)
	if cfg.Ledger == nil {
		s.table.SetHedge(eventing.Hedge{}) // only the race needs no ledger, and there is nothing to wait for
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

// awaitActive returns when this process may do that; false if done is closed first.
func (s *Source) awaitActive(done <-chan struct{}) bool {
	return pollUntil(s.active, activePoll, done)
}

// pollUntil returns when ready reports true, which it is asked at that interval; false if
// done is closed first.
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

// activePoll is how often a source that pauses looks whether it may go on.
const activePoll = 20 * time.Millisecond

// maxBatch returns how many events, and bytes of them, one request may have.
func (s *Source) maxBatch() (events, bytes int) {
	events, bytes = s.sender.MaxBatch()
	return min(events, s.cfg.Batch), bytes
}

// catchUpLag is the age of a message from which on the source catches up; 0 for never.
func (s *Source) catchUpLag() time.Duration {
	if s.cfg.Ledger == nil {
		return 0
	}
	return max(s.cfg.CatchUpLag, 0)
}

// inFlight returns what is in flight.
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

// Run delivers until ctx ends, whatever fails meanwhile. Then it hands back what is not
// being delivered, lets requests that are under way finish within
// [delivery.Config.Grace], saves its checkpoints a last time, and returns. Call it once.
func (s *Source) Run(ctx context.Context) {
	// What has to go on until the last message is settled.
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

// Ready reports what keeps events from being delivered: a stream that is not
// open, a function or dead letter sink that does not answer. Nil if nothing does,
// as far as is known.
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

// openConfig is what streams are opened with.
func (s *Source) openConfig() eventing.OpenConfig {
	return eventing.OpenConfig{MaxOutstanding: 2 * s.table.MaxEntries(), Gapless: s.cfg.Ordered}
}

// probe looks whether the function is there, until it is. A wrong URL is then
// known before the first event comes.
func (s *Source) probe(ctx context.Context) {
	probeUntilItPasses(ctx, s.sender.Probe)
}

func probeUntilItPasses(ctx context.Context, probe func(context.Context) error) {
	wait := backoff.Backoff{Base: 200 * time.Millisecond, Limit: 5 * time.Second}
	for probe(ctx) != nil && backoff.Sleep(ctx, &wait) {
	}
}
