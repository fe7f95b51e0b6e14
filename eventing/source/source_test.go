package source_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestASourceDeliversEverythingAndSavesItsProgress(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 3000)
	f := newFunction(t)
	progress := &progress{}
	s := startSource(t, server, f.url(), progress)
	f.waitFor(t, 3000)
	eventtest.Eventually(t, "progress is saved", func() bool { return progress.floor("EVENTS") == 3001 })
	eventtest.Eventually(t, "it is ready", func() bool { return s.source.Ready() == nil })
	if got := progress.epochs(); len(got) != 1 || got[0] == "" {
		t.Errorf("epochs %v, want one", got)
	}
	if got := f.repeats(); got != 0 {
		t.Errorf("%d events came more than once", got)
	}
}

func TestWhatTheLedgerHasForgottenIsNotDelivered(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f := newFunction(t)
	progress := &progress{horizon: 41}
	startSource(t, server, f.url(), progress)
	f.waitFor(t, 60)
	eventtest.Eventually(t, "messages below the horizon are acknowledged", func() bool { return progress.floor("EVENTS") == 101 })
	if got := f.count(); got != 60 {
		t.Errorf("%d events were delivered, want the 60 from the horizon on", got)
	}
	if got := f.tried("test-000040"); got != 0 {
		t.Errorf("the last one below the horizon was delivered %d times", got)
	}
}

func TestASourceReadsSeveralStreams(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	eventtest.Publish(t, server, "OTHER", 101, 100)
	f := newFunction(t)
	progress := &progress{}
	startSourceOf(t, server, f.url(), progress, "EVENTS", "OTHER")
	f.waitFor(t, 200)
	eventtest.Eventually(t, "progress is saved for both", func() bool {
		return progress.floor("EVENTS") == 101 && progress.floor("OTHER") == 101
	})
}

func TestNothingIsAcknowledgedBeforeTheFunctionAnswered(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 10)
	f := newFunction(t)
	hold := make(chan struct{})
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if e.ID() == "test-000003" {
			<-hold
		}
		return http.StatusNoContent
	})
	progress := &progress{}
	startSource(t, server, f.url(), progress)
	f.waitFor(t, 9)
	eventtest.Eventually(t, "the floor is at the one that is not done", func() bool { return progress.floor("EVENTS") == 3 })
	time.Sleep(5 * saveInterval)
	if got := progress.floor("EVENTS"); got != 3 {
		t.Errorf("floor %d, want 3", got)
	}
	close(hold)
	eventtest.Eventually(t, "the floor rises", func() bool { return progress.floor("EVENTS") == 11 })
}

func TestARefusedEventIsAcknowledgedOnlyAfterTheDeadLetterSinkTookIt(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 5)
	f := newFunction(t)
	f.answer(func(_ http.ResponseWriter, r *http.Request, e event.Event) int {
		switch {
		case r.URL.Path == "/dead-letters" && f.broken.Load():
			return http.StatusServiceUnavailable
		case r.URL.Path == "/" && e.ID() == "test-000002":
			return http.StatusUnprocessableEntity
		}
		return http.StatusNoContent
	})
	f.broken.Store(true)
	progress := &progress{}
	s := startSource(t, server, f.url(), progress)
	f.waitFor(t, 4)
	eventtest.Eventually(t, "the floor is at the refused one", func() bool { return progress.floor("EVENTS") == 2 })
	eventtest.Eventually(t, "it is not ready", func() bool { return s.source.Ready() != nil })

	// A source that ends meanwhile does not acknowledge the refused event either.
	s.stop()
	startSource(t, server, f.url(), progress)
	eventtest.Eventually(t, "it tries again", func() bool { return f.tried("/dead-letters test-000002") > 3 })
	if got := progress.floor("EVENTS"); got != 2 {
		t.Errorf("floor %d, want 2", got)
	}

	f.broken.Store(false)
	eventtest.Eventually(t, "the floor rises", func() bool { return progress.floor("EVENTS") == 6 })
}

