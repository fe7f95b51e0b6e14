package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test looks into the database

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestAReplayIsDoneOnceAndTakesTheLetterOut(t *testing.T) {
	t.Parallel()

	w := newLettersWorld(t)
	good := w.flights(t, 3)
	for _, e := range good {
		w.save(t, "east", e, 500, "panic: nil map")
		w.save(t, "west", e, 500, "panic: nil map")
	}
	bad := good[0].Clone()
	bad.SetID("bad")
	bad.DataEncoded = []byte(`{"delay":"late"}`)
	w.save(t, "east", bad, 422, "delay: want a number")

	got := w.run(t, "replay", "--all", "--to", w.function)
	got.fails(t, 1, "tandem: 1 events were refused again and are still dead letters\n")
	out := got.out
	for _, want := range []string{"won      flights  " + feed.FlightSource + "  flight-2001-000001\n", "refused  flights  " + feed.FlightSource + "  bad  422 ", "3 won, 0 lost (committed before), 1 refused\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if n := w.count(t, "select count(*) from flights"); n != 3 {
		t.Errorf("%d flights, want 3", n)
	}
	before := w.count(t, "select sum(flights) from airports")

	// A late cluster's rejection of an event that is committed changes nothing.
	w.save(t, "west", good[0], 422, "old version")
	out = w.run(t, "replay", "--id", good[0].ID(), "-o", "json", "--to", w.function).ok(t)
	if want := fmt.Sprintf(`{"result":"lost","function":"flights","source":%q,"id":%q}`+"\n", feed.FlightSource, good[0].ID()); out != want {
		t.Errorf("%s, want %s", out, want)
	}
	if n := w.count(t, "select sum(flights) from airports"); n != before {
		t.Errorf("airports have %d flights, had %d", n, before)
	}
	if n := w.count(t, "select count(*) from tandem.dead_letter"); n != 1 {
		t.Errorf("%d dead letters are left, want the bad one", n)
	}
	w.run(t, "list", "--check").fails(t, 1, "")
	if out = w.run(t, "drop", "--code", "422").ok(t); !strings.Contains(out, "dropped  flights  "+feed.FlightSource+"  bad\n1 dropped\n") {
		t.Errorf("printed\n%s", out)
	}
	if out = w.run(t, "list", "--check").ok(t); out != "no dead letters\n" {
		t.Errorf("printed\n%s", out)
	}
}

func TestAReplayToAWrongAddressLeavesTheLetter(t *testing.T) {
	t.Parallel()

	w := newLettersWorld(t)
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
		"nowhere":                {to: "", want: "no function URL: set --to"},
		"nobody, with the name ": {to: "http://127.0.0.1:1/{function}", want: "send to http://127.0.0.1:1/flights: "},
	} {
		t.Log(name)
		w.run(t, "replay", "--all", "--patience", "300ms", "--to", tt.to).fails(t, 2, tt.want)
	}
	if n := w.count(t, "select count(*) from tandem.dead_letter"); n != 1 {
		t.Errorf("%d dead letters are left, want 1", n)
	}
}

