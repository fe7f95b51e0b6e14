package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // handed on to sinkwriter/snapshot, which has the statements

	"github.com/tandem-fn/tandem/eventing/audit"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/snapshot"
)

const (
	connectTimeout = 10 * time.Second

	// settleTime is how long the last events may take to be committed before they count
	// as missing.
	settleTime = 30 * time.Second

	// judgeTimeout bounds the comparison after the drill.
	judgeTimeout = 10 * time.Minute
)

// Config describes a deployment to watch.
type Config struct {
	// Pool connects to the database, Conn to the streams. Required.
	Pool *pgxpool.Pool
	Conn *jetstream.Conn

	// Streams are the streams of events, Outputs is the stream of outputs.
	Streams []jetstream.StreamConfig
	Outputs jetstream.StreamConfig

	// Functions are the functions whose work is watched. Required.
	Functions []functions.Function

	// Scenario is the name of the interruption, which determines the longest allowed
	// gap ([AllowedGap], with Conditions). Empty means any.
	Scenario   string
	Conditions Conditions

	// MaxGap is the longest allowed gap, instead of the scenario's. 0 means the
	// scenario's.
	MaxGap time.Duration

	// Duration is the maximum time to watch.
	Duration time.Duration

	// Marker is a file with a CloudEvent that a function processes. It is published
	// MarkerRate times a second with new ids, and searched for afterwards. Empty means
	// none.
	Marker     string
	MarkerRate float64

	// Marks are lines from an operator: the first one when an interruption begins, the
	// second one when it ends.
	Marks io.Reader

	// Print prints a line of progress.
	Print func(format string, args ...any)
}

// observation is one call of Watch.
type observation struct {
	Config
	result  Result
	begun   time.Time
	offset  time.Duration // of the database's clock from this one
	marks   []time.Time
	seen    []time.Time // when commits were observed, for a database that does not record their times
	markers *markers
}

// Watch watches a deployment until the duration is over or ctx ends, and judges it. It
// changes nothing, except that it publishes markers if configured. The error means that
// it could not watch or judge.
func Watch(ctx context.Context, c Config) (Result, error) {
	ob := &observation{Config: c, result: Result{
		Scenario: "target", What: "a deployment was watched while operators interrupted it",
		Options: "Watched, not struck.",
	}}
	if c.Scenario != "" {
		ob.result.Scenario = "target-" + c.Scenario
	}
	var err error
	if ob.offset, err = ob.readOffset(ctx); err != nil {
		return ob.result, err
	}
	if c.Marker != "" {
		if ob.markers, err = newMarkers(c); err != nil {
			return ob.result, err
		}
	}
	ob.begun = time.Now()
	ob.result.Begun = ob.begun
	ob.watch(ctx, c.Marks)
	// The report is written even if ctx has ended.
	judging, cancel := context.WithTimeout(context.WithoutCancel(ctx), judgeTimeout)
	defer cancel()
	return ob.result, ob.judge(judging)
}

// readOffset compares the clocks.
func (ob *observation) readOffset(ctx context.Context) (offset time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err = snapshot.Read(ctx, ob.Pool, func(s *snapshot.Snapshot) error {
		asked := time.Now()
		there, err := s.Clock(ctx)
		here := time.Now()
		offset = there.Sub(asked.Add(here.Sub(asked) / 2))
		return err
	})
	return offset, err
}

