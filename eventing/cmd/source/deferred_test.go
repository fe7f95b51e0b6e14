package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test looks into the database

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// partitioned is a function whose table has a partition for January, with a database and
// a stream. Events of February have no partition.
type partitioned struct {
	nats    *natstest.Server
	pool    *pgxpool.Pool
	sink    string
	env     []string
	sent    int
	mu      sync.Mutex
	order   []string // ids of events in the order of their commits
	replace bool     // its effects depend on the order

	function functions.Function
}

const (
	partitionedTables = `create table days (id text, day date, note text, primary key (id, day)) partition by range (day);
create table january partition of days for values from ('2001-01-01') to ('2001-02-01');
create table counts (day date primary key, events bigint not null);`

	february = `create table february partition of days for values from ('2001-02-01') to ('2001-03-01')`
)

func newPartitioned(t *testing.T) *partitioned {
	t.Helper()

	p := &partitioned{nats: natstest.Start(t), pool: sinktest.NewDatabase(t)}
	sinktest.Execute(t, p.pool, partitionedTables)
	p.env = []string{"DATABASE_URL=" + p.pool.Config().ConnString()}
	p.function = functions.Function{Name: "flights", Version: "1", Types: []string{"com.example.test"}, Handle: func(_ context.Context, e event.Event) (fx functions.Effects, err error) {
		day := e.Time().Format(time.DateOnly)
		rule := functions.FirstWins()
		if p.replace {
			rule = functions.Replace()
		}
		fx.Upsert("days", functions.Row{"id": e.ID(), "day": day, "note": "applied"}, rule)
		fx.Add("counts", functions.Row{"day": day}, functions.Row{"events": 1})
		return fx, nil
	}}
	writer := sinktest.NewWriter(t, p.pool, sinkwriter.Config{Cluster: "east"})
	h, err := serve.New([]functions.Function{p.function}, committed{writer, p}, serve.Config{DeadLetters: deadletter.NewStore(p.pool, "east")})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	p.sink = server.URL
	return p
}

// committed is a writer that records the order of commits.
type committed struct {
	*sinkwriter.Writer
	*partitioned
}

func (c committed) Commit(ctx context.Context, offer sinkwriter.Offer) (sinkwriter.Receipt, error) {
	receipt, err := c.Writer.Commit(ctx, offer)
	c.note(offer, receipt)
	return receipt, err
}

func (c committed) CommitAll(ctx context.Context, offers []sinkwriter.Offer) []sinkwriter.Outcome {
	outcomes := c.Writer.CommitAll(ctx, offers)
	for i, o := range outcomes {
		c.note(offers[i], o.Receipt)
	}
	return outcomes
}

func (c committed) note(offer sinkwriter.Offer, receipt sinkwriter.Receipt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if receipt.Won {
		c.order = append(c.order, offer.Event.ID())
	}
}

// publish publishes events; lacks reports which of them are of February.
func (p *partitioned) publish(t *testing.T, n int, subject func(i int) string, lacks func(i int) bool) []event.Event {
	t.Helper()

	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, p.nats, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]event.Event, n)
	for i := range events {
		e := event.New()
		e.SetID(fmt.Sprintf("event-%04d", p.sent))
		e.SetSource("/test")
		e.SetType("com.example.test")
		if subject != nil {
			e.SetSubject(subject(i))
		}
		e.SetTime(time.Date(2001, 1, 5, 0, 0, 0, 0, time.UTC))
		if lacks(i) {
			e.SetTime(time.Date(2001, 2, 5, 0, 0, 0, 0, time.UTC))
		}
		events[i] = e
		p.sent++
	}
	eventtest.Eventually(t, "events are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
	return events
}

func (p *partitioned) start(t *testing.T, more ...string) *process {
	t.Helper()

	return start(t, p.nats.URL(), p.sink, append(slices.Clone(p.env), more...)...)
}

// acknowledged waits until all messages of the stream are acknowledged.
func (p *partitioned) acknowledged(t *testing.T) {
	t.Helper()

	js := natstest.JetStream(t, p.nats.URL())
	eventtest.Eventually(t, "all is acknowledged", func() bool {
		consumer, err := js.Consumer(t.Context(), "EVENTS", "tandem-east-flights")
		return err == nil && consumer.CachedInfo().NumPending == 0 && consumer.CachedInfo().NumAckPending == 0 && p.saved(t) == int64(p.sent)+1
	})
}

