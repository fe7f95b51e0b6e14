package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test looks into the database
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/audit"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

const flightSource = "/tandem/flights-2001"

// world is a database and the streams, with events in them that were processed.
type world struct {
	url       string
	pool      *pgxpool.Pool
	conn      *jetstream.Conn
	js        natsjs.JetStream
	functions []functions.Function
	events    []event.Event
	writer    *sinkwriter.Writer
}

func newWorld(t *testing.T, events []event.Event, fs ...functions.Function) *world {
	t.Helper()

	w := &world{url: pgtest.URL(t), functions: fs, events: events}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var sets []schema.MigrationSet
	for _, f := range fs {
		if f.Migrations != nil {
			sets = append(sets, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
		}
	}
	must(schema.Migrate(t.Context(), w.url, sets...))
	var err error
	w.pool, err = pgxpool.New(t.Context(), w.url)
	must(err)
	t.Cleanup(w.pool.Close)
	server := natstest.Start(t)
	w.conn = eventtest.Connect(t, server, nil)
	w.js = natstest.JetStream(t, server.URL())

	inputs, err := jetstream.NewPublisher(w.conn, jetstream.StreamConfig{Name: "EVENTS"})
	must(err)
	eventtest.Eventually(t, "the events are stored", func() bool { return inputs.Publish(t.Context(), events) == nil })
	outputs, err := jetstream.NewPublisher(w.conn, jetstream.StreamConfig{Name: "OUTPUTS"})
	must(err)
	must(w.conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "OUTPUTS"}))
	w.writer, err = sinkwriter.New(w.pool, sinkwriter.Config{Cluster: "east", Publisher: outputs})
	must(err)
	return w
}

