package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test looks into the database
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// deployed is a function with a database and streams, which has processed flights.
type deployed struct {
	databaseURL, natsURL, functionURL string

	pool   *pgxpool.Pool
	stream natsjs.Stream // the inputs
	output natsjs.Stream
}

func deploy(t *testing.T, n int) *deployed {
	t.Helper()

	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	server := natstest.Start(t)
	d := &deployed{databaseURL: pgtest.URL(t), natsURL: server.URL()}
	must(tandem.New().Migrate(ctx, d.databaseURL))
	var err error
	d.pool, err = pgxpool.New(ctx, d.databaseURL)
	must(err)
	t.Cleanup(d.pool.Close)

	function := tandem.New()
	must(function.Start(ctx, map[string]string{"TANDEM_CLUSTER": "east", "DATABASE_URL": d.databaseURL, "NATS_URL": d.natsURL, "LOG_LEVEL": "error"}))
	t.Cleanup(func() { _ = function.Stop(context.Background()) })
	address := httptest.NewServer(http.HandlerFunc(function.Handle))
	t.Cleanup(address.Close)
	d.functionURL = address.URL
	eventtest.Eventually(t, "the function is ready", func() bool { ok, _ := function.Ready(ctx); return ok })

	conn := eventtest.Connect(t, server, nil)
	eventtest.Eventually(t, "the streams are there", func() bool {
		return conn.EnsureStream(ctx, jetstream.StreamConfig{Name: "OUTPUTS"}) == nil && conn.EnsureStream(ctx, jetstream.StreamConfig{Name: "EVENTS"}) == nil
	})
	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "EVENTS"})
	must(err)
	var events []event.Event
	for e, err := range feed.FlightEvents(0) {
		must(err)
		if events = append(events, e); len(events) == n {
			break
		}
	}
	eventtest.Eventually(t, "events are stored", func() bool { return publisher.Publish(ctx, events) == nil })
	client := &http.Client{Timeout: time.Minute}
	for _, e := range events {
		eventtest.Eventually(t, "an event is committed", func() bool { return deliver(ctx, client, d.functionURL, e) == nil })
	}
	extent, err := conn.Extent(ctx, jetstream.StreamConfig{Name: "EVENTS"})
	must(err)
	row := ledger.CheckpointUpdate{Epoch: extent.Epoch, Floor: extent.Last + 1, Head: extent.Last + 1, Hedge: "0"}
	_, _, err = ledger.NewCheckpoints(d.pool, "east").Save(ctx, "flights", extent.Origin, row, ledger.Checkpoint{})
	must(err)

	js := natstest.JetStream(t, d.natsURL)
	d.stream, err = js.Stream(ctx, "EVENTS")
	must(err)
	d.output, err = js.Stream(ctx, "OUTPUTS")
	must(err)
	box := sinkwriter.NewOutbox(d.pool)
	eventtest.Eventually(t, "everything is published", func() bool { n, err := box.Backlog(ctx); return err == nil && n == 0 })
	return d
}

// verify runs the command.
func (d *deployed) verify(t *testing.T, args ...string) ran {
	t.Helper()

	env := map[string]string{"DATABASE_URL": d.databaseURL, "NATS_URL": d.natsURL}
	args = append([]string{"verify", "--function", root}, args...)
	return invokeTool(t, tool{env: func(name string) string { return env[name] }, build: buildShared}, args...)
}

func (d *deployed) exec(t *testing.T, sql string) {
	t.Helper()

	if tag, err := d.pool.Exec(t.Context(), sql); err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%s: %v, %d rows", sql, err, tag.RowsAffected())
	}
}

func TestDifferencesAreListedAndRepaired(t *testing.T) {
	t.Parallel()

	d := deploy(t, 400)
	if out := d.verify(t).ok(t); !strings.Contains(out, "The database agrees with the stream.") || strings.Contains(out, "WRONG") {
		t.Fatal(out)
	}

	// The state after a failover that lost commits: an event with everything that it
	// wrote is missing.
	d.exec(t, `delete from tandem.ledger where key = tandem.key('flights', '/tandem/flights-2001', 'flight-2001-000007')`)
	d.exec(t, `update airports a set flights = a.flights - 1, delay_minutes = a.delay_minutes - f.delay from flights f where f.flight_id = 'flight-2001-000007' and a.airport = f.origin`)
	d.exec(t, `delete from flights where flight_id = 'flight-2001-000007'`)
	info, err := d.output.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.output.DeleteMsg(t.Context(), info.State.LastSeq); err != nil {
		t.Fatal(err)
	}
	got := d.verify(t)
	if got.code != 1 || got.err != "" || !strings.Contains(got.out, "missing event flight-2001-000007 of /tandem/flights-2001 (EVENTS 7), function flights") || !strings.Contains(got.out, "missing output ") {
		t.Fatalf("%+v", got)
	}
	got = d.verify(t, "--repair", "--to", d.functionURL)
	if got.code != 1 || !strings.Contains(got.out, "delivered again") || !strings.Contains(got.out, "published again") {
		t.Fatalf("%+v", got)
	}
	var r verified
	if out := d.verify(t, "-o", "json").ok(t); json.Unmarshal([]byte(out), &r) != nil || r.Handled != 400 || !r.OK() || strings.Count(out, "\n") != 1 {
		t.Fatal(out)
	}

	// Differences that a delivery cannot repair.
	d.exec(t, `delete from flights where flight_id = 'flight-2001-000008'`)
	d.exec(t, `update flights set origin = 'XXX' where flight_id = 'flight-2001-000009'`)
	if err := d.stream.DeleteMsg(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	got = d.verify(t, "-o", "json", "--repair", "--to", d.functionURL)
	r = verified{}
	if got.code != 1 || json.Unmarshal([]byte(got.out), &r) != nil || r.Delivered != 0 ||
		r.Counts["missing row"] != 1 || r.Counts["different row"] != 2 || r.Counts["extra row"] != 1 || r.Counts["extra event"] != 1 {
		t.Fatalf("%+v", got)
	}
	// A later part is not affected.
	d.verify(t, "--from", "11", "--functions", "flights").ok(t)
	if out := d.verify(t, "--since", "0s").ok(t); !strings.Contains(out, "messages read  0") {
		t.Error(out)
	}
	d.verify(t, "--functions", "fligths").fails(t, 2, `the program has no function "fligths"`)
}

func TestAWrongVerificationIsExplained(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"a word", `argument "now"`, []string{"now"}},
		{"a time", "want an age such as 90m, or a time", []string{"--since", "yesterday"}},
		{"two beginnings", "--since and --from: want one of them", []string{"--since", "1h", "--from", "3"}},
		{"two streams", "--since needs one stream", []string{"--since", "1h", "--streams", "A,B"}},
		{"no function", "want the URL of the function", []string{"--repair"}},
		{"no database", "set --database-url or DATABASE_URL", nil},
	} {
		invoke(t, nil, append([]string{"verify"}, tt.args...)...).fails(t, 2, tt.want)
	}
	if out := invoke(t, nil, "verify", "--help").ok(t); !strings.Contains(out, "different event") {
		t.Error(out)
	}
	url, nats := pgtest.URL(t), natstest.Start(t).URL()
	invoke(t, nil, "verify", "--database-url", url, "--nats-url", nats).fails(t, 2, "no function: run this in the folder of a function")
}