// saved returns the saved floor.
func (p *partitioned) saved(t *testing.T) int64 {
	t.Helper()

	return p.count(t, `select coalesce(max(floor), 0)::bigint from tandem.progress`)
}

func (p *partitioned) count(t *testing.T, sql string) int64 {
	t.Helper()

	return sinktest.Query[int64](t, p.pool, sql)
}

// expect checks that the given number of events is applied, each once.
func (p *partitioned) expect(t *testing.T, events int) {
	t.Helper()

	rows, counted := p.count(t, `select count(*) from days`), p.count(t, `select coalesce(sum(events), 0)::bigint from counts`)
	if rows != int64(events) || counted != int64(events) {
		t.Errorf("%d rows, counted %d times, want %d", rows, counted, events)
	}
}

const deferredSQL = `select count(*) from tandem.deferred_event`

func TestEventsThatLackAPartitionAreDeferredAndAppliedOnce(t *testing.T) {
	t.Parallel()

	w := newPartitioned(t)
	tenth := func(i int) bool { return i%100 == 50 }
	const tryFor = 2 * time.Second
	w.publish(t, 1000, nil, tenth)
	p := w.start(t, "TANDEM_TRY_FOR="+tryFor.String(), "TANDEM_RETENTION=1m")
	w.acknowledged(t)
	if n := w.count(t, deferredSQL); n != 10 {
		t.Fatalf("%d events are deferred, want 10", n)
	}
	w.expect(t, 990)
	// By the database's clock: the first event waited, and none long after it.
	first := sinktest.Query[float64](t, w.pool, `select extract(epoch from max(last_failed_at - first_failed_at))::double precision from tandem.deferred_event`)
	if first < tryFor.Seconds() {
		t.Errorf("the first event was deferred after %.1f s, want at least %s", first, tryFor)
	}
	if n := strings.Count(p.Log.String(), "events are deferred until the deployment changes"); n != 1 {
		t.Errorf("%d lines in the log say so, want one:\n%s", n, p.Log.String())
	}
	p.end(t, syscall.SIGTERM)

	// Later ones do not wait.
	p = w.start(t, "TANDEM_TRY_FOR=24h", "TANDEM_RETENTION=1m")
	w.publish(t, 1000, nil, tenth)
	w.acknowledged(t)
	if n := w.count(t, deferredSQL); n != 20 {
		t.Fatalf("%d events are deferred, want 20", n)
	}

	// An hour later the ledger has forgotten the commits, and the partition exists.
	for _, sql := range []string{
		`update tandem.ledger set committed_at = committed_at - interval '1 hour'`,
		`update tandem.deferred_event set first_failed_at = first_failed_at - interval '1 hour', last_failed_at = last_failed_at - interval '1 hour', next_run_at = next_run_at - interval '1 hour'`,
		`update tandem.progress set keep = interval '1 minute'`, // which the source notices later
		`insert into tandem.floor_sample (function, stream, epoch, taken_at, head) select function, stream, epoch, now() - interval '30 minutes', floor from tandem.progress`,
	} {
		sinktest.Execute(t, w.pool, sql)
	}
	retention, err := ledger.NewRetention(w.pool, ledger.RetentionConfig{Keep: time.Minute, Pause: -1})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := retention.Sweep(t.Context()); err != nil || n < 1000 {
		t.Fatalf("the ledger forgot %d rows, %v", n, err)
	}
	sinktest.Execute(t, w.pool, february)
	eventtest.Eventually(t, "all deferred events are applied", func() bool { return w.count(t, deferredSQL) == 0 })
	w.expect(t, 2000)
	p.end(t, syscall.SIGTERM)
	if n := w.count(t, `select count(*) from tandem.dead_letter`); n != 0 {
		t.Errorf("%d events are dead", n)
	}
}

