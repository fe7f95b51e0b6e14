package source_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// testLedger is a Ledger in memory. The real one is ledger.Ledger.
type testLedger struct {
	mu        sync.Mutex
	done      map[string]bool
	all       bool // every event is committed
	broken    bool
	questions int
	largest   int
	hold      chan struct{} // no lookup is answered before it is closed; nil means no wait
}

// Committed answers even after the deadline: a busy machine may take longer than the
// source waits.
func (l *testLedger) Committed(_ context.Context, function string, events []source.EventID) ([]bool, error) {
	if l.hold != nil {
		<-l.hold
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken || function != "flights" {
		return nil, errors.New("the database is unavailable")
	}
	l.questions++
	l.largest = max(l.largest, len(events))
	done := make([]bool, len(events))
	for i, e := range events {
		done[i] = l.all || l.done[e.ID] && e.Source == "/test"
	}
	return done, nil
}

func (l *testLedger) set(change func(*testLedger)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func (l *testLedger) asked() (questions, largest int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.questions, l.largest
}

// hedging starts a source with the hedge of cfg.
func hedging(t *testing.T, server *natstest.Server, f *function, p *progress, cfg source.Config) running {
	t.Helper()

	conn := eventtest.Connect(t, server, nil)
	stream, err := jetstream.NewStream(conn, "west", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Function, cfg.SaveInterval = "flights", saveInterval
	source, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.url(), f.url()+"/dead-letters"), p, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return running{source: source, stop: run(t, source)}
}

func TestWhatTheLedgerHasIsAcknowledgedWithoutADelivery(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 3000)
	f := newFunction(t)
	l := &testLedger{done: map[string]bool{}, all: true, hold: make(chan struct{})}
	p := &progress{}
	hedging(t, server, f, p, source.Config{Hedge: eventing.Hedge{Delay: 50 * time.Millisecond}, Ledger: l})
	eventtest.Reaches(t, "messages are read", 3001, func() int { return p.head("EVENTS") })
	close(l.hold)
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 3001 })
	if got := f.count(); got != 0 {
		t.Errorf("%d events were delivered", got)
	}
	if questions, largest := l.asked(); questions > 1500 || largest < 6 {
		t.Errorf("%d questions, the largest about %d events: they were not asked many at a time", questions, largest)
	}
}

func TestWhatTheLedgerHasNotIsDeliveredAfterTheDelay(t *testing.T) {
	t.Parallel()

	const delay = 400 * time.Millisecond
	server := natstest.Start(t)
	f := newFunction(t)
	l := &testLedger{done: map[string]bool{"test-000001": true, "test-000003": true}}
	p := &progress{}
	hedging(t, server, f, p, source.Config{Hedge: eventing.Hedge{Delay: delay}, Ledger: l})
	eventtest.Publish(t, server, "EVENTS", 0, 1)
	f.waitFor(t, 1) // by now the source is delivering

	begun := time.Now()
	eventtest.Publish(t, server, "EVENTS", 1, 4)
	f.waitFor(t, 3)
	if took := time.Since(begun); took < delay {
		t.Errorf("delivered after %s, want not before %s", took, delay)
	}
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 6 })
	for id, want := range map[string]int{"test-000001": 0, "test-000002": 1, "test-000003": 0, "test-000004": 1} {
		if got := f.tried("/ " + id); got != want {
			t.Errorf("%s was delivered %d times, want %d", id, got, want)
		}
	}
}

