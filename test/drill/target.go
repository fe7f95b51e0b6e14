package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/audit"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/test/world"
)

const (
	connectTimeout = 10 * time.Second

	// settleTime is how long what came last may take to be committed, before it is
	// missed.
	settleTime = 30 * time.Second
)

// targetOptions are for a real deployment.
type targetOptions struct {
	on                   bool
	databaseURL, natsURL string
	streams              []jetstream.StreamConfig
	outputs              jetstream.StreamConfig
	functions            []functions.Function
	duration             time.Duration
	marker               string // file
	markerRate           float64

	streamNames, outputName, functionNames string
}

func (t *targetOptions) flags(flags *flag.FlagSet) {
	env := func(name, otherwise string) string {
		if value := os.Getenv(name); value != "" {
			return value
		}
		return otherwise
	}
	flags.BoolVar(&t.on, "target", false, "watch the deployment at DATABASE_URL and NATS_URL, and change nothing; Enter says when a plug is pulled, and again when it is back. A scenario beside it says how long a gap may be")
	flags.DurationVar(&t.duration, "duration", 24*time.Hour, "--target: for how `long` to watch; ^C ends it before, with a report")
	flags.StringVar(&t.streamNames, "streams", env("TANDEM_STREAMS", "EVENTS"), "--target: `streams` of the inputs, with commas between (TANDEM_STREAMS)")
	flags.StringVar(&t.outputName, "outputs", env("TANDEM_OUTPUT_STREAM", "OUTPUTS"), "--target: `stream` of the outputs (TANDEM_OUTPUT_STREAM)")
	flags.StringVar(&t.functionNames, "functions", os.Getenv("TANDEM_FUNCTIONS"), "--target: `names` of the functions to look at; all by default (TANDEM_FUNCTIONS)")
	flags.StringVar(&t.marker, "marker", "", "--target: `file` with a CloudEvent in JSON that a function takes, to be published again and again with ids of its own, and looked for afterwards. It is really handled")
	flags.Float64Var(&t.markerRate, "marker-rate", 10, "--target: how many `markers` a second")
}

func (t *targetOptions) validate() error {
	if !t.on {
		return nil
	}
	return t.find(os.Getenv("DATABASE_URL"), os.Getenv("NATS_URL"))
}

// find says where the deployment is, and what of it is looked at.
func (t *targetOptions) find(databaseURL, natsURL string) error {
	t.databaseURL, t.natsURL = databaseURL, natsURL
	var errs []error
	if t.databaseURL == "" {
		errs = append(errs, errors.New("DATABASE_URL is not set: say where the database is, as postgres://USER:PASSWORD@HOST:5432/NAME"))
	}
	if t.natsURL == "" {
		errs = append(errs, errors.New("NATS_URL is not set: say where the streams are, as nats://HOST:4222"))
	}
	for name := range strings.SplitSeq(t.streamNames, ",") {
		t.streams = append(t.streams, jetstream.ParseStream(name))
	}
	t.outputs = jetstream.ParseStream(t.outputName)
	t.functions = tandem.Functions()
	if t.functionNames != "" {
		wanted := strings.Split(t.functionNames, ",")
		t.functions = slices.DeleteFunc(t.functions, func(f functions.Function) bool { return !slices.Contains(wanted, f.Name) })
		if len(t.functions) != len(wanted) {
			errs = append(errs, fmt.Errorf("--functions %q: not all of them are in this program", t.functionNames))
		}
	}
	if t.markerRate <= 0 || t.markerRate > 1000 {
		errs = append(errs, fmt.Errorf("--marker-rate %g: want up to 1000", t.markerRate))
	}
	if t.duration < time.Second {
		errs = append(errs, fmt.Errorf("--duration %s: want 1s or more", t.duration))
	}
	return errors.Join(errs...)
}

// observation is one of a real deployment.
type observation struct {
	options options
	pool    *pgxpool.Pool
	conn    *jetstream.Conn
	say     func(string, ...any)
	result  result
	begun   time.Time
	offset  time.Duration // the database's clock is that much ahead of ours
	marks   []time.Time
	seen    []time.Time // when commits were seen; only what ran in between counts
	markers *markers
}

