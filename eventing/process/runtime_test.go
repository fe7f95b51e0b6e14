package process_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"         //nolint:depguard // reads the database
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // publishes the rest

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/process"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// migrate creates all tables.
func migrate(ctx context.Context, databaseURL string) error {
	f := flights.Function()
	return schema.Migrate(ctx, databaseURL, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
}

func database(tb testing.TB) string {
	tb.Helper()
	return pgtest.Copy(tb, "migrated", migrate)
}

// startComponents starts a Runtime and waits until it is ready.
func startComponents(tb testing.TB, cluster, databaseURL string, more map[string]string) (*process.Runtime, *httptest.Server) {
	tb.Helper()

	env := map[string]string{"TANDEM_CLUSTER": cluster, "DATABASE_URL": databaseURL, "LOG_LEVEL": "error"}
	maps.Copy(env, more)
	i := process.New(flights.Function())
	if err := i.Start(tb.Context(), env); err != nil {
		tb.Fatal(err)
	}
	stop(tb, i)
	awaitReady(tb, i)
	return i, serve(tb, i)
}

// stop stops i when the test ends.
func stop(tb testing.TB, i *process.Runtime) {
	tb.Helper()

	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
		defer cancel()
		if err := i.Stop(ctx); err != nil {
			tb.Error(err)
		}
	})
}

func serve(tb testing.TB, i *process.Runtime) *httptest.Server {
	tb.Helper()

	s := httptest.NewServer(http.HandlerFunc(i.Handle))
	tb.Cleanup(s.Close)
	return s
}

func awaitReady(tb testing.TB, i *process.Runtime) {
	tb.Helper()

	var last error
	tb.Cleanup(func() {
		if tb.Failed() && last != nil {
			tb.Logf("the process was not ready: %v", last)
		}
	})
	eventtest.Eventually(tb, "the process is ready", func() (ready bool) {
		ready, last = i.Ready(tb.Context())
		return ready
	})
}

// answer is the answer to a request.
type answer struct {
	status        int
	receipt, body string
	header        http.Header
}

// post sends a departure.
func post(ctx context.Context, url, id, data string, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(data))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Ce-Specversion", "1.0")
	req.Header.Set("Ce-Type", "com.example.flight.departed")
	req.Header.Set("Ce-Source", "/tests")
	req.Header.Set("Ce-Id", id)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, receipt: resp.Header.Get("Tandem-Receipt"), body: string(body), header: resp.Header}, err
}