// The clock is synctest's, and the ledger and the stream are in memory. The function is
// unreachable, so the time of an attempt is the time at which it fails.
func TestAnEventIsDeliveredAtItsDelayAndWithinASecondIfTheLedgerIsSilent(t *testing.T) {
	t.Parallel()

	const delay = 10 * time.Second
	for _, tt := range []struct {
		name   string
		ledger source.Ledger
		latest time.Duration // after the delay
	}{
		{"it has not committed the event", &testLedger{}, 0},
		{"it returns an error", &testLedger{broken: true}, 0},
		{"it does not answer", silentLedger{}, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				attempts := make(chan time.Time, 100)
				const unreachable = "http://127.0.0.1:1"
				sender, err := delivery.New(unreachable, unreachable, delivery.Config{
					Function: "flights", BackoffBase: time.Minute, BackoffCap: time.Minute,
					Failed: func(context.Context) { attempts <- time.Now() },
				})
				if err != nil {
					t.Fatal(err)
				}
				stream := memoryStream{messages: make(chan eventing.Message)}
				s, err := source.New(eventing.StreamList{stream}, sender, &progress{}, source.Config{
					Function: "flights", Hedge: eventing.Hedge{Delay: delay}, Ledger: tt.ledger,
				})
				if err != nil {
					t.Fatal(err)
				}
				stop := run(t, s)
				defer stop()

				// The second event is due during the lookup of the first.
				var received [2]time.Time
				for i := range received {
					time.Sleep(time.Millisecond)
					received[i] = time.Now()
					stream.messages <- memoryMessage{sequence: uint64(i + 1)}
				}
				for i, at := range received {
					took := (<-attempts).Sub(at)
					if took < delay || took > delay+tt.latest {
						t.Errorf("event %d was delivered after %s, want %s to %s", i+1, took, delay, delay+tt.latest)
					}
				}
			})
		})
	}
}

// silentLedger never answers.
type silentLedger struct{}