func TestASourceThatIsStoppedAndStartedLosesNothing(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 5000)
	f := newFunction(t)
	progress := &progress{}
	for n := 500; n < 5000; n += 1500 {
		conn := eventtest.Connect(t, server, nil)
		stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		// Requests under way have the time that they need, even on a busy machine.
		s := startStreams(t, conn, eventing.StreamList{stream}, f.url(), progress, delivery.Config{Grace: time.Minute})
		f.waitFor(t, n)
		s.stop()
	}
	startSource(t, server, f.url(), progress)
	f.waitFor(t, 5000)
	eventtest.Eventually(t, "progress is saved", func() bool { return progress.floor("EVENTS") == 5001 })
	if got := f.repeats(); got != 0 {
		t.Errorf("%d events came more than once though every source could finish", got)
	}
}

func TestASourceThatIsKilledLosesNothing(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 3000)
	f := newFunction(t)
	progress := &progress{}
	start := func() running {
		conn := eventtest.Connect(t, server, nil)
		stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		// A consumer that waits for AckWait receives none of the messages that another
		// one had.
		waiting := acksWithin{stream, server, &sequences{}, time.Hour}
		return startStreams(t, conn, eventing.StreamList{waiting}, f.url(), progress, delivery.Config{})
	}
	for n := 500; n < 3000; n += 1000 {
		s := start()
		f.waitFor(t, n)
		s.kill()
	}
	start()
	f.waitFor(t, 3000)
	eventtest.Eventually(t, "progress is saved", func() bool { return progress.floor("EVENTS") == 3001 })
}

func TestAFunctionThatDiesGetsItsEventsAgain(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 2000)
	f := newFunction(t)
	startSource(t, server, f.url(), &progress{})
	for n := 200; n < 2000; n += 600 {
		f.waitFor(t, n)
		f.die()
		f.revive(t)
	}
	f.waitFor(t, 2000)
}

func TestASourceMayStartBeforeFunctionAndStream(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	server.Stop()
	f := newFunction(t)
	f.die()
	logger, lines := eventtest.Logger()
	progress := &progress{}
	s := startLogged(t, server, f.url(), progress, logger, "EVENTS")
	eventtest.Eventually(t, "it is not ready", func() bool { return s.source.Ready() != nil })
	eventtest.Eventually(t, "it reports why", func() bool {
		text := strings.Join(lines(), "")
		return strings.Contains(text, "cannot connect to NATS") && strings.Contains(text, "connection refused")
	})
	server.Restart(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f.revive(t)
	f.waitFor(t, 100)
	eventtest.Eventually(t, "it is ready", func() bool { return s.source.Ready() == nil })
	var warnings []string
	for _, line := range lines() {
		// A busy machine may open the stream late.
		if strings.Contains(line, "level=WARN") && !strings.Contains(line, "deadline exceeded") && !strings.Contains(line, "timeout") {
			warnings = append(warnings, line)
		}
	}
	if len(warnings) != 2 {
		t.Errorf("%d warnings, want one about NATS and one about the function:\n%s", len(warnings), strings.Join(lines(), ""))
	}
}

func TestAStreamThatIsAwayForAWhileLosesNothing(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 2000)
	f := newFunction(t)
	progress := &progress{}
	startSource(t, server, f.url(), progress)
	for n := 300; n < 2000; n += 600 {
		f.waitFor(t, n)
		server.Restart(t)
	}
	eventtest.Publish(t, server, "EVENTS", 2001, 100)
	f.waitFor(t, 2100)
	eventtest.Eventually(t, "progress is saved", func() bool { return progress.floor("EVENTS") == 2101 })
}