func mustPost(tb testing.TB, url, id, data string, headers ...string) answer {
	tb.Helper()

	a, err := post(tb.Context(), url, id, data, headers...)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func departure(delay int) string {
	return fmt.Sprintf(`{"date":"2001/01/01 00:47","delay":%d,"distance":1750,"origin":"DTW","destination":"LAS"}`, delay)
}

func query[T any](tb testing.TB, databaseURL, sql string, args ...any) T {
	tb.Helper()

	conn, err := pgx.Connect(tb.Context(), databaseURL)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(tb.Context()) //nolint:errcheck // nothing is open on it
	var value T
	if err := conn.QueryRow(tb.Context(), sql, args...).Scan(&value); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return value
}

func TestEventIsCommittedOnceInTwoClusters(t *testing.T) {
	t.Parallel()

	url := database(t)
	_, east := startComponents(t, "east", url, nil)
	_, west := startComponents(t, "west", url, nil)

	first := mustPost(t, east.URL, "flight-1", departure(66))
	if first.status != 204 || first.receipt != "won" {
		t.Fatalf("the first answer is %d %q %q, want 204 and won", first.status, first.receipt, first.body)
	}
	if key := query[string](t, url, "select tandem.key('flights', '/tests', 'flight-1')::text"); first.header.Get("Tandem-Key") != key {
		t.Errorf("Tandem-Key is %q, in the ledger it is %q", first.header.Get("Tandem-Key"), key)
	}
	for _, s := range []*httptest.Server{west, east} {
		if again := mustPost(t, s.URL, "flight-1", departure(66)); again.status != 204 || again.receipt != "lost" {
			t.Errorf("the same event again is answered %d %q %q, want 204 and lost", again.status, again.receipt, again.body)
		}
	}
	if got := query[string](t, url, "select row(f.*)::text from flights f"); got != `(/tests,flight-1,"2001-01-01 00:47:00",DTW,LAS,1750,66)` {
		t.Errorf("the row is %s", got)
	}
	if got := query[string](t, url, "select row(a.*)::text from airports a"); got != "(DTW,1,66)" {
		t.Errorf("the totals are %s", got)
	}
}

func TestBatchIsCommittedTogetherAndAnswered2xxOnlyIfAllOfItIs(t *testing.T) {
	t.Parallel()

	url := database(t)
	_, s := startComponents(t, "east", url, nil)
	const events = 100
	members := make([]string, events)
	for i := range members {
		members[i] = fmt.Sprintf(`{"specversion":"1.0","id":"flight-%d","source":"/tests","type":"com.example.flight.departed","data":%s}`, i, departure(1))
	}
	send := func(members []string) answer {
		return mustPost(t, s.URL, "", "["+strings.Join(members, ",")+"]", "content-type: application/cloudevents-batch+json")
	}
	if a := send(members); a.status != 204 {
		t.Fatalf("answer is %d %q, want 204", a.status, a.body)
	}
	if got := query[string](t, url, "select count(*) || ' in ' || count(distinct xmin::text) from flights"); got != "100 in 1" {
		t.Errorf("rows and transactions: %s, want 100 in 1", got)
	}

	// Each event has its own outcome, with the digest in the ledger.
	var outcomes []outcome.Outcome
	for outcomes == nil || slices.ContainsFunc(outcomes, func(o outcome.Outcome) bool { return o.Kind == outcome.Pending }) { // on a busy machine
		a := mustPost(t, s.URL, "", "["+strings.Join(members, ",")+"]", "content-type: application/cloudevents-batch+json", "accept: "+outcome.OutcomesType)
		var err error
		if outcomes, err = outcome.Parse([]byte(a.body), events); err != nil || a.status != 200 {
			t.Fatalf("answer is %d %q: %v", a.status, a.body, err)
		}
	}
	for i := 0; i < events; i += 10 {
		key := ledger.NewKey("flights", "/tests", fmt.Sprintf("flight-%d", i))
		digest := query[string](t, url, "select encode(digest, 'hex') from tandem.ledger where key = '"+key.String()+"'")
		if want := (outcome.Outcome{Kind: outcome.Committed, Status: 204, Digest: digest}); digest == "" || outcomes[i] != want {
			t.Errorf("outcome %d is %+v, want %+v", i, outcomes[i], want)
		}
	}

	// An event that cannot be stored does not keep others from being stored.
	more := []string{
		strings.Replace(members[0], "flight-0", "flight-x", 1),
		strings.Replace(strings.Replace(members[0], "flight-0", "flight-y", 1), "DTW", `\u0000`, 1),
	}
	if a := send(append(more, members...)); a.status != 422 || !strings.HasPrefix(a.body, "event 2 of 102 (id \"flight-y\"): 422 ") || strings.Count(a.body, "\n") != 1 {
		t.Errorf("answer is %d %q, want 422 for event 1 alone", a.status, a.body)
	}
	if got := query[string](t, url, "select row(a.*)::text from airports a"); got != "(DTW,101,101)" {
		t.Errorf("the totals are %s, want (DTW,101,101)", got)
	}
}

func TestClustersThatRaceAddUpExactly(t *testing.T) {
	t.Parallel()

	url := database(t)
	_, east := startComponents(t, "east", url, nil)
	_, west := startComponents(t, "west", url, nil)
	const events = 500
	stalls := eventtest.Stalls(t)
	var won, lost, postponed atomic.Int64
	var senders sync.WaitGroup
	for _, s := range []*httptest.Server{east, west} {
		var next atomic.Int64
		for range 16 {
			senders.Go(func() {
				for n := next.Add(1); n <= events; n = next.Add(1) {
					a, err := post(t.Context(), s.URL, fmt.Sprintf("flight-%06d", n), departure(3))
					for err == nil && a.status == 503 { // on a busy machine: sending it again is right
						postponed.Add(1)
						a, err = post(t.Context(), s.URL, fmt.Sprintf("flight-%06d", n), departure(3))
					}
					switch {
					case err != nil || a.status != 204:
						t.Errorf("event %d is answered %d %q, error %v", n, a.status, a.body, err)
					case a.receipt == "won":
						won.Add(1)
					default:
						lost.Add(1)
					}
				}
			})
		}
	}
	senders.Wait()
	// A committed event is lost when it is offered again: its answer was postponed, or its
	// connection was closed while this process stalled.
	late := postponed.Load() > 0 || stalls() > 100*time.Millisecond
	if won.Load() > events || won.Load()+lost.Load() != 2*events || won.Load() != events && !late {
		t.Errorf("%d won and %d lost, want %d each", won.Load(), lost.Load(), events)
	}
	if got := query[string](t, url, "select row(a.*)::text from airports a"); got != "(DTW,500,1500)" {
		t.Errorf("the totals are %s, want (DTW,500,1500)", got)
	}
}

func TestAnswersSayWhoseFaultItIs(t *testing.T) {
	t.Parallel()

	url := database(t)
	_, s := startComponents(t, "east", url, map[string]string{"TANDEM_MAX_EVENT_BYTES": "1024"})
	for _, tt := range []struct {
		name, data string
		headers    []string
		status     int
		says       string
	}{
		{"no departure", `{}`, nil, 422, "function flights: read data: date: missing"},
		{"text that PostgreSQL cannot hold", strings.Replace(departure(1), "DTW", `\u0000`, 1), nil, 422, "table"},
		{"other type", departure(1), []string{"ce-type: other"}, 422, "no function for event type"},
		{"no version", departure(1), []string{"ce-specversion: "}, 400, "specversion"},
		{"too large", strings.Repeat(" ", 1025), nil, 413, "at most 1024 bytes"},
	} {
		if a := mustPost(t, s.URL, "flight-1", tt.data, tt.headers...); a.status != tt.status || !strings.Contains(a.body, tt.says) {
			t.Errorf("%s: answer is %d %q, want %d with %q", tt.name, a.status, a.body, tt.status, tt.says)
		}
	}
	if n := query[int](t, url, "select count(*) from tandem.ledger"); n != 0 {
		t.Errorf("%d events are in the ledger, want none", n)
	}
}

func TestDeadLetterBecomesARow(t *testing.T) {
	t.Parallel()

	url := database(t)
	_, s := startComponents(t, "east", url, nil)
	a := mustPost(t, s.URL+"/dead-letters", "flight-1", `{}`, "ce-tandemfunction: flights", "ce-knativeerrorcode: 422", "ce-knativeerrordata: ZGF0ZTogbWlzc2luZw==")
	if a.status != 204 {
		t.Fatalf("answer is %d %q, want 204", a.status, a.body)
	}
	got := query[string](t, url, "select concat_ws(' ', function, source, id, cluster, code, reason, event::jsonb->'data', event::jsonb ? 'knativeerrorcode') from tandem.dead_letter")
	if want := "flights /tests flight-1 east 422 date: missing {} f"; got != want {
		t.Errorf("the row is %q, want %q", got, want)
	}
	if n := query[int](t, url, "select count(*) from tandem.ledger"); n != 0 {
		t.Errorf("%d events are in the ledger, want none", n)
	}
}

func TestRequestsBeforeStartArePostponed(t *testing.T) {
	t.Parallel()

	i := process.New(flights.Function())
	a := mustPost(t, serve(t, i).URL, "flight-1", departure(1))
	if a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("answer is %d with %v, want 503 with Retry-After", a.status, a.header)
	}
	if ready, err := i.Ready(t.Context()); ready || err != nil {
		t.Errorf("Ready is %t, %v, want false", ready, err)
	}
	if alive, err := i.Alive(t.Context()); !alive || err != nil {
		t.Errorf("Alive is %t, %v, want true", alive, err)
	}
}

