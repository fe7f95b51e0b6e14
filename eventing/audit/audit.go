package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // handed on to sinkwriter/snapshot, which has the statements

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/snapshot"
)

// portion is the number of events that are looked up at a time.
const portion = 2000

// Config is the configuration of [Run].
type Config struct {
	// Functions are the functions whose work is compared. Required.
	Functions []functions.Function

	// Pool connects to the primary of the database. Required.
	Pool *pgxpool.Pool

	// Conn connects to the streams. Required.
	Conn *jetstream.Conn

	// Streams are the streams of inputs. Defaults to EVENTS.
	Streams []jetstream.StreamConfig

	// Outputs is the stream of outputs. Defaults to OUTPUTS.
	Outputs jetstream.StreamConfig

	// From and Until bound the sequences that are read of each stream. Default to all
	// messages.
	From, Until uint64

	// Limit is the maximum number of listed findings of each kind. Defaults to 100.
	Limit int

	// Lost, if set, is called after everything was read with each missing event, to
	// deliver it again; LostOutput with each missing output.
	Lost       func(ctx context.Context, function string, e event.Event) error
	LostOutput func(ctx context.Context, e event.Event) error
}

func (c Config) withDefaults() Config {
	if len(c.Streams) == 0 {
		c.Streams = []jetstream.StreamConfig{{Name: "EVENTS"}}
	}
	if c.Outputs.Name == "" {
		c.Outputs.Name = "OUTPUTS"
	}
	c.Until = cmp.Or(c.Until, ^uint64(0))
	c.Limit = cmp.Or(c.Limit, 100)
	return c
}

// audit is one call of Run.
type audit struct {
	Config
	report Report
	byType map[string][]functions.Function

	database *snapshot.Snapshot
	memory   memory
	expected expected
	outputs  outputs
	waiting  []*item
	seen     map[ledger.Key]bool

	lost []lostEvent
}

type lostEvent struct {
	function string
	event    event.Event
}

// item is an event for a function.
type item struct {
	function functions.Function
	event    event.Event
	key      ledger.Key
	stream   string // the origin
	epoch    string
	sequence uint64

	effects functions.Effects
	encoded []functions.EncodedOutput
	digest  [16]byte
	broken  error // the function's error, instead of effects
}

// Run compares the database with the stream. The error means that something could not
// be read; the report is then useless. Differences are in the report, and are not an
// error.
func Run(ctx context.Context, config Config) (Report, error) {
	config = config.withDefaults()
	if len(config.Functions) == 0 || config.Pool == nil || config.Conn == nil {
		return Report{}, errors.New("audit: functions, database or streams are missing")
	}
	a := &audit{Config: config, byType: map[string][]functions.Function{}, seen: map[ledger.Key]bool{}}
	a.expected.tables = map[string]*table{}
	a.outputs.want = map[identity]*output{}
	for _, f := range config.Functions {
		for _, t := range f.Types {
			a.byType[t] = append(a.byType[t], f)
		}
	}
	err := snapshot.Read(ctx, config.Pool, func(s *snapshot.Snapshot) error {
		a.database = s
		return a.run(ctx)
	})
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	if err := a.repair(ctx); err != nil {
		return a.report, fmt.Errorf("audit: %w", err)
	}
	return a.report, nil
}

func (a *audit) run(ctx context.Context) error {
	// The first statement takes the snapshot, so the stream is read after it.
	if err := a.memory.load(ctx, a.database); err != nil {
		return fmt.Errorf("read progress and dead letters: %w", err)
	}
	if extent, err := a.Conn.Extent(ctx, a.Outputs); err == nil {
		a.outputs.settled = extent.Last
	}
	a.report.Complete = a.From <= 1
	for _, stream := range a.Streams {
		if err := a.readStream(ctx, stream); err != nil {
			return err
		}
	}
	if err := a.flush(ctx); err != nil {
		return err
	}
	a.lookForLetters()
	if err := a.lookForExtraEvents(ctx); err != nil {
		return fmt.Errorf("count the ledger: %w", err)
	}
	if err := a.compareRows(ctx); err != nil {
		return fmt.Errorf("compare rows: %w", err)
	}
	if err := a.compareOutputs(ctx); err != nil {
		return fmt.Errorf("compare outputs: %w", err)
	}
	return nil
}

func (a *audit) readStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	extent, err := a.Conn.Extent(ctx, cfg)
	if err != nil {
		return err
	}
	if extent.First > 1 && extent.Last >= extent.First {
		a.report.Complete = false
	}
	if a.Until < extent.Last {
		a.report.Complete = false
	}
	return a.Conn.History(ctx, cfg, a.From, a.Until, func(p jetstream.Past) error {
		a.report.Messages++
		takes := a.byType[p.Event.Type()]
		if len(takes) == 0 {
			a.report.Ignored++
			a.memory.meet(p.Event)
		}
		for _, f := range takes {
			key := ledger.NewKey(f.Name, p.Event.Source(), p.Event.ID())
			if a.seen[key] {
				a.report.Repeated++
				continue
			}
			a.seen[key] = true
			a.waiting = append(a.waiting, &item{
				function: f, event: p.Event, key: key, stream: extent.Origin, epoch: extent.Epoch, sequence: p.Sequence,
			})
		}
		if len(a.waiting) >= portion {
			return a.flush(ctx)
		}
		return nil
	})
}

// flush computes and compares the events that were read.
func (a *audit) flush(ctx context.Context) error {
	items := a.waiting
	a.waiting = nil
	if len(items) == 0 {
		return nil
	}
	for _, it := range items {
		it.compute(ctx)
	}
	keys := make([]ledger.Key, len(items))
	for i, it := range items {
		keys[i] = it.key
	}
	rows, err := a.database.Committed(ctx, keys)
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	for _, it := range items {
		row, ok := rows[it.key]
		if err := a.judge(ctx, it, row, ok); err != nil {
			return err
		}
	}
	return nil
}

// repair calls Lost and LostOutput for missing events and outputs.
func (a *audit) repair(ctx context.Context) error {
	if a.Lost != nil {
		for _, l := range a.lost {
			if err := a.Lost(ctx, l.function, l.event); err != nil {
				return fmt.Errorf("deliver event %s of %s again: %w", l.event.ID(), l.event.Source(), err)
			}
		}
	}
	if a.LostOutput != nil {
		for _, e := range a.outputs.lost {
			if err := a.LostOutput(ctx, e); err != nil {
				return fmt.Errorf("publish output %s of %s again: %w", e.ID(), e.Source(), err)
			}
		}
	}
	return nil
}