// observe watches until the time is over or somebody ends it, and judges.
func observe(ctx context.Context, o options, in io.Reader, say func(string, ...any)) (result, error) {
	ob := &observation{options: o, say: say, result: result{
		Scenario: "target", What: "a real deployment was watched while people pulled the plugs",
		Options: "Watched, not struck.",
	}}
	if o.scenario != "" {
		ob.result.Scenario = "target-" + o.scenario
	}
	settings, err := pgxpool.ParseConfig(o.target.databaseURL)
	if err != nil {
		return ob.result, errors.New("DATABASE_URL: want postgres://USER:PASSWORD@HOST:5432/NAME") // the parser repeats the password
	}
	settings.MaxConns = 3
	settings.ConnConfig.ConnectTimeout = 2 * time.Second
	if ob.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), settings); err != nil {
		return ob.result, fmt.Errorf("connect to the database: %w", err)
	}
	defer ob.pool.Close()
	if ob.conn, err = jetstream.Connect(context.WithoutCancel(ctx), o.target.natsURL, jetstream.Config{Name: "tandem-drill"}); err != nil {
		return ob.result, err
	}
	defer func() { _ = ob.conn.Close(context.WithoutCancel(ctx)) }()
	if err := ob.conn.Wait(ctx, connectTimeout); err != nil {
		return ob.result, fmt.Errorf("%w: look at NATS_URL", err)
	}
	if ob.offset, err = ob.readOffset(ctx); err != nil {
		return ob.result, fmt.Errorf("ask the database: %w: look at DATABASE_URL", err)
	}
	if o.target.marker != "" {
		if ob.markers, err = newMarkers(o.target, ob.conn); err != nil {
			return ob.result, err
		}
	}
	ob.begun = time.Now()
	ob.result.Begun = ob.begun
	ob.watch(ctx, in)
	// Who ends it wants the report all the same.
	judging, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
	defer cancel()
	return ob.result, ob.judge(judging)
}

func (ob *observation) readOffset(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	asked := time.Now()
	var there time.Time
	err := ob.pool.QueryRow(ctx, "select clock_timestamp()").Scan(&there)
	here := time.Now()
	return there.Sub(asked.Add(here.Sub(asked) / 2)), err
}

// watch takes down what happens, and what people say.
func (ob *observation) watch(ctx context.Context, in io.Reader) {
	ctx, cancel := context.WithTimeout(ctx, ob.options.target.duration)
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
	ob.say("watching; press Enter when a plug is pulled, and again when it is back; ^C ends it, with a report")
	for {
		select {
		case <-ctx.Done():
			<-done
			return
		case line := <-lines:
			ob.mark(line)
		case n := <-polled:
			ob.say("%6.1f s  %+d events committed", time.Since(ob.begun).Seconds(), n)
		}
	}
}

// mark notes what somebody says.
func (ob *observation) mark(line string) {
	now := time.Now()
	ob.marks = append(ob.marks, now)
	if line == "" {
		line = "marked"
	}
	switch len(ob.marks) {
	case 1:
		line += ": a plug is pulled"
	case 2:
		line += ": it is back"
	}
	n := note{At: now.Sub(ob.begun), Text: line}
	ob.result.Notes = append(ob.result.Notes, n)
	ob.say("%6.1f s  %s", n.At.Seconds(), n.Text)
}

// poll looks all the time whether something was committed, and gives once a second
// how much.
func (ob *observation) poll(ctx context.Context, polled chan<- int64) {
	const interval = 25 * time.Millisecond
	// Only the newest rows are counted, whose number is small, from a time on that
	// moves once a second.
	from := ob.begun.Add(ob.offset)
	var known, second int64 = -1, 0
	moved := time.Now()
	for world.Wait(ctx, interval) {
		var n int64
		looking, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ob.pool.QueryRow(looking, "select count(*) from tandem.ledger where committed_at > $1", from).Scan(&n)
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
			// A commit between both counts is missed; the next one is not.
			from, known, second, moved = time.Now().Add(ob.offset-3*time.Second), -1, 0, time.Now()
		}
	}
}

// judge reads what happened and gives the verdict.
func (ob *observation) judge(ctx context.Context) error {
	r, t := &ob.result, ob.options.target
	ended := time.Now()
	if ob.markers != nil {
		ob.say("waiting until the last markers are committed, up to %s", settleTime)
		waiting, cancel := context.WithTimeout(ctx, settleTime)
		missing, err := ob.markers.missing(waiting, ob.pool, t.functions)
		cancel()
		if err != nil {
			return fmt.Errorf("look for the markers: %w", err)
		}
		r.check("markers acknowledged by the stream but missing", missing == 0, missing, 0, fmt.Sprintf("of %d", ob.markers.count()))
		r.RPO += int64(missing)
	}
	ob.say("comparing stream, ledger and outputs since the beginning")
	rec, exact, err := readRecord(ctx, ob.pool, ob.conn, t.streams, t.functions, ob.begun.Add(ob.offset))
	if err != nil {
		return fmt.Errorf("read what happened: %w", err)
	}
	if !exact {
		rec.commits = ob.seen
		r.Limits = append(r.Limits, "the database does not keep when transactions are committed (track_commit_timestamp is off): gaps are what was seen by looking every 25 ms, latencies end at the beginning of the transaction")
	}
	r.Limits = append(r.Limits, "p50 and p99 compare the clocks of the stream's servers with the database's")
	ob.measure(&rec, ended)
	config := audit.Config{Functions: t.functions, Pool: ob.pool, Conn: ob.conn, Streams: t.streams, Outputs: t.outputs, Limit: 20}
	if len(t.streams) == 1 {
		if config.From, err = ob.conn.SequenceAt(ctx, t.streams[0], ob.begun.Add(-time.Minute)); err != nil {
			return err
		}
	}
	if r.Audit, err = audit.Run(ctx, config); err != nil {
		return err
	}
	// What is under way goes on being so while others are at work.
	r.Audit.Pending = 0
	markersMissing := r.RPO
	r.judge(0, 0, nil)
	if markersMissing > r.RPO {
		r.RPO = markersMissing
	}
	return nil
}