func TestAReplayWaitsForAFunctionThatIsNotReady(t *testing.T) {
	t.Parallel()

	w := newLettersWorld(t)
	var asked atomic.Int64
	header := make(chan http.Header, 10)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		header <- r.Header
		rw.Header().Set("Tandem-Receipt", "won")
		rw.Header().Set("Tandem-Key", ledger.NewKey("flights", r.Header.Get("Ce-Source"), r.Header.Get("Ce-Id")).String())
	}))
	t.Cleanup(server.Close)
	e := w.flights(t, 1)[0]
	for _, name := range []string{"knativeerrordest", "knativeerrorcode", "knativeerrordata", "tandemfunction", "tandemattempts", "tenant"} {
		e.SetExtension(name, "x")
	}
	w.save(t, "east", e, 500, "")
	if out := w.run(t, "replay", "--all", "--to", server.URL).ok(t); !strings.Contains(out, "1 won") {
		t.Fatal(out)
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

	large := strings.Repeat("a", 7000) // too large for the headers of some proxies
	for stored, want := range map[string][2]string{
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","x":"` + large + `"}`:                              {"application/cloudevents+json", `{"id":"1","source":"/s","specversion":"1.0","type":"t","x":"` + large + `"}`},
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

	w := newLettersWorld(t)
	e := w.flights(t, 2)
	w.save(t, "east", e[0], 422, "delay: want\ta number\n"+strings.Repeat("x", 100))
	w.save(t, "west", e[0], 422, "the same")
	w.save(t, "west", e[1], 500, "panic")
	if _, err := w.pool.Exec(t.Context(), `insert into tandem.progress (cluster, function, stream, epoch, floor) values ('east', 'flights', 'EVENTS', 'e', 1), ('west', 'flights', 'EVENTS', 'e', 1);
		update tandem.dead_letter set first_at = '2001-01-01 00:00Z', last_at = '2001-01-01 00:00Z' where cluster = 'east';
		update tandem.dead_letter set first_at = '2001-01-02 00:00Z', last_at = '2001-01-02 00:00Z' where cluster = 'west'`); err != nil {
		t.Fatal(err)
	}

	out := w.run(t, "list").ok(t)
	want := `VERDICT    FUNCTION  CODE  CLUSTERS   ATTEMPTS  LAST                  SOURCE                ID                  REASON
poison     flights   422   east,west  6         2001-01-02T00:00:00Z  /tandem/flights-2001  flight-2001-000001  the same
undecided  flights   500   west       3         2001-01-02T00:00:00Z  /tandem/flights-2001  flight-2001-000002  panic
`
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if out = w.run(t, "list", "--limit", "1").ok(t); !strings.HasSuffix(out, "… the first 1; see more with --limit\n") {
		t.Errorf("printed\n%s", out)
	}
	out = w.run(t, "list", "-o", "json", "--verdict", "poison", "--since", "2001-01-01T00:00:00Z", "--until", "1h").ok(t)
	var got deadletter.Event
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.ID != e[0].ID() || len(got.Clusters) != 2 || strings.Count(out, "\n") != 1 {
		t.Errorf("%s, %v", out, err)
	}

	out = w.run(t, "show", "--id", e[0].ID()).ok(t)
	for _, want := range []string{
		"poison  flights  /tandem/flights-2001  flight-2001-000001\n",
		"  west     422   3         1      2001-01-02T00:00:00Z  2001-01-02T00:00:00Z\n",
		"  east: delay: want\ta number\n",
		`"origin": "` + e[0].Subject() + `"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out = w.run(t, "show", "-o", "json", "--id", e[0].ID()).ok(t)
	var whole shown
	if err := json.Unmarshal([]byte(out), &whole); err != nil || len(whole.Letters) != 2 || whole.Verdict != "poison" || !strings.Contains(string(whole.Letters[1].Event), e[0].Subject()) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestAWrongDeadLettersCommandIsExplained(t *testing.T) {
	t.Parallel()

	for args, want := range map[string]string{
		"bury":                           `unknown command "bury": want drop, list, replay, show: see tandem dead-letters --help`,
		"drop":                           "which events to drop: want --function",
		"replay --to http://x":           "which events to replay",
		"drop --all --id 1":              "--all and another flag",
		"list flights":                   `argument "flights": want flags only`,
		"list --verdict dead":            "want poison, sick or undecided",
		"list --since yesterday":         "want an age such as 90m",
		"list --limit 0":                 "--limit 0: want at least 1",
		"list --to http://x":             "unknown flag: --to",
		"replay --all --parallel 0":      "--parallel 0: want 1 to 256",
		"list --code many":               "invalid argument",
		"list --function a --since 1h x": `argument "x"`,
	} {
		invoke(t, nil, append([]string{"dead-letters"}, strings.Fields(args)...)...).fails(t, 2, want)
	}
	if out := invoke(t, nil, "dead-letters").ok(t); !strings.Contains(out, "sick cluster") || !strings.Contains(out, "replay ") {
		t.Errorf("the help is\n%s", out)
	}
	invoke(t, nil, "dead-letters", "list", "--database-url", pgtest.URL(t)).fails(t, 2, "run tandem migrate first")
	w := newLettersWorld(t)
	w.url = pgtest.Role(t, w.url)
	w.run(t, "list").fails(t, 2, "use the role that runs tandem migrate")
}

// lettersWorld is a database and a function that serves flights.
type lettersWorld struct {
	url      string
	pool     *pgxpool.Pool
	function string
}

func newLettersWorld(t *testing.T) *lettersWorld {
	t.Helper()

	w := &lettersWorld{url: pgtest.Copy(t, "migrated", tandem.New().Migrate)}
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

func (w *lettersWorld) run(t *testing.T, args ...string) ran {
	t.Helper()

	return invoke(t, map[string]string{"DATABASE_URL": w.url}, append([]string{"dead-letters"}, args...)...)
}

// flights returns the first n flights.
func (w *lettersWorld) flights(t *testing.T, n int) []event.Event {
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

func (w *lettersWorld) save(t *testing.T, cluster string, e event.Event, code int, reason string) {
	t.Helper()

	letter := deadletter.Letter{Function: "flights", Event: e, Code: code, Reason: reason, Attempts: 3}
	if err := deadletter.NewStore(w.pool, cluster).Save(t.Context(), letter); err != nil {
		t.Fatal(err)
	}
}

func (w *lettersWorld) count(t *testing.T, sql string) (n int) {
	t.Helper()

	if err := w.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