func TestAStreamMadeAnewIsReadFromItsBeginning(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 100)
	f := newFunction(t)
	old, anew := make(chan struct{}), make(chan struct{})
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		switch e.ID() {
		case "test-000001": // the first message of the old stream
			<-old
		case "test-000201": // of the new one
			<-anew
		}
		return http.StatusNoContent
	})
	progress := &progress{}
	startSource(t, server, f.url(), progress)
	f.waitFor(t, 99)

	js := natstest.JetStream(t, server.URL())
	if err := js.DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	eventtest.Publish(t, server, "EVENTS", 201, 50)
	f.waitFor(t, 148)
	eventtest.Eventually(t, "another checkpoint is saved", func() bool { return len(progress.epochs()) == 2 && progress.floor("EVENTS") == 1 })

	// The old stream's message 1 is finished now, the new one's is not.
	close(old)
	f.waitFor(t, 149)
	time.Sleep(5 * saveInterval)
	if got := progress.floor("EVENTS"); got != 1 {
		t.Errorf("floor %d, want 1: a message of the old stream acknowledged one of the new", got)
	}
	close(anew)
	eventtest.Eventually(t, "the floor rises", func() bool { return progress.floor("EVENTS") == 51 })
}

func TestADatabaseThatIsAwayHoldsNothingUp(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 1)
	f := newFunction(t)
	progress := &progress{}
	startSource(t, server, f.url(), progress)
	f.waitFor(t, 1)
	progress.broken.Store(true)
	eventtest.Publish(t, server, "EVENTS", 2, 499)
	f.waitFor(t, 500)
	progress.broken.Store(false)
	eventtest.Eventually(t, "progress is saved", func() bool { return progress.floor("EVENTS") == 501 })
}

func TestALongWaitForTheFunctionBringsNoRedelivery(t *testing.T) {
	t.Parallel()

	for runs := 1; ; runs++ {
		repeats, stall := redelivered(t)
		if repeats == 0 {
			return
		}
		// Heartbeats are late while this process gets no CPU time.
		if t.Logf("run %d: %d messages were redelivered, and the longest stall was %s", runs, repeats, stall); stall < time.Second || runs == 5 {
			t.Fatalf("%d messages were redelivered", repeats)
		}
	}
}

// redelivered returns how many messages a stream redelivers that does so after 4 s without a
// heartbeat, while the function takes longer, and for how long this process stalled.
func redelivered(t *testing.T) (repeats int, stall time.Duration) {
	t.Helper()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 10)
	f := newFunction(t)
	f.answer(func(http.ResponseWriter, *http.Request, event.Event) int {
		time.Sleep(5 * time.Second)
		return http.StatusNoContent
	})
	conn := eventtest.Connect(t, server, nil)
	stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	sender := eventtest.NewSender(t, f.url(), f.url()+"/dead-letters")
	var handedOut sequences
	source, err := source.New(eventing.StreamList{acksWithin{stream, server, &handedOut, 4 * time.Second}}, sender, &progress{}, source.Config{
		Function: "flights", InFlight: 5, Heartbeat: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	stalls := eventtest.Stalls(t)
	stop := run(t, source)
	f.waitFor(t, 10)
	stop()
	return handedOut.repeats(), stalls()
}

// acksWithin is a stream with another AckWait. It records the delivered sequences.
type acksWithin struct {
	eventing.Stream
	server    *natstest.Server
	handedOut *sequences
	ackWait   time.Duration
}

func (s acksWithin) Open(ctx context.Context, cfg eventing.OpenConfig) (eventing.Reader, error) {
	reader, err := s.Stream.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(s.server.URL())
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		return nil, err
	}
	consumer, err := js.Consumer(ctx, "EVENTS", "tandem-east-flights")
	if err != nil {
		return nil, err
	}
	changed := consumer.CachedInfo().Config
	changed.AckWait = s.ackWait
	_, err = js.UpdateConsumer(ctx, "EVENTS", changed)
	return noting{reader, s.handedOut}, err
}

type noting struct {
	eventing.Reader
	handedOut *sequences
}

func (r noting) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	return r.Reader.Pull(ctx, n, bytes, func(m eventing.Message) {
		r.handedOut.add(m.Sequence())
		receive(m)
	})
}

type sequences struct {
	mu  sync.Mutex
	all []uint64
}