func (silentLedger) Committed(ctx context.Context, _ string, _ []source.EventID) ([]bool, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// memoryStream is a Stream, and its Reader, whose messages come from a channel.
type memoryStream struct{ messages chan eventing.Message }

func (s memoryStream) Name() string   { return "EVENTS" }
func (s memoryStream) Origin() string { return "EVENTS" }
func (s memoryStream) Epoch() string  { return "e1" }

func (s memoryStream) Open(context.Context, eventing.OpenConfig) (eventing.Reader, error) {
	return s, nil
}

func (s memoryStream) Pull(ctx context.Context, n, _ int, receive func(eventing.Message)) error {
	for range n {
		select {
		case m := <-s.messages:
			receive(m)
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (s memoryStream) Position(context.Context) (eventing.Position, error) {
	return eventing.Position{}, nil
}

func (s memoryStream) Fetch(_ context.Context, m eventing.Message) (eventing.Message, error) {
	return m, nil
}

func (s memoryStream) Rewind(context.Context, uint64) (uint64, error) { return 0, nil }

type memoryMessage struct{ sequence uint64 }

func (m memoryMessage) Sequence() uint64   { return m.sequence }
func (m memoryMessage) Arrived() time.Time { return time.Now() }
func (m memoryMessage) Pending() uint64    { return 0 }
func (m memoryMessage) Size() int          { return 100 }
func (m memoryMessage) Event() event.Event {
	return eventtest.NewEvent(fmt.Sprintf("test-%06d", m.sequence))
}
func (m memoryMessage) WithoutPayload() eventing.Message { return m }

func (m memoryMessage) Ack() error        { return nil }
func (m memoryMessage) InProgress() error { return nil }
func (m memoryMessage) Nak() error        { return nil }

func TestABacklogDoesNotWaitForTheDelayAWindowAtATime(t *testing.T) {
	t.Parallel()

	// A megabyte holds about 500 events: with a delay of a minute, the first of them
	// would be looked up only after that if the table did not look them up early.
	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 3000)
	f := newFunction(t)
	p := &progress{}
	hedging(t, server, f, p, source.Config{
		Hedge: eventing.Hedge{Delay: eventing.MaxHedge}, Ledger: &testLedger{all: true}, InFlight: 1, MaxBytes: 1 << 20,
	})
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") >= 2500 })
	if got := f.count(); got != 0 {
		t.Errorf("%d events were delivered", got)
	}
}

func TestIfTheLedgerCannotBeAskedEventsAreDelivered(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 200)
	f := newFunction(t)
	l := &testLedger{broken: true}
	hedging(t, server, f, &progress{}, source.Config{Hedge: eventing.Hedge{Delay: 10 * time.Millisecond}, Ledger: l})
	f.waitFor(t, 200)
	// Then the ledger recovers.
	l.set(func(l *testLedger) { l.broken, l.all = false, true })
	eventtest.Publish(t, server, "EVENTS", 201, 100)
	eventtest.Eventually(t, "it is asked", func() bool { questions, _ := l.asked(); return questions > 0 })
}

// toggle is a value that is set at run time.
type toggle struct {
	mu    sync.Mutex
	value string
	err   error
}

func (s *toggle) hedge() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value, s.err
}

func (s *toggle) set(value string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.err = value, err
}

func TestStandbyDeliversNothingUntilItIsSwitched(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 700)
	f := newFunction(t)
	l := &testLedger{done: map[string]bool{"test-000001": true, "test-000003": true}}
	sw := &toggle{value: "standby"}
	p := &progress{hedges: sw.hedge}
	logger, lines := eventtest.Logger()
	hedging(t, server, f, p, source.Config{Ledger: l, InFlight: 16, Logger: logger})
	eventtest.Eventually(t, "what others have done is acknowledged", func() bool { return p.floor("EVENTS") == 2 })
	eventtest.Eventually(t, "it reports that it stands by", func() bool { return p.stored() == "standby" })
	consumer, err := native(t, server).Consumer(t.Context(), "EVENTS", "tandem-west-flights")
	if err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "what others have done is acknowledged", func() bool {
		info, err := consumer.Info(t.Context())
		return err == nil && info.NumPending+uint64(info.NumAckPending) == 698
	})
	time.Sleep(1500 * time.Millisecond) // for more than one lookup
	if got := f.count(); got != 0 {
		t.Fatalf("%d events were delivered", got)
	}

	sw.set("0", nil)
	f.waitFor(t, 698)
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 701 })
	eventtest.Eventually(t, "it reports that it races", func() bool { return p.stored() == "0" })
	log := strings.Join(lines(), "")
	report, switched := strings.Index(log, "standby ended"), strings.LastIndex(log, "hedge switched")
	if report < 0 || switched < report || !strings.Contains(log, "messages=698") && !strings.Contains(log, "the backlog is unknown") { // the stream may be late
		t.Errorf("the backlog of 698 was not reported first:\n%s", log)
	}

	// Back to the race, with a request under way.
	hold := make(chan struct{})
	f.answer(func(http.ResponseWriter, *http.Request, event.Event) int {
		<-hold
		return http.StatusNoContent
	})
	eventtest.Publish(t, server, "EVENTS", 701, 100)
	eventtest.Eventually(t, "as many as may be are being delivered", func() bool {
		begun := 0
		for n := range 100 { // in any order
			begun += f.tried(fmt.Sprintf("/ test-%06d", 701+n))
		}
		return begun == 16
	})
	sw.set("standby", nil)
	eventtest.Eventually(t, "it reports that it stands by", func() bool { return p.stored() == "standby" })
	close(hold)
	f.waitFor(t, 698+16)
	time.Sleep(100 * time.Millisecond)
	if got := f.count(); got != 698+16 {
		t.Errorf("%d events were delivered, want only those that were under way", got)
	}
}

func TestAClusterThatIsAloneDoesNotStandBy(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 50)
	f := newFunction(t)
	p := &progress{alone: true}
	logger, lines := eventtest.Logger()
	hedging(t, server, f, p, source.Config{Hedge: eventing.Hedge{Standby: true}, Ledger: &testLedger{}, Logger: logger})
	f.waitFor(t, 50)
	refused := func() int { return strings.Count(strings.Join(lines(), ""), "no other cluster has been at work") }
	if refused() != 1 {
		t.Errorf("%d lines say so:\n%s", refused(), strings.Join(lines(), ""))
	}
	p.set(func(p *progress) { p.alone = false })
	eventtest.Eventually(t, "it stands by once another one is at work", func() bool { return p.stored() == "standby" })
}