func TestStopBearsAnInstanceThatIsNotStarted(t *testing.T) {
	t.Parallel()

	i := process.New(flights.Function())
	if err := i.Start(t.Context(), nil); err == nil {
		t.Error("Start without a configuration returned no error")
	}
	for range 2 {
		if err := i.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := i.Start(t.Context(), map[string]string{"TANDEM_CLUSTER": "east", "DATABASE_URL": "postgres://localhost/x"}); err == nil {
		t.Error("Start after Stop returned no error")
	}
}

func TestInstanceWaitsForMigrations(t *testing.T) {
	t.Parallel()

	url := pgtest.URL(t)
	i := process.New(flights.Function())
	if err := i.Start(t.Context(), map[string]string{"TANDEM_CLUSTER": "east", "DATABASE_URL": url, "LOG_LEVEL": "error"}); err != nil {
		t.Fatal(err)
	}
	stop(t, i)
	s := serve(t, i)
	eventtest.Eventually(t, "it reports that migrations are missing", func() bool {
		ready, err := i.Ready(t.Context())
		if ready {
			t.Fatal("ready without tables")
		}
		return errors.Is(err, schema.ErrMissing)
	})
	if a := mustPost(t, s.URL, "flight-1", departure(1)); a.status != 503 || !strings.Contains(a.body, "lacks migrations") {
		t.Errorf("answer is %d %q, want 503 with the next step", a.status, a.body)
	} else if got := a.header.Get("Tandem-Max-Batch"); got != "128" {
		t.Errorf("Tandem-Max-Batch is %q, want 128", got)
	}
	// Tandem's tables are not enough: the function has its own.
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "it reports that flights' tables are missing", func() bool {
		ready, err := i.Ready(t.Context())
		if ready {
			t.Fatal("ready without the function's tables")
		}
		return err != nil && strings.Contains(err.Error(), "flights")
	})
	if err := migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, i)
	if a := mustPost(t, s.URL, "flight-1", departure(1)); a.status != 204 {
		t.Errorf("answer is %d %q, want 204", a.status, a.body)
	}
}

