package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const patience = 60 * time.Second

// deployed is a function over a database and streams, which has handled flights.
type deployed struct {
	databaseURL, natsURL, functionURL string

	pool   *pgxpool.Pool
	stream natsjs.Stream // the inputs
	output natsjs.Stream
}

func deploy(t *testing.T, n int) *deployed {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := &deployed{databaseURL: pgtest.URL(t), natsURL: natstest.Start(t).URL()}
	must(tandem.New().Migrate(ctx, d.databaseURL))
	var err error
	d.pool, err = pgxpool.New(ctx, d.databaseURL)
	must(err)
	t.Cleanup(d.pool.Close)

	function := tandem.New()
	must(function.Start(ctx, map[string]string{"TANDEM_CLUSTER": "east", "DATABASE_URL": d.databaseURL, "NATS_URL": d.natsURL, "LOG_LEVEL": "error"}))
	t.Cleanup(func() { _ = function.Stop(context.Background()) })
	server := httptest.NewServer(http.HandlerFunc(function.Handle))
	t.Cleanup(server.Close)
	d.functionURL = server.URL
	await(t, "the function is ready", func() bool { ok, _ := function.Ready(ctx); return ok })

	conn, err := jetstream.Connect(ctx, d.natsURL, jetstream.Config{})
	must(err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	await(t, "the streams are there", func() bool {
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
	must(publisher.Publish(ctx, events))
	for _, e := range events {
		must(deliver(ctx, http.DefaultClient, d.functionURL, e))
	}
	extent, err := conn.Extent(ctx, jetstream.StreamConfig{Name: "EVENTS"})
	must(err)
	row := sinkwriter.NewProgressRow{Epoch: extent.Epoch, Floor: extent.Last + 1, Head: extent.Last + 1, Hedge: "0"}
	_, _, err = sinkwriter.NewProgress(d.pool, "east").Save(ctx, "flights", extent.Origin, row, sinkwriter.SavedProgress{})
	must(err)

	nc, err := nats.Connect(d.natsURL)
	must(err)
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	must(err)
	d.stream, err = js.Stream(ctx, "EVENTS")
	must(err)
	d.output, err = js.Stream(ctx, "OUTPUTS")
	must(err)
	box := sinkwriter.NewOutbox(d.pool)
	await(t, "everything is published", func() bool { n, err := box.Backlog(ctx); return err == nil && n == 0 })
	return d
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()

	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// verify runs the program and gives what it printed.
func (d *deployed) verify(t *testing.T, args ...string) (string, error) {
	t.Helper()

	o, err := parse(args, time.Now(), &bytes.Buffer{})
	if o.databaseURL, o.natsURL = d.databaseURL, d.natsURL; err != nil && !strings.Contains(err.Error(), "is not set") {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = run(t.Context(), o, &out)
	return out.String(), err
}

func (d *deployed) exec(t *testing.T, sql string) {
	t.Helper()

	if tag, err := d.pool.Exec(t.Context(), sql); err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%s: %v, %d rows", sql, err, tag.RowsAffected())
	}
}

func TestItSaysWhatIsWrongAndRepairsWhatIsMissing(t *testing.T) {
	t.Parallel()

	d := deploy(t, 400)
	out, err := d.verify(t)
	if err != nil || !strings.Contains(out, "The database says what the stream says.") || strings.Contains(out, "WRONG") {
		t.Fatalf("%v\n%s", err, out)
	}

	// As after a failover that lost commits: an event with all that it left.
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
	out, err = d.verify(t)
	if !errors.Is(err, errWrong) || !strings.Contains(out, "missing event flight-2001-000007 of /tandem/flights-2001 (EVENTS 7), function flights") || !strings.Contains(out, "missing output ") {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = d.verify(t, "--repair", "--function", d.functionURL)
	if !errors.Is(err, errWrong) || !strings.Contains(out, "delivered again") || !strings.Contains(out, "published again") {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = d.verify(t, "--json")
	var r result
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || r.Handled != 400 || !r.OK() {
		t.Fatalf("%v\n%s", err, out)
	}

	// What redelivery cannot mend.
	d.exec(t, `delete from flights where flight_id = 'flight-2001-000008'`)
	d.exec(t, `update flights set origin = 'XXX' where flight_id = 'flight-2001-000009'`)
	if err := d.stream.DeleteMsg(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	out, err = d.verify(t, "--json", "--repair", "--function", d.functionURL)
	r = result{}
	if !errors.Is(err, errWrong) || json.Unmarshal([]byte(out), &r) != nil || r.Delivered != 0 ||
		r.Counts["missing row"] != 1 || r.Counts["different row"] != 2 || r.Counts["extra row"] != 1 || r.Counts["extra event"] != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	// A later part has nothing to do with it.
	if out, err = d.verify(t, "--from", "11"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = d.verify(t, "--since", "0s"); err != nil || !strings.Contains(out, "messages read  0") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWhatIsAskedForWronglyIsExplained(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://x")
	t.Setenv("NATS_URL", "nats://x")
	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"a word", "--help lists", []string{"now"}},
		{"a time", "--since \"yesterday\": want a time", []string{"--since", "yesterday"}},
		{"two beginnings", "give one of them", []string{"--since", "1h", "--from", "3"}},
		{"no function", "want the URL of the function", []string{"--repair"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parse(tt.args, time.Now(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, time.Now(), &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "different event") {
		t.Errorf("%v: %s", err, help.String())
	}
	t.Setenv("DATABASE_URL", "")
	if _, err := parse(nil, time.Now(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "DATABASE_URL is not set") {
		t.Errorf("error %v", err)
	}
}
