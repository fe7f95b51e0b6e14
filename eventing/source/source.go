package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
)

// Config sets up a [Source]. A field left at zero takes the default named
// beside it.
type Config struct {
	// Function is the function's name, under which progress is saved. Required.
	Function string

	// Types are the event types that are delivered; one that ends with '*' stands
	// for all that begin so. Messages of other types are acknowledged, for good:
	// they do not come when a type is added later. Defaults to all.
	Types []string

	// InFlight is how many events are delivered at once, from all streams
	// together. As many again wait in memory, for each stream; where the ledger is
	// asked first, as many as MaxBytes lets. From 1 to 16384. Defaults to 256.
	InFlight int

	// Batch is how many events at most go to the function in one request, in the
	// batch content mode: those that wait when a request is made, which is not put
	// off to have more. InFlight then bounds what goes alone, and batches are at
	// least four at once. Events whose batch was refused go one by one, and only what
	// is said of an event alone counts against it. 1 for no batches; at most
	// [MaxBatch]. Defaults to 1.
	Batch int

	// MaxBytes bounds the memory that messages take, those being delivered and
	// those that wait, from all streams together. At least 1 MiB. Defaults to
	// 64 MiB.
	MaxBytes int

	// Rate is how many events a second the source is meant for: so many may be
	// handed out and not acknowledged for as long as a stream waits. Defaults to
	// 1000.
	Rate int

	// Hedge is how much redundancy is wanted if Switch says nothing else.
	// Defaults to the race.
	Hedge eventing.Hedge

	// HedgeSwitch says how much redundancy is wanted at run time. Nil for Hedge for
	// ever.
	HedgeSwitch eventing.HedgeSwitch

	// Ordered keeps the order of events that have the same subject: one is delivered
	// when those before it in its stream are acknowledged. A dead letter holds back
	// what comes after it until there is a verdict. Events without a subject come in
	// any order. It needs to be the only Source of its cluster and function.
	Ordered bool

	// Blocked says which dead letters wait for one. Required if Ordered.
	Blocked Blocked

	// Attempts keeps for how long events that break the function have been tried. Nil
	// for this process' memory.
	Attempts Attempts

	// Ledger is asked what other clusters have done. Required, unless Hedge is
	// the race and Switch is nil.
	Ledger Ledger

	// CatchUpLag is how many messages wait in the stream behind one from where on this
	// source, though it races, asks the ledger before it delivers, and takes what it
	// holds in an order of its own: many are done by then, as after an outage. Less
	// than 0 for never, as where Ordered is set. Defaults to four times what is delivered at once.
	CatchUpLag int

	// Heartbeat is how often the streams are told that a message is still at
	// work. It must be well below the time after which they hand it out again.
	// Defaults to 30 s.
	Heartbeat time.Duration

	// SaveInterval is how often progress is asked for and saved. Defaults to 1 s.
	SaveInterval time.Duration

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
	c.Batch = cmp.Or(c.Batch, 1)
	c.MaxBytes = cmp.Or(c.MaxBytes, 64<<20)
	c.Rate = cmp.Or(c.Rate, 1000)
	c.Heartbeat = cmp.Or(c.Heartbeat, 30*time.Second)
	c.SaveInterval = cmp.Or(c.SaveInterval, time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.CatchUpLag = cmp.Or(c.CatchUpLag, 4*c.atOnce())
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
	case c.Rate < 1:
		return fmt.Errorf("rate %d: want at least 1 event a second", c.Rate)
	case c.Hedge.Delay < 0 || c.Hedge.Delay > eventing.MaxHedge:
		return fmt.Errorf("hedge %s: want up to %s", c.Hedge, eventing.MaxHedge)
	case c.Ledger == nil && (c.HedgeSwitch != nil || !c.Hedge.Race()):
		return errors.New("a ledger is needed to hedge or to stand by")
	case c.Ordered && c.Blocked == nil:
		return errors.New("to keep the order, verdicts are needed")
	case c.Heartbeat < 0 || c.SaveInterval < 0:
		return errors.New("a duration is negative")
	}
	return CheckTypes(c.Types)
}

// Source delivers the messages of its streams to one function, many at once,
// and acknowledges each after it is settled. One Source a cluster and function.
type Source struct {
	consumers   []*consumer
	scheduler   *scheduler
	delivery    *delivery.Sender
	checkpoints Checkpoints
	saving      *failurelog.Log
	asking      *failurelog.Log
	verdicts    *failurelog.Log
	batches     batches
	hedge       hedgeController
	filter      filter
	cfg         Config
}