func TestInstanceMigratesIfItIsToldTo(t *testing.T) {
	t.Parallel()

	// Two processes start at once, as when two clusters are set up.
	url, more := pgtest.URL(t), map[string]string{"TANDEM_MIGRATE": "true"}
	_, east := startComponents(t, "east", url, more)
	_, west := startComponents(t, "west", url, more)
	for _, s := range []*httptest.Server{east, west} {
		if a := mustPost(t, s.URL, "flight-1", departure(1)); a.status != 204 {
			t.Errorf("answer is %d %q, want 204", a.status, a.body)
		}
	}
}

func TestAnswerNamesTheColumnThatADeploymentLacks(t *testing.T) {
	t.Parallel()

	url := database(t)
	_, s := startComponents(t, "east", url, nil)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // nothing is open on it
	rename := func(from, to string) {
		if _, err := conn.Exec(t.Context(), "alter table flights rename column "+from+" to "+to); err != nil {
			t.Fatal(err)
		}
	}
	rename("origin", "gate")
	a := mustPost(t, s.URL, "flight-1", departure(1))
	o := outcome.FromHTTP(a.status, a.header, a.body)
	if o.Kind != outcome.Deployment || o.Fingerprint != "42703 flights.origin" || o.EffectClass != outcome.Inserting || a.status != 503 {
		t.Errorf("answer is %d with %v, which is %+v", a.status, a.header, o)
	}
	rename("gate", "origin")
	if a := mustPost(t, s.URL, "flight-1", departure(1)); a.status != 204 {
		t.Errorf("after the migration the answer is %d %q, want 204", a.status, a.body)
	}
}

// newLink returns a link to a database, which is cut at first, and the URL through it.
func newLink(tb testing.TB, databaseURL string) (*link.Link, string) {
	tb.Helper()

	l := link.New()
	tb.Cleanup(l.Close)
	l.Cut()
	url, err := l.URL(databaseURL)
	if err != nil {
		tb.Fatal(err)
	}
	return l, url
}

