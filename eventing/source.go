package eventing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// DefaultInFlight is how many events are delivered at once if nothing else is
// said.
const DefaultInFlight = 256

// SourceConfig sets up a [Source]. A field left at zero takes the default named
// beside it.
type SourceConfig struct {
	// Function is the function's name, under which progress is saved. Required.
	Function string

	// InFlight is how many events are delivered at once, from all streams
	// together. As many again wait in memory, for each stream. From 1 to 16384.
	// Defaults to 256.
	InFlight int

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

	// Now is the clock of the metrics and the log. It decides nothing. Defaults
	// to time.Now.
	Now func() time.Time
}

func (c SourceConfig) withDefaults() SourceConfig {
	setDefault(&c.InFlight, DefaultInFlight)
	setDefault(&c.Heartbeat, 30*time.Second)
	setDefault(&c.SaveInterval, time.Second)
	setDefault(&c.Logger, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

func (c SourceConfig) validate() error {
	switch {
	case c.Function == "":
		return errors.New("function: missing")
	case c.InFlight < 1 || c.InFlight > 16384:
		return fmt.Errorf("in flight %d: want 1 to 16384", c.InFlight)
	case c.Heartbeat < 0 || c.SaveInterval < 0:
		return errors.New("a duration is negative")
	}
	return nil
}

// Source delivers the messages of its streams to one function, many at once,
// and acknowledges each after it is settled. One Source a cluster and function.
type Source struct {
	inlets   []*inlet
	delivery *Delivery
	progress ProgressSaver
	saving   *outage
	cfg      SourceConfig
}

// NewSource makes a Source that delivers what streams hold and saves in progress
// how far it is. The error says what is wrong with the arguments.
func NewSource(streams []Stream, delivery *Delivery, progress ProgressSaver, cfg SourceConfig) (*Source, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up source: %w", err)
	}
	if len(streams) == 0 {
		return nil, errors.New("set up source: no stream to read from")
	}
	s := &Source{
		delivery: delivery,
		progress: progress,
		saving:   newOutage(cfg.Logger, cfg.Now, "saving progress"),
		cfg:      cfg,
	}
	for _, stream := range streams {
		s.inlets = append(s.inlets, &inlet{
			stream: stream,
			limit:  2 * cfg.InFlight,
			outage: newOutage(cfg.Logger, cfg.Now, "reading a stream", slog.String("stream", stream.Name())),
		})
	}
	return s, nil
}

// Run delivers until ctx ends, whatever fails meanwhile. Then it hands back what
// is not being delivered, lets deliveries that are under way finish within
// [DeliveryConfig.Grace], saves its progress a last time, and returns. Call it
// once.
func (s *Source) Run(ctx context.Context) {
	// As many as all windows hold, so that pulling never waits for a worker.
	queue := make(chan delivered, len(s.inlets)*2*s.cfg.InFlight)

	// What has to go on until the last message is settled.
	helping, help := context.WithCancel(context.WithoutCancel(ctx))
	defer help()
	var helpers sync.WaitGroup
	helpers.Go(func() { s.beat(helping) })
	helpers.Go(func() { s.save(helping) })
	helpers.Go(func() { s.probe(ctx) })

	var workers sync.WaitGroup
	for range s.cfg.InFlight {
		workers.Go(func() {
			for d := range queue {
				s.settle(ctx, d)
			}
		})
	}
	var pulling sync.WaitGroup
	for _, in := range s.inlets {
		pulling.Go(func() { in.run(ctx, queue) })
	}

	pulling.Wait()
	close(queue)
	workers.Wait()
	help()
	helpers.Wait()
}

// Ready reports what keeps events from being delivered: a stream that is not
// open, a function or dead letter sink that does not answer. Nil if nothing does,
// as far as is known.
func (s *Source) Ready() error {
	var errs []error
	for _, in := range s.inlets {
		errs = append(errs, in.ready())
	}
	return errors.Join(append(errs, s.delivery.Ready())...)
}

// settle delivers one message and acknowledges it. If ctx ends before, it gives
// the message back.
func (s *Source) settle(ctx context.Context, d delivered) {
	defer d.window.drop(d.message)
	if ctx.Err() != nil {
		s.tell(ctx, d, Message.Release, "release")
		return
	}
	out, err := s.delivery.Deliver(ctx, d.message.Event())
	switch {
	case err == nil:
		s.cfg.Metrics.settled(ctx, out, s.cfg.Now().Sub(d.message.Arrived()))
		s.tell(ctx, d, Message.Ack, "acknowledge")
	case ctx.Err() != nil:
		s.tell(ctx, d, Message.Release, "release")
	default:
		// A stream that gives such an event is broken. The message comes again
		// when its time is over.
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "message cannot be delivered, it will come again",
			slog.Uint64("sequence", d.message.Sequence()), slog.Any("err", err))
	}
}

// tell tells the stream what became of a message. If it does not hear it, the
// message comes again, which does no harm.
func (s *Source) tell(ctx context.Context, d delivered, verb func(Message) error, what string) {
	if d.window.abandoned() {
		return
	}
	if err := verb(d.message); err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "stream not told, the message will come again",
			slog.String("verb", what), slog.Uint64("sequence", d.message.Sequence()), slog.Any("err", err))
	}
}

// beat tells the streams now and then that the messages held are still at work.
func (s *Source) beat(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, in := range s.inlets {
			_, window := in.current()
			if window == nil {
				continue
			}
			for _, m := range window.all() {
				s.tell(ctx, delivered{message: m, window: window}, Message.InProgress, "heartbeat")
			}
		}
	}
}

// probe looks whether the function is there, until it is. A wrong URL is then
// known before the first event comes.
func (s *Source) probe(ctx context.Context) {
	wait := patience{base: 200 * time.Millisecond, limit: 5 * time.Second}
	for s.delivery.Probe(ctx) != nil {
		if !sleep(ctx, &wait) {
			return
		}
	}
}