// New makes a Source that delivers what streams hold and saves in progress
// how far it is. The error says what is wrong with the arguments.
func New(streams []eventing.Stream, delivery *delivery.Sender, progress Checkpoints, cfg Config) (*Source, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up source: %w", err)
	}
	if len(streams) == 0 {
		return nil, errors.New("set up source: no stream to read from")
	}
	s := &Source{
		scheduler:   newScheduler(cfg.Now, cfg.Batch),
		delivery:    delivery,
		checkpoints: progress,
		saving:      failurelog.New(cfg.Logger, cfg.Now, "saving the checkpoint"),
		asking:      failurelog.New(cfg.Logger, cfg.Now, "looking up the ledger; events are delivered instead"),
		batches:     batches{now: cfg.Now, failures: failurelog.New(cfg.Logger, cfg.Now, "delivering batches; events are sent one by one meanwhile")},
		verdicts:    failurelog.New(cfg.Logger, cfg.Now, "looking up blocked subjects"),
		hedge: hedgeController{
			wanted:   cfg.Hedge,
			reading:  failurelog.New(cfg.Logger, cfg.Now, "reading the hedge"),
			standing: failurelog.New(cfg.Logger, cfg.Now, "standing by"),
		},
		cfg: cfg,
	}
	if cfg.Ledger == nil {
		s.scheduler.hedge = eventing.Hedge{} // only the race needs no ledger, and there is nothing to wait for
	}
	if cfg.Ordered {
		s.scheduler.keys = map[*inFlight]*orderingKeys{}
	}
	s.scheduler.backlog = backlog{
		low: (cfg.atOnce() + 3) / 4, some: (cfg.atOnce() + 1) / 2,
		away: func() bool { return !delivery.Working() },
	}
	s.filter, _ = newFilter(cfg.Types) // validate has seen to it
	for _, stream := range streams {
		s.consumers = append(s.consumers, &consumer{
			source:   s,
			stream:   stream,
			failures: failurelog.New(cfg.Logger, cfg.Now, "reading a stream", slog.String("stream", stream.Name())),
		})
	}
	cfg.Metrics.watch(s.holds)
	return s, nil
}

// holds gives how many messages are in hand, and the age of the oldest.
func (s *Source) holds() (messages int, oldest time.Duration) {
	for _, in := range s.consumers {
		in.mu.Lock()
		window := in.table
		in.mu.Unlock()
		if window == nil {
			continue
		}
		n, age := window.oldest(s.cfg.Now())
		messages += n
		oldest = max(oldest, age)
	}
	return messages, oldest
}

// Run delivers until ctx ends, whatever fails meanwhile. Then it hands back what
// is not being delivered, lets deliveries that are under way finish within
// [delivery.Config.Grace], saves its progress a last time, and returns. Call it
// once.
func (s *Source) Run(ctx context.Context) {
	// What has to go on until the last message is settled.
	helping, help := context.WithCancel(context.WithoutCancel(ctx))
	defer help()
	var helpers sync.WaitGroup
	helpers.Go(func() { s.heartbeat(helping) })
	helpers.Go(func() { s.saveCheckpoints(helping) })
	helpers.Go(func() { s.probe(ctx) })
	helpers.Go(func() { s.scheduler.run(ctx) })
	helpers.Go(func() { s.followHedge(ctx) })
	helpers.Go(func() { s.followBlocked(ctx) })

	var workers sync.WaitGroup
	workers.Go(func() { s.lookUpAll(ctx) })
	for range s.cfg.InFlight {
		workers.Go(func() {
			for j := s.scheduler.takeDelivery(); j != nil; j = s.scheduler.takeDelivery() {
				s.deliver(ctx, j)
			}
		})
	}
	for range s.cfg.batchesAtOnce() {
		workers.Go(func() {
			for jobs := s.scheduler.takeBatch(); jobs != nil; jobs = s.scheduler.takeBatch() {
				s.deliverBatch(ctx, jobs)
			}
		})
	}
	var pulling sync.WaitGroup
	for _, in := range s.consumers {
		pulling.Go(func() { in.run(ctx) })
	}

	pulling.Wait()
	for _, j := range s.scheduler.close() {
		s.nak(ctx, j, 0)
	}
	workers.Wait()
	help()
	helpers.Wait()
}

// Ready reports what keeps events from being delivered: a stream that is not
// open, a function or dead letter sink that does not answer. Nil if nothing does,
// as far as is known.
func (s *Source) Ready() error {
	var errs []error
	for _, in := range s.consumers {
		errs = append(errs, in.ready())
	}
	return errors.Join(append(errs, s.delivery.Ready())...)
}

// windowLimit is how many messages of a stream are held at most. What waits for
// the ledger, or for its turn, costs nothing but memory, and [Config.MaxBytes] bounds that.
func (s *Source) windowLimit() int {
	switch {
	case s.scheduler.currentHedge().Race() && s.scheduler.isLagging():
		return min(behindWindow*s.cfg.atOnce(), max(2*s.cfg.atOnce(), s.cfg.MaxBytes/messageOverhead))
	case s.scheduler.currentHedge().Race() && !s.cfg.Ordered:
		return 2 * s.cfg.atOnce()
	}
	return max(2*s.cfg.atOnce(), s.cfg.MaxBytes/messageOverhead)
}

// openConfig is what streams are opened with. What is handed back is a small
// record in memory until it comes again.
func (s *Source) openConfig() eventing.OpenConfig {
	const record = 256 // bytes
	return eventing.OpenConfig{Rate: s.cfg.Rate, MaxOutstanding: s.cfg.MaxBytes / record, Gapless: s.cfg.Ordered}
}

// probe looks whether the function is there, until it is. A wrong URL is then
// known before the first event comes.
func (s *Source) probe(ctx context.Context) {
	wait := backoff.Backoff{Base: 200 * time.Millisecond, Limit: 5 * time.Second}
	for s.delivery.Probe(ctx) != nil {
		if !backoff.Sleep(ctx, &wait) {
			return
		}
	}
}