func TestNoDatabaseIsNoReasonToEnd(t *testing.T) {
	t.Parallel()

	databaseURL := database(t)
	between, linked := newLink(t, databaseURL)
	i := process.New(flights.Function())
	if err := i.Start(t.Context(), map[string]string{"TANDEM_CLUSTER": "east", "DATABASE_URL": linked, "LOG_LEVEL": "error"}); err != nil {
		t.Fatal(err)
	}
	stop(t, i)
	s := serve(t, i)
	if a := mustPost(t, s.URL, "flight-1", departure(1)); a.status != 503 {
		t.Errorf("without a database the answer is %d %q, want 503", a.status, a.body)
	}
	between.Heal()
	awaitReady(t, i)
	if a := mustPost(t, s.URL, "flight-1", departure(1)); a.status != 204 {
		t.Errorf("with a database the answer is %d %q, want 204", a.status, a.body)
	}

	// The answer is the same if the database becomes unavailable later.
	between.Cut()
	if a := mustPost(t, s.URL, "flight-2", departure(1)); a.status != 503 || a.header.Get("Retry-After") == "" || strings.Contains(a.body, "password") {
		t.Errorf("answer is %d %q with %v, want 503 with Retry-After", a.status, a.body, a.header)
	}
	if ready, err := i.Ready(t.Context()); !ready {
		t.Errorf("Ready is false, %v: no other instance could do better", err)
	}
	between.Heal()
	eventtest.Eventually(t, "it is committed", func() bool { return mustPost(t, s.URL, "flight-2", departure(1)).status == 204 })
	if got := query[string](t, databaseURL, "select row(a.*)::text from airports a"); got != "(DTW,2,2)" {
		t.Errorf("the totals are %s, want (DTW,2,2)", got)
	}
}

// relayRest publishes the rest of the outbox. A winner leaves outputs to the relay that it
// could not publish in time, because the process stalled.
func relayRest(t *testing.T, databaseURL string, publisher eventing.Publisher) {
	t.Helper()

	pool, err := pgxpool.New(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), "update tandem.outbox set due = now()"); err != nil {
		t.Fatal(err)
	}
	outbox := sinkwriter.NewOutbox(pool)
	eventtest.Eventually(t, "the outbox is empty", func() bool {
		if _, _, err := outbox.Relay(t.Context(), publisher.Publish); err != nil {
			t.Log(err)
		}
		left, err := outbox.Backlog(t.Context())
		return err == nil && left == 0
	})
}

// streamPublisher returns a publisher to stream OUTPUTS.
func streamPublisher(t *testing.T, server *natstest.Server) eventing.Publisher {
	t.Helper()

	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "OUTPUTS"})
	if err != nil {
		t.Fatal(err)
	}
	return publisher
}

func TestOutputsAreInTheStreamWhenTheInstanceHasStopped(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	url, natsURL, stalls := database(t), server.URL(), eventtest.Stalls(t)
	i, s := startComponents(t, "east", url, map[string]string{"NATS_URL": natsURL})
	const events = 50
	js := natstest.JetStream(t, natsURL)
	for n := range events {
		if n == 1 { // from then on the process is connected to the stream
			eventtest.Eventually(t, "an output is in the stream", func() bool {
				stream, err := js.Stream(t.Context(), "OUTPUTS")
				return err == nil && stream.CachedInfo().State.Msgs == 1
			})
		}
		if a := mustPost(t, s.URL, fmt.Sprintf("flight-%d", n), departure(60)); a.status != 204 {
			t.Fatalf("answer is %d %q", a.status, a.body)
		}
	}
	if err := i.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := mustPost(t, s.URL, "flight-x", departure(60)); a.status != 503 {
		t.Errorf("after Stop the answer is %d %q, want 503", a.status, a.body)
	}

	if stalls() > time.Second {
		relayRest(t, url, streamPublisher(t, server))
	}
	stream, err := js.Stream(t.Context(), "OUTPUTS")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got != events {
		t.Errorf("the stream has %d outputs, want %d", got, events)
	}
	message, err := stream.GetLastMsgForSubject(t.Context(), "outputs.com.example.flight.delayed")
	if err != nil {
		t.Fatal(err)
	}
	source, _ := functions.OutputIdentity("flights", "/tests", "flight-0", 0)
	if message.Header.Get("ce-source") != source || message.Header.Get("ce-causationid") == "" || !bytes.Contains(message.Data, []byte(`"delay":60`)) {
		t.Errorf("the last output has headers %v and data %s", message.Header, message.Data)
	}
	if n := query[int](t, url, "select count(*) from tandem.outbox"); n != 0 {
		t.Errorf("%d rows are in the outbox, want none", n)
	}
}

