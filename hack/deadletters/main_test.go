package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/hack/schema"
	"github.com/tandem-fn/tandem/sinkwriter"
)

func TestAReplayIsDoneOnceAndTakesTheLetterOut(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	good := w.flights(t, 3)
	for _, e := range good {
		w.save(t, "east", e, 500, "panic: nil map")
		w.save(t, "west", e, 500, "panic: nil map")
	}
	bad := good[0].Clone()
	bad.SetID("bad")
	bad.DataEncoded = []byte(`{"delay":"late"}`)
	w.save(t, "east", bad, 422, "delay: want a number")

	out, err := w.run(t, "replay", "--all", "--to", w.function)
	if err == nil || err.Error() != "1 events were refused again and are still there" {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{"won      flights  " + feed.FlightSource + "  flight-2001-000001\n", "refused  flights  " + feed.FlightSource + "  bad  422 ", "3 won, 0 lost (done before), 1 refused\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if n := w.count(t, "select count(*) from flights"); n != 3 {
		t.Errorf("%d flights, want 3", n)
	}
	before := w.count(t, "select sum(flights) from airports")

	// What was done already changes nothing: a cluster that came to it late.
	w.save(t, "west", good[0], 422, "old version")
	out, err = w.run(t, "replay", "--id", good[0].ID(), "--json", "--to", w.function)
	want := fmt.Sprintf(`{"result":"lost","function":"flights","source":%q,"id":%q}`+"\n", feed.FlightSource, good[0].ID())
	if err != nil || out != want {
		t.Errorf("%s, %v, want %s", out, err, want)
	}
	if n := w.count(t, "select sum(flights) from airports"); n != before {
		t.Errorf("airports have %d flights, had %d", n, before)
	}
	if n := w.count(t, "select count(*) from tandem.dead_letter"); n != 1 {
		t.Errorf("%d dead letters are left, want the bad one", n)
	}
	out, err = w.run(t, "drop", "--code", "422")
	if err != nil || !strings.Contains(out, "dropped  flights  "+feed.FlightSource+"  bad\n1 dropped\n") {
		t.Errorf("%s, %v", out, err)
	}
	if out, err = w.run(t, "list"); err != nil || out != "no dead letters\n" {
		t.Errorf("%s, %v", out, err)
	}
}

func TestAReplayToAWrongAddressLeavesTheLetter(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.save(t, "east", w.flights(t, 1)[0], 500, "")
	answer := func(code int, header ...string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	for name, tt := range map[string]struct{ to, want string }{
		"a broker":               {to: answer(202), want: "answered 202, but not as function flights does"},
		"another function":       {to: answer(204, "Tandem-Receipt", "won", "Tandem-Key", "2d1f4b0e-0000-0000-0000-000000000000"), want: "but not as function flights does"},
		"nobody":                 {to: "http://user:secret@127.0.0.1:1", want: "connection refused"},
		"not found":              {to: answer(404), want: "answered 404 Not Found: want the function's own address"},
		"one who may not":        {to: answer(401), want: "answered 401 Unauthorized"},
		"a redirect":             {to: answer(302, "Location", "http://127.0.0.1:1"), want: "answered 302 Found"},
		"no URL":                 {to: "flights", want: "URL of the sink: want http://"},
		"always busy":            {to: answer(503), want: "answered 503 Service Unavailable"},
		"nowhere":                {to: "", want: "where to replay to: want --to"},
		"nobody, with the name ": {to: "http://127.0.0.1:1/{function}", want: "send to http://127.0.0.1:1/flights: "},
	} {
		_, err := w.run(t, "replay", "--all", "--patience", "300ms", "--to", tt.to)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want %q in it", name, err, tt.want)
		}
	}
	if n := w.count(t, "select count(*) from tandem.dead_letter"); n != 1 {
		t.Errorf("%d dead letters are left, want 1", n)
	}
}

func TestAReplayWaitsForAFunctionThatIsNotReady(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	var asked atomic.Int64
	header := make(chan http.Header, 10)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		header <- r.Header
		rw.Header().Set("Tandem-Receipt", "won")
		rw.Header().Set("Tandem-Key", sinkwriter.NewKey("flights", r.Header.Get("Ce-Source"), r.Header.Get("Ce-Id")).String())
	}))
	t.Cleanup(server.Close)
	e := w.flights(t, 1)[0]
	for _, name := range []string{"knativeerrordest", "knativeerrorcode", "knativeerrordata", "tandemfunction", "tandemattempts", "tenant"} {
		e.SetExtension(name, "x")
	}
	w.save(t, "east", e, 500, "")
	if out, err := w.run(t, "replay", "--all", "--to", server.URL); err != nil || !strings.Contains(out, "1 won") {
		t.Fatalf("%s, %v", out, err)
	}
	got := <-header
	for name := range got {
		if strings.HasPrefix(name, "Ce-Knative") || strings.HasPrefix(name, "Ce-Tandem") {
			t.Errorf("header %s was sent", name)
		}
	}
	if got.Get("Ce-Tenant") != "x" || got.Get("Ce-Type") != feed.FlightType {
		t.Errorf("sent %v", got)
	}
}