// handle commits events, like sources and functions, and publishes the outputs.
func (w *world) handle(t *testing.T, events []event.Event) {
	t.Helper()

	letters := deadletter.NewStore(w.pool, "east")
	var offers []sinkwriter.Offer
	for _, e := range events {
		for _, f := range w.functions {
			if !slices.Contains(f.Types, e.Type()) {
				continue
			}
			fx, err := f.Handle(t.Context(), e)
			var reject *functions.RejectError
			if errors.As(err, &reject) {
				err = letters.Save(t.Context(), deadletter.Letter{Function: f.Name, Event: e, Code: 422, Reason: reject.Error()})
			} else {
				offers = append(offers, sinkwriter.Offer{Function: f.Name, Version: f.Version, Event: e, Effects: fx})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, outcome := range w.writer.CommitAll(t.Context(), offers) {
		if outcome.Err != nil {
			t.Fatal(outcome.Err)
		}
	}
	if err := w.writer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// acknowledge saves the checkpoint of a source at the end of its stream.
func (w *world) acknowledge(t *testing.T) {
	t.Helper()

	extent, err := w.conn.Extent(t.Context(), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	row := ledger.CheckpointUpdate{Epoch: extent.Epoch, Floor: extent.Last + 1, Head: extent.Last + 1, Hedge: "0"}
	if _, ok, err := ledger.NewCheckpoints(w.pool, "east").Save(t.Context(), w.functions[0].Name, extent.Origin, row, ledger.Checkpoint{}); err != nil || !ok {
		t.Fatal(ok, err)
	}
}

func (w *world) audit(t *testing.T, change ...func(*audit.Config)) audit.Report {
	t.Helper()

	config := audit.Config{Functions: w.functions, Pool: w.pool, Conn: w.conn}
	for _, c := range change {
		c(&config)
	}
	report, err := audit.Run(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (w *world) exec(t *testing.T, sql string, args ...any) {
	t.Helper()

	if tag, err := w.pool.Exec(t.Context(), sql, args...); err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%s: %v, %d rows", sql, err, tag.RowsAffected())
	}
}

func someFlights(t *testing.T, n int) []event.Event {
	t.Helper()

	airports := []string{"DTW", "HNL", "LAS", "MHT", "ALB", "JFK", "SFO"}
	events := make([]event.Event, n)
	for i := range events {
		at := time.Date(2001, 1, 1, 0, i, 0, 0, time.UTC)
		e := event.New()
		e.SetSource(flightSource)
		e.SetID(fmt.Sprintf("flight-2001-%06d", i+1))
		e.SetType("com.example.flight.departed")
		e.SetTime(at)
		err := e.SetData(event.ApplicationJSON, map[string]any{
			"date": at.Format("2006/01/02 15:04"), "delay": i%90 - 10, "distance": 100 + i,
			"origin": airports[i%len(airports)], "destination": airports[(i+1)%len(airports)],
		})
		if err != nil {
			t.Fatal(err)
		}
		events[i] = e
	}
	return events
}

func poison() event.Event {
	e := event.New()
	e.SetID("poison-1")
	e.SetSource("/test")
	e.SetType(flights.Departed)
	return e
}

func TestNothingIsWrongAfterEverythingWasHandled(t *testing.T) {
	t.Parallel()

	const n = 3000 // more than a portion
	stray := poison()
	stray.SetID("stray")
	stray.SetType("com.example.nobody.takes.it")
	w := newWorld(t, append(someFlights(t, n), poison(), stray), flights.Function())
	w.handle(t, w.events)
	if err := deadletter.NewStore(w.pool, "east").Save(t.Context(), deadletter.Letter{Function: "flights", Event: stray, Code: 422, Reason: "no function takes it"}); err != nil {
		t.Fatal(err)
	}
	w.acknowledge(t)
	report := w.audit(t)
	for _, f := range report.Findings {
		t.Error(f)
	}
	if report.Events != n+1 || report.Handled != n || report.Dead != 1 || report.Ignored != 1 || report.Pending != 0 || report.Rows <= n || report.Outputs < 100 || !report.Complete || len(report.Unchecked) != 0 {
		t.Errorf("report %+v", report)
	}
}

func TestWhatIsMissingExtraOrDifferentIsFound(t *testing.T) {
	t.Parallel()

	w := newWorld(t, someFlights(t, 1000), flights.Function())
	w.handle(t, w.events)
	w.acknowledge(t)
	var late event.Event
	for _, e := range w.events[100:] {
		if fx, _ := w.functions[0].Handle(t.Context(), e); len(fx.Outputs) == 1 {
			late = e
		}
	}
	outSource, outID := functions.OutputIdentity("flights", late.Source(), late.ID(), 0)

	// A lost event: it is neither in the ledger nor in the rows.
	w.exec(t, `delete from tandem.ledger where key = tandem.key('flights', $1, 'flight-2001-000011')`, flightSource)
	w.exec(t, `delete from flights where flight_id = 'flight-2001-000011'`)
	// Rows that were changed by hand.
	w.exec(t, `delete from flights where flight_id = 'flight-2001-000012'`)
	w.exec(t, `update flights set delay = 9999 where flight_id = 'flight-2001-000013'`)
	w.exec(t, `insert into flights select source, 'by-hand', departed_at, origin, destination, distance, delay from flights limit 1`)
	// Effects that differed when they were committed.
	w.exec(t, `update tandem.ledger set digest = sha256('x') where key = tandem.key('flights', $1, 'flight-2001-000014')`, flightSource)
	// A dead letter of an event that does not exist, and one without a reason.
	w.exec(t, `insert into tandem.dead_letter (function, source, id, cluster, type, code, reason, event) values
		('flights', '/nowhere', '1', 'east', 'x', 422, 'no reason', '{}'), ('flights', $1, 'flight-2001-000011', 'west', 'x', 422, '', '{}')`, flightSource)
	// Messages that were deleted from the streams, and one that no function has sent.
	inputs, err := w.js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := inputs.DeleteMsg(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	outputs, err := w.js.Stream(t.Context(), "OUTPUTS")
	if err != nil {
		t.Fatal(err)
	}
	var lost uint64
	if err := w.conn.History(t.Context(), jetstream.StreamConfig{Name: "OUTPUTS"}, 1, 1<<60, func(p jetstream.Past) error {
		if p.Event.ID() == outID && p.Event.Source() == outSource {
			lost = p.Sequence
		}
		return nil
	}); err != nil || lost == 0 || lost == 1 {
		t.Fatal(lost, err)
	}
	if err := outputs.DeleteMsg(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	random := event.New()
	random.SetID("random")
	random.SetSource(outSource)
	random.SetType(flights.Delayed)
	publisher, err := jetstream.NewPublisher(w.conn, jetstream.StreamConfig{Name: "OUTPUTS"})
	if err != nil {
		t.Fatal(err)
	}
	if err := publisher.Publish(t.Context(), []event.Event{random}); err != nil {
		t.Fatal(err)
	}

	report := w.audit(t)
	// Event 11 has a dead letter, so it is dead, and the value of its airport is too
	// high. The sums of event 20's airport and of the deleted message are too high too.
	want := map[string]int64{
		"missing row": 1, "different row": 3, "extra row": 2,
		"different event": 1, "extra event": 1,
		"missing output": 1, "extra output": 1,
		"extra dead letter": 1, "different dead letter": 1,
	}
	if diff := cmp.Diff(want, report.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	text := fmt.Sprint(report.Findings)
	for _, part := range []string{
		`missing row of flights ["/tandem/flights-2001", "flight-2001-000012"]`,
		`different row of flights ["/tandem/flights-2001", "flight-2001-000013"]: delay: is {`,
		`extra row of flights ["/tandem/flights-2001", "by-hand"]`, `extra row of flights ["/tandem/flights-2001", "flight-2001-000020"]`,
		"different event flight-2001-000014", "missing output " + outID, "extra output random",
		"different dead letter flight-2001-000011 of /tandem/flights-2001, function flights: it has no reason",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("no finding %s", part)
		}
	}
	for _, f := range report.Findings {
		t.Log(f)
	}
}

func TestAnEventBehindADeadLetterIsNotMissing(t *testing.T) {
	t.Parallel()

	w := newWorld(t, someFlights(t, 100), flights.Function())
	w.handle(t, w.events[1:])
	w.acknowledge(t)
	e := w.events[0]
	stored := ledger.StoredEvent{Subject: "x", Source: e.Source(), ID: e.ID(), Stream: "EVENTS", Sequence: 1, Event: []byte("{}")}
	if _, err := ledger.NewBlocked(w.pool, "east").Store(t.Context(), "flights", []ledger.StoredEvent{stored}); err != nil {
		t.Fatal(err)
	}
	if report := w.audit(t); report.Blocked != 1 || report.Handled != 99 || !report.OK() {
		t.Errorf("report %+v", report)
	}
}

func TestADeferredEventIsNotMissing(t *testing.T) {
	t.Parallel()

	w := newWorld(t, someFlights(t, 100), flights.Function())
	w.handle(t, w.events[1:])
	w.acknowledge(t)
	e := w.events[0]
	waits := deferred.Event{
		Key: ledger.NewKey("flights", e.Source(), e.ID()), Source: e.Source(), ID: e.ID(), Stream: "EVENTS", Sequence: 1, Fingerprint: "42703 flights.gate", Proven: true, Event: []byte("{}"),
	}
	if _, err := deferred.NewStore(w.pool, "east").Defer(t.Context(), "flights", []deferred.Event{waits}, 0); err != nil {
		t.Fatal(err)
	}
	if report := w.audit(t); report.Deferred != 1 || report.Handled != 99 || !report.OK() {
		t.Errorf("report %+v", report)
	}
}

func TestALostEventIsHandedOut(t *testing.T) {
	t.Parallel()

	w := newWorld(t, someFlights(t, 100), flights.Function())
	w.handle(t, w.events[1:])
	w.acknowledge(t)
	var lost []string
	report := w.audit(t, func(c *audit.Config) {
		c.Lost = func(_ context.Context, function string, e event.Event) error {
			lost = append(lost, function+" "+e.ID())
			return nil
		}
	})
	if diff := cmp.Diff([]string{"flights flight-2001-000001"}, lost); diff != "" {
		t.Errorf("lost (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int64{"missing event": 1}, report.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestWhatIsUnderWayIsNotMissing(t *testing.T) {
	t.Parallel()

	w := newWorld(t, someFlights(t, 100), flights.Function())
	w.handle(t, w.events[:60])
	report := w.audit(t)
	if report.Pending != 40 || report.Handled != 60 || !report.OK() {
		t.Errorf("report %+v", report)
	}
}

func TestAPartOfTheStreamIsComparedAsFarAsItGoes(t *testing.T) {
	t.Parallel()

	w := newWorld(t, someFlights(t, 100), flights.Function())
	w.handle(t, w.events)
	w.acknowledge(t)
	w.exec(t, `delete from flights where flight_id in ('flight-2001-000010', 'flight-2001-000090')`)
	w.exec(t, `update airports set delay_minutes = 0`) // which the part does not cover
	report := w.audit(t, func(c *audit.Config) { c.From = 51 })
	if diff := cmp.Diff(map[string]int64{"missing row": 1}, report.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if report.Complete || report.Messages != 50 || len(report.Unchecked) == 0 {
		t.Errorf("report %+v", report)
	}
}

// everything writes with every operation.
func everything() functions.Function {
	at := func(i int) time.Time { return time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC) }
	return functions.Function{
		Name: "everything", Version: "v1", Types: []string{"com.example.everything"},
		Handle: func(_ context.Context, e event.Event) (functions.Effects, error) {
			i := int(functions.Int64(e, "n") % 7)
			if i < 0 {
				i += 7
			}
			var fx functions.Effects
			fx.Upsert("newest", functions.Row{"k": fmt.Sprint(i % 3), "at": at(i), "note": fmt.Sprint(i), "tags": []string{"a", fmt.Sprint(i)}, "doc": map[string]any{"i": i}}, functions.NewestWins("at"))
			fx.Upsert("oldest", functions.Row{"k": fmt.Sprint(i % 3), "at": at(i), "note": fmt.Sprint(i)}, functions.OldestWins("at"))
			fx.Upsert("extremes", functions.Row{"k": "same", "high": i, "last": at(i)}, functions.Max())
			fx.Upsert("extremes", functions.Row{"k": "same", "low": i}, functions.Min())
			fx.Upsert("replaced", functions.Row{"k": e.ID(), "n": "1.50", "raw": []byte{0, byte(i)}}, functions.Replace())
			fx.Upsert("replaced", functions.Row{"k": "same", "n": i}, functions.Replace())
			fx.Insert("gone", functions.Row{"k": e.ID()})
			if i == 0 {
				fx.Delete("never", functions.Row{"k": e.ID()})
				fx.Delete("newest", functions.Row{"k": "x"}, functions.Version{Column: "at", Value: at(3)})
			}
			return fx, nil
		},
	}
}

func TestEveryOperationIsExpectedAsItIsApplied(t *testing.T) {
	t.Parallel()

	events := make([]event.Event, 200)
	for i := range events {
		events[i] = event.New()
		events[i].SetID(fmt.Sprintf("e-%04d", i))
		events[i].SetSource("/test")
		events[i].SetType("com.example.everything")
	}
	w := newWorld(t, events, everything())
	for _, sql := range []string{
		`create table newest (k text primary key, at timestamptz, note text, tags text[], doc jsonb, deleted boolean not null default false)`,
		`create table oldest (k text primary key, at timestamptz, note text)`,
		`create table extremes (k text primary key, high int, last timestamptz, low int)`,
		`create table replaced (k text primary key, n numeric, raw bytea)`,
		`create table gone (k char(8) primary key)`,
		`create table never (k text primary key)`,
	} {
		if _, err := w.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	w.handle(t, events)
	w.acknowledge(t)
	report := w.audit(t)
	for _, f := range report.Findings {
		t.Error(f)
	}
	if report.Rows < 400 {
		t.Errorf("report %+v", report)
	}
	w.exec(t, `update newest set tags = '{b}' where k = '1'`)
	w.exec(t, `update newest set deleted = false where k = 'x'`)
	w.exec(t, `update oldest set note = 'x' where k = '1'`)
	w.exec(t, `update extremes set low = 1`)
	w.exec(t, `update replaced set n = 1.51 where k = 'e-0003'`)
	w.exec(t, `update replaced set raw = '\x07' where k = 'e-0004'`)
	w.exec(t, `insert into never values ('1')`)
	w.exec(t, `delete from gone where k = 'e-0005'`)
	report = w.audit(t)
	if diff := cmp.Diff(map[string]int64{"different row": 6, "extra row": 1, "missing row": 1}, report.Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s\n%v", diff, report.Findings)
	}
}