func TestASickClusterDefersNothing(t *testing.T) {
	t.Parallel()

	w := newPartitioned(t)
	january := func(int) bool { return false }
	w.publish(t, 50, nil, january)
	p := w.start(t, "TANDEM_TRY_FOR=100ms")
	w.acknowledged(t)
	sinktest.Execute(t, w.pool, `alter table counts rename to gone`)
	w.publish(t, 50, nil, january)
	eventtest.Eventually(t, "events have failed for longer than TANDEM_TRY_FOR", func() bool { return p.failed(t) > 100 })
	if n := w.count(t, deferredSQL); n != 0 {
		t.Errorf("%d events are deferred", n)
	}
	w.expectRows(t, 50)
	sinktest.Execute(t, w.pool, `alter table gone rename to counts`)
	w.acknowledged(t)
	w.expect(t, 100)
	if n := w.count(t, deferredSQL); n != 0 {
		t.Errorf("%d events are deferred", n)
	}
	p.end(t, syscall.SIGTERM)
}

// failed returns the number of failed attempts.
func (p *process) failed(t *testing.T) (n float64) {
	t.Helper()

	text, err := get(t, p.metrics+"/metrics")
	if err != nil {
		return 0
	}
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "tandem_source_failed_total{") {
			_, _ = fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n)
		}
	}
	return n
}

func (p *partitioned) expectRows(t *testing.T, events int64) {
	t.Helper()

	if n := p.count(t, `select count(*) from days`); n != events {
		t.Errorf("%d rows, want %d", n, events)
	}
}

// The source is killed after events were stored, and before their stream was told.
func TestAKillAfterEventsWereDeferredAppliesNothingTwice(t *testing.T) {
	t.Parallel()

	w := newPartitioned(t)
	l := link.New()
	t.Cleanup(l.Close)
	through, err := l.URL(w.nats.URL())
	if err != nil {
		t.Fatal(err)
	}
	w.publish(t, 100, nil, func(i int) bool { return i%10 == 5 })
	p := start(t, through, w.sink, append(slices.Clone(w.env), "TANDEM_TRY_FOR=1s")...)
	eventtest.Eventually(t, "the healthy events are applied", func() bool { return w.count(t, `select count(*) from days`) == 90 })
	l.Cut()
	eventtest.Eventually(t, "the others are deferred", func() bool { return w.count(t, deferredSQL) == 10 })
	p.end(t, syscall.SIGKILL)
	l.Heal()

	// Another process reads them again, before and after they are applied.
	p = start(t, through, w.sink, append(slices.Clone(w.env), "TANDEM_TRY_FOR=24h")...)
	w.acknowledged(t)
	sinktest.Execute(t, w.pool, february)
	eventtest.Eventually(t, "all deferred events are applied", func() bool { return w.count(t, deferredSQL) == 0 })
	w.expect(t, 100)
	p.end(t, syscall.SIGTERM)
}

// If the order is kept, later events of the subject wait behind a deferred one; other
// subjects proceed.
func TestADeferredEventBlocksItsSubject(t *testing.T) {
	t.Parallel()

	w := newPartitioned(t)
	subject := func(i int) string { return string(rune('a' + i%3)) }
	w.publish(t, 60, subject, func(i int) bool { return i == 3 || i == 9 || i == 31 }) // a, a, b
	p := w.start(t, "TANDEM_TRY_FOR=500ms", "TANDEM_ORDERING=subject")
	w.acknowledged(t)
	if n := w.count(t, deferredSQL); n != 2 { // the second event of a is stored behind the first
		t.Errorf("%d events are deferred, want 2", n)
	}
	w.expect(t, 20+1+10) // all of c, one of a, ten of b
	p.end(t, syscall.SIGKILL)
	p = w.start(t, "TANDEM_TRY_FOR=500ms", "TANDEM_ORDERING=subject")
	w.publish(t, 30, subject, func(int) bool { return false })
	w.acknowledged(t)
	w.expect(t, 30+1+10)
	sinktest.Execute(t, w.pool, february)
	eventtest.Eventually(t, "all is applied", func() bool { return w.count(t, `select count(*) from days`) == 90 })
	w.expect(t, 90)
	w.mu.Lock()
	defer w.mu.Unlock()
	bySubject := map[string][]string{}
	for _, id := range w.order {
		var n int
		if _, err := fmt.Sscanf(id, "event-%d", &n); err != nil {
			t.Fatal(err)
		}
		bySubject[subject(n)] = append(bySubject[subject(n)], id)
	}
	for subject, ids := range bySubject {
		if !slices.IsSorted(ids) {
			t.Errorf("events of subject %s were applied in another order: %v", subject, ids)
		}
	}
	p.end(t, syscall.SIGTERM)
}