func TestAnEventThatIsNotValidIsReplayedAsItIs(t *testing.T) {
	t.Parallel()

	for stored, want := range map[string][2]string{
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a": 1.50, "b":"<"},"tandemfunction":"f"}`: {"", `{"a": 1.50, "b":"<"}`},
		`{"specversion":"1.0","id":"","source":"/s","type":"t","knativeerrorcode":422}`:                            {"application/cloudevents+json", `{"id":"","source":"/s","specversion":"1.0","type":"t"}`},
	} {
		header, body, err := encode([]byte(stored))
		if err != nil || header.Get("Content-Type") != want[0] && want[0] != "" || string(body) != want[1] {
			t.Errorf("%s: %v %s, %v", stored, header, body, err)
		}
		if header.Get("Ce-Tandemfunction") != "" {
			t.Errorf("%s: header %v", stored, header)
		}
	}
}

func TestListAndShow(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	e := w.flights(t, 2)
	w.save(t, "east", e[0], 422, "delay: want\ta number\n"+strings.Repeat("x", 100))
	w.save(t, "west", e[0], 422, "the same")
	w.save(t, "west", e[1], 500, "panic")
	if _, err := w.pool.Exec(t.Context(), `insert into tandem.progress (cluster, function, stream, epoch, floor) values ('east', 'flights', 'EVENTS', 'e', 1), ('west', 'flights', 'EVENTS', 'e', 1);
		update tandem.dead_letter set first_at = '2001-01-01 00:00Z', last_at = '2001-01-01 00:00Z' where cluster = 'east';
		update tandem.dead_letter set first_at = '2001-01-02 00:00Z', last_at = '2001-01-02 00:00Z' where cluster = 'west'`); err != nil {
		t.Fatal(err)
	}

	out, err := w.run(t, "list")
	if err != nil {
		t.Fatal(err)
	}
	want := `VERDICT    FUNCTION  CODE  CLUSTERS   ATTEMPTS  LAST                  SOURCE                ID                  REASON
poison     flights   422   east,west  6         2001-01-02T00:00:00Z  /tandem/flights-2001  flight-2001-000001  the same
undecided  flights   500   west       3         2001-01-02T00:00:00Z  /tandem/flights-2001  flight-2001-000002  panic
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if out, err = w.run(t, "list", "--limit", "1"); err != nil || !strings.HasSuffix(out, "… the first 1; more with --limit\n") {
		t.Errorf("%s, %v", out, err)
	}
	if out, err = w.run(t, "list", "--json", "--verdict", "poison", "--since", "2001-01-01T00:00:00Z", "--until", "1h"); err != nil {
		t.Fatal(err)
	}
	var got sinkwriter.DeadEvent
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.ID != e[0].ID() || len(got.Clusters) != 2 || strings.Count(out, "\n") != 1 {
		t.Errorf("%s, %v", out, err)
	}

	if out, err = w.run(t, "show", "--id", e[0].ID()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"poison  flights  /tandem/flights-2001  flight-2001-000001\n",
		"  west     422   3         1      2001-01-02T00:00:00Z  2001-01-02T00:00:00Z\n",
		"  east said: delay: want\ta number\n",
		`"origin": "` + e[0].Subject() + `"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, err = w.run(t, "show", "--json", "--id", e[0].ID()); err != nil {
		t.Fatal(err)
	}
	var whole shown
	if err := json.Unmarshal([]byte(out), &whole); err != nil || len(whole.Letters) != 2 || whole.Verdict != "poison" || !strings.Contains(string(whole.Letters[1].Event), e[0].Subject()) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	t.Parallel()

	for args, want := range map[string]string{
		"":                               "want a command: list, show, replay or drop: deadletters --help",
		"bury":                           `command "bury": want list`,
		"drop":                           "which events to drop: want --function",
		"replay --to http://x":           "which events to replay",
		"drop --all --id 1":              "--all beside another flag",
		"list flights":                   `argument "flights": want flags only`,
		"list --verdict dead":            "want poison, sick or undecided",
		"list --since yesterday":         "want how long ago, as 90m",
		"list --limit 0":                 "--limit 0: want at least 1",
		"list --to http://x":             "flag provided but not defined: -to",
		"replay --all --parallel 0":      "--parallel 0: want 1 to 256",
		"list --code many":               "invalid value",
		"list --function a --since 1h x": `argument "x"`,
	} {
		err := run(t.Context(), strings.Fields(args), envconfig.MapLookuper(nil), &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", args, err, want)
		}
	}
	for url, want := range map[string]string{
		"":                            "DATABASE_URL is not set",
		"postgres://user:secret@x:y/": "DATABASE_URL: want postgres://",
		pgtest.URL(t):                 "run migrate first",
	} {
		err := run(t.Context(), []string{"list"}, envconfig.MapLookuper(map[string]string{"DATABASE_URL": url}), &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	w := newWorld(t)
	w.url = pgtest.Role(t, w.url)
	if _, err := w.run(t, "list"); err == nil || !strings.Contains(err.Error(), "take the role that migrates") {
		t.Errorf("another role: %v", err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, envconfig.MapLookuper(nil), &out); !errors.Is(err, flag.ErrHelp) || out.String() != help {
		t.Errorf("--help: %v", err)
	}
}

// world is a database and a function that serves flights.
type world struct {
	url      string
	pool     *pgxpool.Pool
	function string
}

func newWorld(t *testing.T) *world {
	t.Helper()

	w := &world{url: pgtest.Copy(t, "migrated", schema.Migrate)}
	var err error
	if w.pool, err = pgxpool.New(t.Context(), w.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.pool.Close)
	i := tandem.New()
	if err := i.Start(t.Context(), map[string]string{"TANDEM_CLUSTER": "east", "DATABASE_URL": w.url, "LOG_LEVEL": "error"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = i.Stop(ctx)
	})
	server := httptest.NewServer(http.HandlerFunc(i.Handle)) // answers 503 until it is ready
	t.Cleanup(server.Close)
	w.function = server.URL
	return w
}

func (w *world) run(t *testing.T, args ...string) (string, error) {
	t.Helper()

	var out bytes.Buffer
	err := run(t.Context(), args, envconfig.MapLookuper(map[string]string{"DATABASE_URL": w.url}), &out)
	return out.String(), err
}

// flights gives the first of them.
func (w *world) flights(t *testing.T, n int) []event.Event {
	t.Helper()

	var events []event.Event
	for e, err := range feed.FlightEvents(0) {
		if err != nil {
			t.Fatal(err)
		}
		if events = append(events, e); len(events) == n {
			break
		}
	}
	return events
}

func (w *world) save(t *testing.T, cluster string, e event.Event, code int, reason string) {
	t.Helper()

	letter := sinkwriter.DeadLetter{Function: "flights", Event: e, Code: code, Reason: reason, Attempts: 3}
	if err := sinkwriter.NewDeadLetters(w.pool, cluster).Save(t.Context(), letter); err != nil {
		t.Fatal(err)
	}
}

func (w *world) count(t *testing.T, sql string) (n int) {
	t.Helper()

	if err := w.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