func (s *sequences) add(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, sequence)
}

func (s *sequences) repeats() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[uint64]bool{}
	for _, sequence := range s.all {
		seen[sequence] = true
	}
	return len(s.all) - len(seen)
}

func TestNewSourceSaysWhatIsWrong(t *testing.T) {
	t.Parallel()

	streams := eventing.StreamList{acksWithin{}}
	tests := []struct {
		name    string
		streams eventing.StreamList
		cfg     source.Config
		want    string
	}{
		{name: "no stream", cfg: source.Config{Function: "f"}, want: "no stream"},
		{name: "no function", streams: streams, want: "function: missing"},
		{name: "a hedge without a ledger", streams: streams, cfg: source.Config{Function: "f", Hedge: eventing.Hedge{Standby: true}}, want: "needs a ledger"},
		{name: "a delay too long", streams: streams, cfg: source.Config{Function: "f", Hedge: eventing.Hedge{Delay: time.Hour}}, want: "hedge 1h0m0s: want up to 1m0s"},
		{name: "too little memory", streams: streams, cfg: source.Config{Function: "f", MaxBytes: 1}, want: "max bytes 1: want at least"},
		{name: "no rate", streams: streams, cfg: source.Config{Function: "f", Rate: -1}, want: "rate -1: want 0"},
		{name: "too much at once", streams: streams, cfg: source.Config{Function: "f", InFlight: 20000}, want: "in flight 20000"},
		{name: "a negative time", streams: streams, cfg: source.Config{Function: "f", Heartbeat: -1}, want: "negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			_, err := source.New(tt.streams, nil, nil, tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

// function is a sink that records the events that it answered with 2xx.
type function struct {
	broken atomic.Bool

	mu     sync.Mutex
	server *httptest.Server
	addr   string
	how    func(http.ResponseWriter, *http.Request, event.Event) int
	done   map[string]int
	tries  map[string]int
}

func newFunction(t *testing.T) *function {
	t.Helper()

	f := &function{done: map[string]int{}, tries: map[string]int{}}
	f.server = httptest.NewServer(f)
	f.addr = f.server.Listener.Addr().String()
	t.Cleanup(f.die)
	return f
}

func (f *function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, err := cehttp.NewEventFromHTTPRequest(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	how := f.how
	f.tries[r.URL.Path+" "+e.ID()]++
	f.mu.Unlock()
	w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptLost) // unless how sets another one
	code := http.StatusNoContent
	if how != nil {
		code = how(w, r, *e)
	}
	if code < 300 {
		f.mu.Lock()
		f.done[e.ID()]++
		f.mu.Unlock()
	}
	w.WriteHeader(code)
}

func (f *function) answer(how func(http.ResponseWriter, *http.Request, event.Event) int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.how = how
}

func (f *function) url() string { return "http://" + f.addr }

// die ends the function like a kill: its connections are cut.
func (f *function) die() {
	f.mu.Lock()
	server := f.server
	f.server = nil
	f.mu.Unlock()
	if server != nil {
		_ = server.Listener.Close()
		server.CloseClientConnections()
		go server.Close() // waits for handlers, which a kill would not
	}
}

func (f *function) revive(t *testing.T) {
	t.Helper()

	server := httptest.NewUnstartedServer(f)
	_ = server.Listener.Close()
	eventtest.Eventually(t, "the port is free", func() bool {
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", f.addr)
		if err == nil {
			server.Listener = l
		}
		return err == nil
	})
	server.Start()
	f.mu.Lock()
	f.server = server
	f.mu.Unlock()
}

func (f *function) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.done)
}

func (f *function) repeats() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, times := range f.done {
		n += times - 1
	}
	return n
}

func (f *function) tried(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries[what]
}

// attempted returns how many events with an id below a given one were sent, and how
// often.
func (f *function) attempted(below string) (events, attempts int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for what, n := range f.tries {
		if path, id, _ := strings.Cut(what, " "); path == "/" && id < below {
			events++
			attempts += n
		}
	}
	return events, attempts
}