// A late replacement would overwrite the writes of later events: an operator decides.
func TestAnEventWhoseEffectsDependOnTheOrderIsHeld(t *testing.T) {
	t.Parallel()

	w := newPartitioned(t)
	w.replace = true
	w.publish(t, 20, nil, func(i int) bool { return i == 5 })
	p := w.start(t, "TANDEM_TRY_FOR=500ms")
	w.acknowledged(t)
	sinktest.Execute(t, w.pool, february)
	w.publish(t, 20, nil, func(i int) bool { return i == 5 })
	eventtest.Eventually(t, "events of February are applied again", func() bool { return w.count(t, `select count(*) from february`) == 1 })
	w.acknowledged(t)
	if n := w.count(t, `select count(*) from tandem.deferred_event where held and next_run_at is null`); n != 1 {
		t.Fatalf("%d events are held, want 1", n)
	}
	if err := deferred.NewEvents(w.pool).Run(t.Context(), "flights", "/test", "event-0005"); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "it is applied", func() bool { return w.count(t, deferredSQL) == 0 })
	w.expect(t, 40)
	p.end(t, syscall.SIGTERM)
}

// A cluster that loses every race cannot know from its own commits that it works. It defers the
// events that another cluster has deferred for the same reason, and no others.
func TestAClusterThatWinsNothingDefersWhatAnotherOneHas(t *testing.T) {
	t.Parallel()

	w := newPartitioned(t)
	events := w.publish(t, 20, nil, func(i int) bool { return i%10 == 5 })
	west := sinktest.NewWriter(t, w.pool, sinkwriter.Config{Cluster: "west"})
	for i, e := range events {
		fx, err := w.function.Handle(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := west.Commit(t.Context(), sinkwriter.Offer{Function: "flights", Version: "1", Event: e, Effects: fx}); err != nil && i%10 != 5 {
			t.Fatal(err)
		}
	}
	waits := deferred.Event{
		Key: ledger.NewKey("flights", "/test", "event-0005"), Source: "/test", ID: "event-0005", Stream: "EVENTS", Sequence: 6,
		Version: "1", Fingerprint: "23514 days", Attempts: 2, Proven: true, Event: []byte("{}"),
	}
	if _, err := deferred.NewStore(w.pool, "west").Defer(t.Context(), "flights", []deferred.Event{waits}, time.Hour); err != nil {
		t.Fatal(err)
	}
	p := w.start(t, "TANDEM_TRY_FOR=100ms")
	eventtest.Eventually(t, "it is deferred here too", func() bool { return w.count(t, deferredSQL+` where cluster = 'east'`) > 0 })
	enough := p.failed(t) + 3
	eventtest.Eventually(t, "the other one is retried", func() bool { return p.failed(t) >= enough })
	if n := w.count(t, deferredSQL+` where id <> 'event-0005'`); n != 0 {
		t.Errorf("%d others are deferred", n)
	}
	sinktest.Execute(t, w.pool, february)
	eventtest.Eventually(t, "all is applied", func() bool { return w.count(t, deferredSQL) == 0 })
	w.acknowledged(t)
	w.expect(t, 20)
	p.end(t, syscall.SIGTERM)
}

func TestTheSourcePausesWhenNoMoreMayBeDeferred(t *testing.T) {
	t.Parallel()

	w := newPartitioned(t)
	sinktest.Execute(t, w.pool, `insert into tandem.deferred_event (key, cluster, function, source, id, type, subject, stream, epoch, sequence, arrived_at,
    version, fingerprint, reason, held, attempts, first_failed_at, event)
select md5(n::text)::uuid, 'east', 'flights', '/test', 'full-' || n, 'com.example.test', '', 'EVENTS', '', n, now(), '1', '23514 days', '', true, 2, now(), '{}'
from generate_series(1, 100000) n`)
	p := w.start(t, "TANDEM_TRY_FOR=100ms")
	eventtest.Eventually(t, "it is not ready", func() bool {
		text, err := get(t, p.metrics+"/health")
		return err != nil && strings.Contains(text+err.Error(), "the source pauses")
	})
	sinktest.Execute(t, w.pool, `delete from tandem.deferred_event where position % 2 = 0`)
	w.publish(t, 10, nil, func(int) bool { return false })
	w.acknowledged(t)
	w.expect(t, 10)
	if _, err := get(t, p.metrics+"/health"); err != nil {
		t.Error(err)
	}
	p.end(t, syscall.SIGTERM)
}