func TestAClusterWhoseStandbyWasLostAsksAgain(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 50)
	f := newFunction(t)
	p := &progress{}
	hedging(t, server, f, p, source.Config{Hedge: eventing.Hedge{Standby: true}, Ledger: &testLedger{}})
	eventtest.Eventually(t, "it stands by", p.isStandingBy)

	// A failover loses the grant.
	p.set(func(p *progress) { p.standsBy = false })
	eventtest.Eventually(t, "it asks again", p.isStandingBy)
	if got := f.count(); got != 0 {
		t.Errorf("%d events were delivered", got)
	}
	// Another failover, and now another cluster stands by.
	p.set(func(p *progress) { p.standsBy, p.alone = false, true })
	f.waitFor(t, 50)
}

func TestStandbyEndsInTheDatabaseOnceEventsAreDelivered(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 50)
	f := newFunction(t)
	logger, lines := eventtest.Logger()
	sw := &toggle{value: "standby"}
	p := &progress{hedges: sw.hedge}
	hedging(t, server, f, p, source.Config{Ledger: &testLedger{}, Logger: logger})
	eventtest.Eventually(t, "it stands by", p.isStandingBy)
	var early atomic.Bool
	p.set(func(p *progress) {
		p.onEnd = func() {
			if !strings.Contains(strings.Join(lines(), ""), "hedge=0 hedge_before=standby") {
				early.Store(true)
			}
		}
	})
	sw.set("0", nil)
	eventtest.Eventually(t, "standby ends in the database", func() bool { return !p.isStandingBy() })
	if early.Load() {
		t.Errorf("standby ended in the database before the source had switched:\n%s", strings.Join(lines(), ""))
	}
	f.waitFor(t, 50)
}

func TestASourceThatRestartsEndsTheStandbyOfTheOneThatCrashed(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 1)
	p := &progress{standsBy: true, silent: true}
	f := newFunction(t)
	hedging(t, server, f, p, source.Config{})
	f.waitFor(t, 1) // without an answer of the database
	p.set(func(p *progress) { p.silent = false })
	eventtest.Eventually(t, "standby ends in the database", func() bool { return !p.isStandingBy() })
}

func TestWhileItIsNotKnownWhetherAClusterMayStandByNothingIsDelivered(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 50)
	f := newFunction(t)
	sw := &toggle{value: "standby"}
	p := &progress{silent: true, hedges: sw.hedge}
	hedging(t, server, f, p, source.Config{Ledger: &testLedger{}})
	time.Sleep(1500 * time.Millisecond)
	if got := f.count(); got != 0 {
		t.Errorf("%d events were delivered", got)
	}
	sw.set("race", nil)
	f.waitFor(t, 50)
}

func TestWhatIsSetAtRunTimeWinsOverTheConfiguration(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 1)
	sw := &toggle{value: "sometimes"}
	p := &progress{hedges: sw.hedge}
	logger, lines := eventtest.Logger()
	hedging(t, server, newFunction(t), p, source.Config{
		Hedge: eventing.Hedge{Delay: 300 * time.Millisecond}, Ledger: &testLedger{}, Logger: logger,
	})
	expect := func(want string) {
		t.Helper()
		eventtest.Eventually(t, "the hedge is "+want, func() bool { return p.stored() == want })
	}
	expect("300ms") // this version does not know the other value
	sw.set("1s", nil)
	expect("1s")
	sw.set("sometimes", nil)
	eventtest.Eventually(t, "it reports the error", func() bool {
		return strings.Count(strings.Join(lines(), ""), `read the hedge set at run time: \"sometimes\": want 0 (race)`) == 2
	})
	expect("1s")
	sw.set("", nil)
	expect("300ms")
}