func TestOutputsWaitInTheOutboxWhileThereIsNoStream(t *testing.T) {
	t.Parallel()

	url := database(t)
	i, s := startComponents(t, "east", url, map[string]string{"NATS_URL": "nats://127.0.0.1:1"})
	if a := mustPost(t, s.URL, "flight-1", departure(60)); a.status != 204 {
		t.Fatalf("answer is %d %q", a.status, a.body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = i.Stop(ctx) // may report that some outputs are not published
	if n := query[int](t, url, "select count(*) from tandem.outbox"); n != 1 {
		t.Errorf("%d rows are in the outbox, want 1", n)
	}
}

func TestWhatIsAcknowledgedBeforeStopIsInTheDatabase(t *testing.T) {
	t.Parallel()

	url := database(t)
	i, s := startComponents(t, "east", url, nil)
	var acknowledged, next atomic.Int64
	var senders sync.WaitGroup
	running := make(chan struct{})
	var once sync.Once
	for range 16 {
		senders.Go(func() {
			for {
				a, err := post(t.Context(), s.URL, fmt.Sprintf("flight-%d", next.Add(1)), departure(1))
				switch {
				case err != nil:
					t.Error(err)
					return
				case a.status == 503:
					return
				case a.status != 204:
					t.Errorf("answer is %d %q", a.status, a.body)
					return
				}
				if acknowledged.Add(1) == 100 {
					once.Do(func() { close(running) })
				}
			}
		})
	}
	<-running
	if err := i.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	senders.Wait()
	if rows := query[int64](t, url, "select count(*) from flights"); rows != acknowledged.Load() {
		t.Errorf("%d events were acknowledged, and %d are there", acknowledged.Load(), rows)
	}
}

func TestConfigurationErrorsNameTheVariable(t *testing.T) {
	t.Parallel()

	good := map[string]string{"TANDEM_CLUSTER": "east", "DATABASE_URL": "postgres://u:secret@127.0.0.1:1/x"}
	for _, tt := range []struct{ variable, value, says string }{
		{"TANDEM_CLUSTER", "", "TANDEM_CLUSTER"},
		{"TANDEM_CLUSTER", "East 1", `TANDEM_CLUSTER "East 1": want lower-case`},
		{"DATABASE_URL", "", "DATABASE_URL"},
		{"DATABASE_URL", "postgres://u:secret@127.0.0.1:port/x", "DATABASE_URL: want postgres://"},
		{"TANDEM_FUNCTIONS", "flights,orders", `TANDEM_FUNCTIONS: there is no function "orders"; there are: flights`},
		{"TANDEM_MAX_EVENT_BYTES", "5", `TANDEM_MAX_EVENT_BYTES 5: want 1024 to 67108864`},
		{"TANDEM_MAX_EVENT_BYTES", "1 MiB", `TANDEM_MAX_EVENT_BYTES "1 MiB": want a whole number`},
		{"TANDEM_MAX_BATCH", "0", `TANDEM_MAX_BATCH 0: want 1 to 4096`},
		{"TANDEM_MAX_BATCH", "many", `TANDEM_MAX_BATCH "many": want a whole number`},
		{"TANDEM_MIGRATE", "perhaps", `TANDEM_MIGRATE "perhaps": want true or false`},
		{"TANDEM_STREAM_REPLICAS", "9", `TANDEM_STREAM_REPLICAS 9: want 1 to 5`},
		{"LOG_LEVEL", "loud", `LOG_LEVEL "loud": want debug, info, warn or error`},
	} {
		env := maps.Clone(good)
		env[tt.variable] = tt.value
		i := process.New(flights.Function())
		err := i.Start(t.Context(), env)
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s=%s: error is %v, want it to say %q", tt.variable, tt.value, err, tt.says)
		}
	}
}

func TestFunctionsArePickedByName(t *testing.T) {
	t.Parallel()

	_, s := startComponents(t, "east", database(t), map[string]string{"TANDEM_FUNCTIONS": " flights ", "NATS_URL": "", "LOG_LEVEL": " "})
	if a := mustPost(t, s.URL, "flight-1", departure(1)); a.status != 204 {
		t.Errorf("answer is %d %q, want 204", a.status, a.body)
	}
}