func (f *function) waitFor(t *testing.T, n int) {
	t.Helper()

	eventtest.Reaches(t, "events are done", n, f.count)
}

// progress is a Checkpoints in memory. The real one is sinkwriter's.
type progress struct {
	broken atomic.Bool

	mu       sync.Mutex
	rows     map[string]ledger.Checkpoint
	heads    map[string]uint64
	timeline string
	seen     []string
	hedge    string
	alone    bool // no other cluster is active
	silent   bool // whether another cluster is active is unknown
	standsBy bool // standby was granted
	onEnd    func()
	hedges   func() (string, error) // returns the value set at run time; nil means none

	horizon uint64
}

func (p *progress) Load(_ context.Context, _, stream string) (ledger.Checkpoint, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rows[stream], "db/" + p.timeline, nil
}

func (p *progress) Horizon(_ context.Context, _, _, epoch string) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch == "" {
		return 0, errors.New("no epoch")
	}
	return p.horizon, nil
}

func (p *progress) Hedge(context.Context, string) (string, error) {
	if p.hedges == nil {
		return "", nil
	}
	return p.hedges()
}

func (p *progress) StandBy(context.Context, string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken.Load() || p.silent {
		return false, errors.New("the database is unavailable")
	}
	p.standsBy = p.standsBy || !p.alone
	return p.standsBy, nil
}

func (p *progress) EndStandBy(context.Context, string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken.Load() || p.silent {
		return errors.New("the database is unavailable")
	}
	if p.onEnd != nil {
		p.onEnd()
	}
	p.standsBy = false
	return nil
}

func (p *progress) Save(_ context.Context, function, stream string, row ledger.CheckpointUpdate, last ledger.Checkpoint) (ledger.Checkpoint, bool, error) {
	if p.broken.Load() || function != "flights" {
		return ledger.Checkpoint{}, false, errors.New("the database is unavailable")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rows == nil {
		p.rows, p.heads = map[string]ledger.Checkpoint{}, map[string]uint64{}
	}
	now := ledger.Checkpoint{Epoch: row.Epoch, Floor: row.Floor, Timeline: "db/" + p.timeline}
	switch {
	case row.Head < row.Floor:
		return now, false, fmt.Errorf("head %d is below floor %d", row.Head, row.Floor)
	case p.rows[stream] != last:
		return ledger.Checkpoint{}, false, nil
	case row.Rewind:
		now.Timeline = ""
		if row.Truncated {
			p.horizon = min(p.horizon, row.Floor)
		}
	case !row.Adopt && last != (ledger.Checkpoint{}) && last.Timeline != now.Timeline:
		return ledger.Checkpoint{}, false, nil
	case !row.Adopt:
		p.hedge = row.Hedge
	}
	p.rows[stream] = now
	p.heads[stream] = max(p.heads[stream], row.Head)
	known := false
	for _, e := range p.seen {
		known = known || e == row.Epoch
	}
	if !known {
		p.seen = append(p.seen, row.Epoch)
	}
	return now, true, nil
}

func (p *progress) head(stream string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.heads[stream])
}

func (p *progress) floor(stream string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rows[stream].Floor
}

// stored returns the hedge that was saved last.
func (p *progress) stored() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hedge
}

func (p *progress) isStandingBy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.standsBy
}

func (p *progress) set(change func(*progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *progress) epochs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

// running is a source at work.
type running struct {
	source *source.Source
	stop   func() // like SIGTERM
	kill   func() // like SIGKILL: later calls have no effect
}

func startSource(t *testing.T, server *natstest.Server, sink string, progress source.Checkpoints) running {
	t.Helper()

	return startSourceOf(t, server, sink, progress, "EVENTS")
}

func startSourceOf(t *testing.T, server *natstest.Server, sink string, progress source.Checkpoints, streams ...string) running {
	t.Helper()

	return startLogged(t, server, sink, progress, nil, streams...)
}