// watch records commits and marks until the time is over.
func (ob *observation) watch(ctx context.Context, in io.Reader) {
	ctx, cancel := context.WithTimeout(ctx, ob.Duration)
	defer cancel()
	lines := make(chan string)
	go func() {
		scanner := bufio.NewScanner(in)
		for scanner.Scan() {
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	if ob.markers != nil {
		go ob.markers.publish(ctx)
	}
	polled := make(chan int64, 1)
	done := make(chan struct{})
	go func() { defer close(done); ob.poll(ctx, polled) }()
	ob.Print("watching; press Enter when you interrupt something, and again when you restore it; ^C ends the drill with a report")
	for {
		select {
		case <-ctx.Done():
			<-done
			return
		case line := <-lines:
			ob.mark(line)
		case n := <-polled:
			ob.Print("%6.1f s  %+d events committed", time.Since(ob.begun).Seconds(), n)
		}
	}
}

// mark records a mark with its text.
func (ob *observation) mark(line string) {
	now := time.Now()
	ob.marks = append(ob.marks, now)
	if line == "" {
		line = "marked"
	}
	switch len(ob.marks) {
	case 1:
		line += ": an interruption begins"
	case 2:
		line += ": it ends"
	}
	n := Note{At: now.Sub(ob.begun), Text: line}
	ob.result.Notes = append(ob.result.Notes, n)
	ob.Print("%6.1f s  %s", n.At.Seconds(), n.Text)
}

// poll counts commits continuously, and sends the number once a second.
func (ob *observation) poll(ctx context.Context, polled chan<- int64) {
	const interval = 25 * time.Millisecond
	// Each query counts only rows committed since from, which are few. From advances
	// once a second.
	from := ob.begun.Add(ob.offset)
	var known, second int64 = -1, 0
	moved := time.Now()
	for wait(ctx, interval) {
		var n int64
		looking, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := snapshot.Read(looking, ob.Pool, func(s *snapshot.Snapshot) (err error) {
			n, err = s.CountCommits(looking, from)
			return err
		})
		cancel()
		if err != nil {
			continue
		}
		if known >= 0 && n > known {
			ob.seen = append(ob.seen, time.Now().Add(ob.offset))
			second += n - known
		}
		known = n
		if time.Since(moved) >= time.Second {
			select {
			case polled <- second:
			default:
			}
			// A commit between the two counts is missed; the next one is not.
			from, known, second, moved = time.Now().Add(ob.offset-3*time.Second), -1, 0, time.Now()
		}
	}
}

// judge reads the recorded times, and checks them.
func (ob *observation) judge(ctx context.Context) error {
	r := &ob.result
	ended := time.Now()
	if ob.markers != nil {
		ob.Print("waiting until the last markers are committed, up to %s", settleTime)
		waiting, cancel := context.WithTimeout(ctx, settleTime)
		missing, err := ob.markers.missing(waiting, ob.Pool, ob.Functions)
		cancel()
		if err != nil {
			return fmt.Errorf("look for the markers: %w", err)
		}
		r.Check("markers acknowledged by the stream but missing", missing == 0, missing, 0, fmt.Sprintf("of %d", ob.markers.count()))
		r.RPO += int64(missing)
	}
	ob.Print("comparing stream, ledger and outputs since the beginning")
	rec, exact, err := Read(ctx, ob.Pool, ob.Conn, ob.Streams, ob.Functions, ob.begun.Add(ob.offset))
	if err != nil {
		return fmt.Errorf("read the stream and the ledger: %w", err)
	}
	if !exact {
		rec.commits = ob.seen
		r.Limits = append(r.Limits, "the database does not record when transactions are committed (track_commit_timestamp is off): gaps were observed by counting every 25 ms, and latencies end at the beginning of the transaction")
	}
	r.Limits = append(r.Limits, "p50 and p99 compare the clocks of the stream's servers with the database's")
	ob.measure(&rec, ended)
	config := audit.Config{Functions: ob.Functions, Pool: ob.Pool, Conn: ob.Conn, Streams: ob.Streams, Outputs: ob.Outputs, Limit: 20}
	if len(ob.Streams) == 1 {
		if config.From, err = ob.Conn.SequenceAt(ctx, ob.Streams[0], ob.begun.Add(-time.Minute)); err != nil {
			return err
		}
	}
	if r.Audit, err = audit.Run(ctx, config); err != nil {
		return err
	}
	// In a deployment there are always events under way.
	r.Audit.Pending = 0
	markersMissing := r.RPO
	r.Judge(0, 0, nil)
	if markersMissing > r.RPO {
		r.RPO = markersMissing
	}
	return nil
}

// measure adds the figures of the phases, or of one phase if there are no marks.
func (ob *observation) measure(rec *Record, ended time.Time) {
	r := &ob.result
	at := func(t time.Time) time.Time { return t.Add(ob.offset) }
	begun, end := at(ob.begun), at(ended)
	r.Rates = rec.rates(begun, end)
	if len(ob.marks) == 0 {
		r.Phases = []Phase{rec.measure("watched", begun, begun, end)}
		r.RTO = r.Phases[0].Gap
	} else {
		struck, healed, caught := at(ob.marks[0]), end, end
		if len(ob.marks) > 1 {
			healed = at(ob.marks[1])
			caught = rec.Through(healed)
			r.CatchUp = caught.Sub(healed)
		}
		r.Measure(rec, begun, struck, healed, caught, end)
	}
	limit, why := ob.MaxGap, "the configured maximum"
	if limit == 0 && len(ob.marks) > 0 {
		conditions := ob.Conditions
		conditions.Before = r.Phases[0].Gap
		limit, why, _ = AllowedGap(ob.Scenario, conditions)
	}
	if limit > 0 {
		r.Check("longest gap between commits (RTO)", r.RTO <= limit, r.RTO, limit, why)
	}
}

// markers are events that the stream has acknowledged to this program.
type markers struct {
	template  event.Event
	publisher *jetstream.Publisher
	pause     time.Duration
	prefix    string
	acked     chan string
	ids       []string
}

func newMarkers(c Config) (*markers, error) {
	if len(c.Streams) != 1 {
		return nil, errors.New("markers need one stream")
	}
	text, err := os.ReadFile(c.Marker)
	if err != nil {
		return nil, fmt.Errorf("read marker: %w", err)
	}
	m := &markers{
		pause: time.Duration(float64(time.Second) / c.MarkerRate), acked: make(chan string, 1<<20),
		prefix: fmt.Sprintf("drill-%d-", time.Now().UnixNano()),
	}
	if err := json.Unmarshal(text, &m.template); err != nil {
		return nil, fmt.Errorf("read marker %s: want a CloudEvent in JSON: %w", c.Marker, err)
	}
	if !slices.ContainsFunc(c.Functions, func(f functions.Function) bool { return slices.Contains(f.Types, m.template.Type()) }) {
		return nil, fmt.Errorf("marker %s: no function has event type %q", c.Marker, m.template.Type())
	}
	m.publisher, err = jetstream.NewPublisher(c.Conn, c.Streams[0])
	return m, err
}

// publish publishes markers until ctx ends, and keeps the acknowledged ids.
func (m *markers) publish(ctx context.Context) {
	for n := 0; wait(ctx, m.pause); n++ {
		e := m.template.Clone()
		e.SetID(fmt.Sprintf("%s%06d", m.prefix, n))
		go func() {
			attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			if m.publisher.Publish(attempt, []event.Event{e}) == nil {
				m.acked <- e.ID()
			}
		}()
	}
}

func (m *markers) count() int { return len(m.ids) }

// missing returns the number of markers that are neither committed nor dead letters,
// when it is 0 or ctx ends.
func (m *markers) missing(ctx context.Context, pool *pgxpool.Pool, fs []functions.Function) (int, error) {
	for len(m.acked) > 0 {
		m.ids = append(m.ids, <-m.acked)
	}
	missing := len(m.ids)
	for {
		n, err := m.countMissing(context.WithoutCancel(ctx), pool, fs)
		if err == nil {
			missing = n
		}
		if missing == 0 || !wait(ctx, 200*time.Millisecond) {
			return missing, err
		}
	}
}

func (m *markers) countMissing(ctx context.Context, pool *pgxpool.Pool, fs []functions.Function) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	missing := 0
	for _, f := range fs {
		if !slices.Contains(f.Types, m.template.Type()) {
			continue
		}
		var n int
		if err := snapshot.Read(ctx, pool, func(s *snapshot.Snapshot) (err error) {
			n, err = s.CountProcessed(ctx, f.Name, m.template.Source(), m.ids)
			return err
		}); err != nil {
			return 0, err
		}
		missing += len(m.ids) - n
	}
	return missing, nil
}

// wait waits for d, and reports false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