func TestASourceWithABrokerRacesWhateverIsSet(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 50)
	f := newFunction(t)
	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "west", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := delivery.New(f.url(), f.url()+"/dead-letters", delivery.Config{Function: "flights", Broker: true})
	if err != nil {
		t.Fatal(err)
	}
	sw := &toggle{value: "standby"}
	logger, lines := eventtest.Logger()
	s, err := source.New(eventing.StreamList{stream}, sender, &progress{hedges: sw.hedge}, source.Config{Function: "flights", Ledger: &testLedger{}, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	f.waitFor(t, 50)
	if log := strings.Join(lines(), ""); !strings.Contains(log, "a Broker commits nothing") {
		t.Errorf("the log does not say why it does not stand by:\n%s", log)
	}
}

func TestASourceThatStartsDeliversNothingUntilTheDatabaseHasAnswered(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 50)
	f := newFunction(t)
	sw := &toggle{err: errors.New("the database is unavailable")}
	var asked atomic.Int64
	p := &progress{hedges: func() (string, error) {
		asked.Add(1)
		return sw.hedge()
	}}
	hedging(t, server, f, p, source.Config{Ledger: &testLedger{}})
	eventtest.Reaches(t, "messages are read", 51, func() int { return p.head("EVENTS") })
	before := asked.Load()
	eventtest.Eventually(t, "it asks again", func() bool { return asked.Load() > before+1 })
	if got := f.count(); got != 0 {
		t.Errorf("%d events were delivered", got)
	}
	sw.set("", nil)
	f.waitFor(t, 50)
}

func TestWhileTheDatabaseDoesNotAnswerItsLastHedgeHolds(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	database := pgtest.Server(t)
	if err := schema.Migrate(t.Context(), database.URL()); err != nil {
		t.Fatal(err)
	}
	pool := sinktest.NewPool(t, database.URL())
	checkpoints := ledger.NewCheckpoints(pool, "west")
	if err := checkpoints.SetHedge(t.Context(), "flights", "west", "40s"); err != nil {
		t.Fatal(err)
	}
	f := newFunction(t)
	logger, lines := eventtest.Logger()
	logged := func(text string) int { return strings.Count(strings.Join(lines(), ""), text) }
	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "west", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	eventtest.Publish(t, server, "EVENTS", 1, 1)
	start := func() (stop func()) {
		t.Helper()
		s, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.url(), f.url()+"/dead-letters"), checkpoints,
			source.Config{Function: "flights", SaveInterval: saveInterval, Ledger: &testLedger{done: map[string]bool{"test-000001": true}}, Logger: logger})
		if err != nil {
			t.Fatal(err)
		}
		return run(t, s)
	}
	stop := start()
	eventtest.Eventually(t, "the hedge is reported", func() bool {
		clusters, err := checkpoints.Clusters(t.Context(), "flights")
		return err == nil && len(clusters) == 1 && clusters[0].Hedge == "40s"
	})

	database.Stop(t.Context())
	eventtest.Publish(t, server, "EVENTS", 2, 100)
	eventtest.Eventually(t, "it cannot read the hedge", func() bool { return logged("reading the hedge") > 0 })
	if got := f.count(); got != 0 || logged("hedge switched") != 1 {
		t.Errorf("%d events were delivered without a delay:\n%s", got, strings.Join(lines(), ""))
	}
	stop()

	// After a restart the last answer is unknown.
	failures := logged("reading the hedge")
	start()
	eventtest.Eventually(t, "it cannot read the hedge", func() bool { return logged("reading the hedge") > failures })
	if got := f.count(); got != 0 || logged("hedge switched") != 1 {
		t.Errorf("%d events were delivered:\n%s", got, strings.Join(lines(), ""))
	}
}

func TestParseHedge(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"0": "0", "race": "0", "0s": "0", "300ms": "300ms", "1m": "1m0s", "share": "share", "standby": "standby",
		"": "", "300": "", "-1s": "", "61s": "", "Standby": "",
	} {
		h, err := eventing.ParseHedge(text)
		switch {
		case err == nil && h.String() != want, (err != nil) != (want == ""):
			t.Errorf("ParseHedge(%q) is %v, %v; want %q", text, h, err, want)
		case err != nil && !strings.Contains(err.Error(), "want 0 (race)"):
			t.Errorf("ParseHedge(%q): %v", text, err)
		}
	}
}