// measure gives the figures of the phases: one, as long as nobody has said that a plug
// was pulled.
func (ob *observation) measure(rec *record, ended time.Time) {
	r := &ob.result
	at := func(t time.Time) time.Time { return t.Add(ob.offset) }
	begun, end := at(ob.begun), at(ended)
	r.Rates = rec.rates(begun, end)
	if len(ob.marks) == 0 {
		r.Phases = []phase{rec.measure("watched", begun, begun, end)}
		r.RTO = r.Phases[0].Gap
	} else {
		struck, healed, caught := at(ob.marks[0]), end, end
		if len(ob.marks) > 1 {
			healed = at(ob.marks[1])
			caught = rec.through(healed)
			r.CatchUp = caught.Sub(healed)
		}
		r.measure(rec, begun, struck, healed, caught, end)
	}
	limit, why := ob.options.maxGap, "--max-gap"
	if s, ok := find(ob.options.scenario); ok && limit == 0 && len(ob.marks) > 0 {
		limit, why = s.gap(ob.options, r.Phases[0].Gap)
	}
	if limit > 0 {
		r.check("longest gap between commits (RTO)", r.RTO <= limit, r.RTO, limit, why)
	}
}

// markers are events of which we know that the stream has acknowledged them.
type markers struct {
	template  event.Event
	publisher *jetstream.Publisher
	pause     time.Duration
	prefix    string
	acked     chan string
	ids       []string
}

func newMarkers(t targetOptions, conn *jetstream.Conn) (*markers, error) {
	if len(t.streams) != 1 {
		return nil, errors.New("--marker needs one stream: name it with --streams")
	}
	text, err := os.ReadFile(t.marker)
	if err != nil {
		return nil, fmt.Errorf("--marker: %w", err)
	}
	m := &markers{
		pause: time.Duration(float64(time.Second) / t.markerRate), acked: make(chan string, 1<<20),
		prefix: fmt.Sprintf("drill-%d-", time.Now().UnixNano()),
	}
	if err := json.Unmarshal(text, &m.template); err != nil {
		return nil, fmt.Errorf("--marker %s: want a CloudEvent in JSON: %w", t.marker, err)
	}
	if !slices.ContainsFunc(t.functions, func(f functions.Function) bool { return slices.Contains(f.Types, m.template.Type()) }) {
		return nil, fmt.Errorf("--marker %s: no function takes type %q", t.marker, m.template.Type())
	}
	m.publisher, err = jetstream.NewPublisher(conn, t.streams[0])
	return m, err
}

// publish publishes until ctx ends, and remembers what was acknowledged.
func (m *markers) publish(ctx context.Context) {
	for n := 0; world.Wait(ctx, m.pause); n++ {
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

// missing counts those that no function has handled, and that are no dead letters, as
// soon as there are none or ctx ends.
func (m *markers) missing(ctx context.Context, pool *pgxpool.Pool, fs []functions.Function) (int, error) {
	for len(m.acked) > 0 {
		m.ids = append(m.ids, <-m.acked)
	}
	missing := len(m.ids)
	for {
		n, err := m.look(context.WithoutCancel(ctx), pool, fs)
		if err == nil {
			missing = n
		}
		if missing == 0 || !world.Wait(ctx, 200*time.Millisecond) {
			return missing, err
		}
	}
}

func (m *markers) look(ctx context.Context, pool *pgxpool.Pool, fs []functions.Function) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	missing := 0
	for _, f := range fs {
		if !slices.Contains(f.Types, m.template.Type()) {
			continue
		}
		keys := make([][16]byte, len(m.ids))
		for i, id := range m.ids {
			keys[i] = sinkwriter.NewKey(f.Name, m.template.Source(), id)
		}
		var n int
		if err := pool.QueryRow(ctx, `select (select count(*) from tandem.ledger where key = any($1::uuid[])) +
(select count(distinct id) from tandem.dead_letter where function = $2 and source = $3 and id = any($4))`, keys, f.Name, m.template.Source(), m.ids).Scan(&n); err != nil {
			return 0, err
		}
		missing += len(m.ids) - n
	}
	return missing, nil
}
