package source_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// journal records the order in which events of all clusters are first committed, and
// violations of the order: an event that is committed before an earlier one of its
// subject, or while the earlier one waits for a verdict.
type journal struct {
	mu        sync.Mutex
	poison    map[int]bool
	committed map[int]bool
	highest   map[string]int // by subject, of the committed or dropped events
	dead      map[string]map[int]time.Time
	dropped   map[int]int
	wrong     []string
	total     int

	// lives is how many sources of a cluster have ended. A request that an ended source sent,
	// and that the function has not read yet, does not count: on a busy machine it arrives long
	// after the next source started.
	lives map[string]int

	stored    map[string][]ledger.StoredEvent // by cluster
	positions int64
	most      int    // stored at once
	refused   string // a subject whose events cannot be stored
}

func newJournal(total int, poison ...int) *journal {
	j := &journal{
		poison: map[int]bool{}, committed: map[int]bool{}, highest: map[string]int{}, dead: map[string]map[int]time.Time{},
		dropped: map[int]int{}, total: total, stored: map[string][]ledger.StoredEvent{}, lives: map[string]int{},
	}
	for _, n := range poison {
		j.poison[n] = true
	}
	return j
}

// subjectOf returns the subject of event n: some are rare, one is hot, and some events
// have none.
func subjectOf(n int) string {
	switch n % 10 {
	case 0:
		return ""
	case 1, 2, 3, 4:
		return "hot"
	default:
		return fmt.Sprintf("s%d", n%37)
	}
}

func numberOf(id string) (n int) {
	_, _ = fmt.Sscanf(id, "test-%d", &n)
	return n
}

// life returns the number of the current source of a cluster.
func (j *journal) life(cluster string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strconv.Itoa(j.lives[cluster])
}

func (j *journal) endLife(cluster string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lives[cluster]++
}

// mustLive aborts a request of a source that has ended. It is called with the lock
// held.
func (j *journal) mustLive(cluster, life string) {
	if life != "" && life != strconv.Itoa(j.lives[cluster]) {
		panic(http.ErrAbortHandler)
	}
}

// commit commits an event that the source with the given number has sent.
func (j *journal) commit(cluster, life, id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mustLive(cluster, life)
	n := numberOf(id)
	subject := subjectOf(n)
	if j.committed[n] {
		return
	}
	j.committed[n] = true
	if subject == "" {
		return
	}
	if j.highest[subject] > n {
		j.wrong = append(j.wrong, fmt.Sprintf("%s commits %d of %s after %d", cluster, n, subject, j.highest[subject]))
	}
	j.highest[subject] = max(j.highest[subject], n)
	for before := range n {
		if before > 0 && !j.committed[before] && !j.poison[before] && subjectOf(before) == subject {
			j.wrong = append(j.wrong, fmt.Sprintf("%s commits %d of %s before %d", cluster, n, subject, before))
		}
	}
	for before := range j.dead[cluster] {
		if before < n && subjectOf(before) == subject {
			j.wrong = append(j.wrong, fmt.Sprintf("%s commits %d of %s while %d waits for a verdict", cluster, n, subject, before))
		}
	}
}

func (j *journal) letter(cluster, life, id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mustLive(cluster, life)
	if j.dead[cluster] == nil {
		j.dead[cluster] = map[int]time.Time{}
	}
	j.dead[cluster][numberOf(id)] = time.Now()
}

// drop drops every dead letter that is older than age.
func (j *journal) drop(age time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, dead := range j.dead {
		for n, at := range dead {
			if time.Since(at) > age {
				delete(dead, n)
				j.dropped[n]++
			}
		}
	}
}

// hasStored reports whether an event was stored behind a dead letter.
func (j *journal) hasStored() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.most > 0
}

func (j *journal) done() (committed, dropped int, wrong []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.committed), len(j.dropped), append([]string(nil), j.wrong...)
}

// verdictsOf is the Blocked of a cluster. The real one is in the database.
type verdictsOf struct {
	cluster string
	*journal
}

func (v verdictsOf) List(context.Context, string) (list []ledger.BlockedEvent, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for n := range v.dead[v.cluster] {
		id := fmt.Sprintf("test-%06d", n)
		list = append(list, ledger.BlockedEvent{Subject: subjectOf(n), Source: "/test", ID: id})
	}
	return list, nil
}

func (v verdictsOf) Still(_ context.Context, _ string, events []ledger.BlockedEvent) (map[ledger.BlockedEvent]bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	still := map[ledger.BlockedEvent]bool{}
	for _, e := range events {
		_, still[ledger.BlockedEvent{Source: e.Source, ID: e.ID}] = v.dead[v.cluster][numberOf(e.ID)]
	}
	return still, nil
}

func (v verdictsOf) Store(_ context.Context, _ string, events []ledger.StoredEvent) ([]bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if slices.ContainsFunc(events, func(e ledger.StoredEvent) bool { return v.refused != "" && e.Subject == v.refused }) {
		return nil, errors.New("index row size exceeds the maximum")
	}
	now := make([]bool, len(events))
	for i, e := range events {
		if slices.ContainsFunc(v.stored[v.cluster], func(old ledger.StoredEvent) bool { return old.ID == e.ID }) {
			continue
		}
		v.positions++
		e.Position, now[i] = v.positions, true
		v.stored[v.cluster] = append(v.stored[v.cluster], e)
	}
	v.most = max(v.most, len(v.stored[v.cluster]))
	return now, nil
}

func (v verdictsOf) Stored(context.Context, string) ([]ledger.StoredCount, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var counts []ledger.StoredCount
	for _, e := range v.stored[v.cluster] {
		counts = append(counts, ledger.StoredCount{Subject: e.Subject, Events: 1, Bytes: int64(len(e.Event))})
	}
	return counts, nil
}

func (v verdictsOf) Load(_ context.Context, _ string, subjects []string, limit int) (events []ledger.StoredEvent, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	loaded := map[string]int{}
	for _, e := range v.stored[v.cluster] {
		if slices.Contains(subjects, e.Subject) && loaded[e.Subject] < limit {
			loaded[e.Subject]++
			events = append(events, e)
		}
	}
	return events, nil
}

func (v verdictsOf) Delete(_ context.Context, _ string, positions []int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stored[v.cluster] = slices.DeleteFunc(v.stored[v.cluster], func(e ledger.StoredEvent) bool { return slices.Contains(positions, e.Position) })
	return nil
}

// Committed makes the journal a Ledger.
func (j *journal) Committed(_ context.Context, _ string, events []source.EventID) ([]bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	done := make([]bool, len(events))
	for i, e := range events {
		done[i] = j.committed[numberOf(e.ID)]
	}
	return done, nil
}

// functionOf starts the function of a cluster; fail decides how it fails.
func (j *journal) functionOf(t *testing.T, cluster string, fail func(n int) int) string {
	t.Helper()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var events []event.Event
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents-batch") {
			body := make([]byte, r.ContentLength)
			for read := 0; read < len(body); {
				n, err := r.Body.Read(body[read:])
				if read += n; err != nil {
					break
				}
			}
			members, _ := cloudevent.ReadBatch(body, cloudevent.Rules{})
			for _, m := range members {
				events = append(events, m.Event)
			}
		} else {
			e, err := cloudevent.ReadBinary(r.Header, nil, cloudevent.Rules{})
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			events = append(events, e)
		}
		if r.URL.Path == "/dead-letters" {
			j.letter(cluster, r.URL.Query().Get("life"), events[0].ID())
			w.WriteHeader(http.StatusNoContent)
			return
		}
		worst := http.StatusNoContent
		for _, e := range events {
			n := numberOf(e.ID())
			status := http.StatusNoContent
			if fail != nil {
				status = fail(n)
			}
			if j.poison[n] {
				status = http.StatusUnprocessableEntity
			}
			if status == http.StatusNoContent {
				j.commit(cluster, r.URL.Query().Get("life"), e.ID())
			}
			worst = max(worst, status)
		}
		if worst == 599 {
			panic(http.ErrAbortHandler) // possibly after a commit
		}
		w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptLost)
		w.WriteHeader(worst)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func startOrdered(t *testing.T, server *natstest.Server, j *journal, cluster, sink string, p *progress, cfg source.Config) running {
	t.Helper()

	conn := eventtest.Connect(t, server, nil)
	stream, err := jetstream.NewStream(conn, cluster, "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	life := "?life=" + j.life(cluster)
	delivery, err := delivery.New(sink+"/"+life, sink+"/dead-letters"+life, delivery.Config{
		Function: "flights", BackoffBase: time.Millisecond, BackoffCap: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Function, cfg.Ordered, cfg.Blocked, cfg.Ledger = "flights", true, verdictsOf{cluster, j}, j
	cfg.SaveInterval, cfg.InFlight = saveInterval, 32
	source, err := source.New(eventing.StreamList{stream}, delivery, p, cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, source)
	return running{source: source, stop: func() {
		stop()
		j.endLife(cluster)
	}, kill: func() {
		j.endLife(cluster)
		_ = conn.Close(t.Context())
		stop()
	}}
}

// wavering returns another value on each call.
type wavering struct{ asked atomic.Int64 }

func (w *wavering) hedge() (string, error) {
	return []string{"0", "standby", "20ms"}[w.asked.Add(1)%3], nil
}

func publishSubjects(t *testing.T, server *natstest.Server, from, to int) {
	t.Helper()

	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	for n := from; n < to; n += 100 {
		var events []event.Event
		for i := n; i < min(to, n+100); i++ {
			e := eventtest.NewEvent(fmt.Sprintf("test-%06d", i))
			if subject := subjectOf(i); subject != "" {
				e.SetSubject(subject)
			}
			events = append(events, e)
		}
		eventtest.Eventually(t, "events are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
	}
}

func TestEventsOfASubjectAreCommittedInOrder(t *testing.T) {
	t.Parallel()

	type cluster struct {
		name   string
		cfg    source.Config
		hedges func() (string, error)
	}
	for _, tt := range []struct {
		name     string
		long     bool // the others have committed all events
		clusters []cluster
	}{
		{"one", true, []cluster{{name: "east"}}},
		{"one with little memory", false, []cluster{{name: "east", cfg: source.Config{MaxBytes: 1 << 20}}}},
		{"batches", true, []cluster{{name: "east", cfg: source.Config{Batch: 20, MaxBytes: 1 << 20}}}},
		{"two race", false, []cluster{{name: "east"}, {name: "west", cfg: source.Config{Batch: 20}}}},
		{"one is switched", false, []cluster{{name: "east"}, {name: "west", cfg: source.Config{MaxBytes: 1 << 20}, hedges: (&wavering{}).hedge}}},
		{"one hedges", true, []cluster{{name: "east"}, {name: "west", cfg: source.Config{Hedge: eventing.Hedge{Delay: 30 * time.Millisecond}}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.long && testing.Short() {
				t.Skip("left to make long")
			}

			const total, lives = 2000, 6
			server := natstest.Start(t)
			publishSubjects(t, server, 1, total/2)
			j := newJournal(total, 11, 12, 205, 806, 1207, 1811)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				publishSubjects(t, server, total/2, total)
			}()

			var all sync.WaitGroup
			over := make(chan struct{})
			end := sync.OnceFunc(func() {
				close(over)
				all.Wait()
			})
			t.Cleanup(end)
			all.Go(func() {
				for {
					select {
					case <-over:
						return
					case <-time.After(50 * time.Millisecond):
						if j.hasStored() { // which may take longer than a verdict on a busy machine
							j.drop(300 * time.Millisecond)
						}
					}
				}
			})
			places := make([]*progress, len(tt.clusters))
			var starting sync.Mutex
			sources, logs := make([]*source.Source, len(tt.clusters)), make([]func() []string, len(tt.clusters))
			defer func() {
				if !t.Failed() {
					return
				}
				committed, dropped, _ := j.done()
				t.Logf("committed %d, dropped %d", committed, dropped)
				starting.Lock()
				defer starting.Unlock()
				for i, c := range tt.clusters {
					if sources[i] == nil {
						continue
					}
					lines := logs[i]()
					t.Logf("%s, saved floor %d:\n%s\nits log ends with:\n%s", c.name, places[i].floor("EVENTS"), sources[i].Describe(), strings.Join(lines[max(0, len(lines)-40):], ""))
				}
			}()
			for i, c := range tt.clusters {
				places[i] = &progress{hedges: c.hedges}
				c.cfg.Logger, logs[i] = eventtest.Logger()
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(uint64(i), 7))
				sink := j.functionOf(t, c.name, func(int) int {
					mu.Lock()
					defer mu.Unlock()
					switch x := random.IntN(200); {
					case x < 6:
						return http.StatusInternalServerError
					case x < 12:
						return http.StatusServiceUnavailable
					case x < 14:
						return 599
					}
					return http.StatusNoContent
				})
				all.Go(func() {
					random := rand.New(rand.NewPCG(uint64(i), 8))
					for life := 0; ; life++ {
						r := startOrdered(t, server, j, c.name, sink, places[i], c.cfg)
						starting.Lock()
						sources[i] = r.source
						starting.Unlock()
						lasting := time.Duration(300+random.IntN(500)) * time.Millisecond
						if life >= lives {
							lasting = time.Hour
						}
						select {
						case <-over:
							return
						case <-time.After(lasting):
						}
						if life%2 == 0 {
							r.kill()
						} else {
							r.stop()
						}
					}
				})
			}
			<-ended
			through := func() int {
				committed, dropped, wrong := j.done()
				if len(wrong) > 0 {
					return math.MaxInt
				}
				n := committed + dropped
				for _, p := range places {
					n += int(p.floor("EVENTS"))
				}
				return n
			}
			// The last events of a queue of a thousand, with room for a quarter of
			// them, take a while.
			eventtest.Reaches(t, "events committed and dropped, and floors", total-1+total*len(places), through)
			end()
			if _, _, wrong := j.done(); len(wrong) > 0 {
				t.Errorf("%d times out of order: %s", len(wrong), strings.Join(wrong[:min(5, len(wrong))], "; "))
			}
		})
	}
}

// All events that are to be stored are sent to the database together. If storing fails for one
// subject, only that subject waits in its stream.
func TestASubjectThatCannotBeStoredHoldsNoOther(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	j := newJournal(101, 1, 5) // of subjects hot and s5
	j.refused = "hot"
	publishSubjects(t, server, 1, 101)
	startOrdered(t, server, j, "east", j.functionOf(t, "east", nil), &progress{}, source.Config{})
	eventtest.Eventually(t, "the event behind the other dead letter is stored", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return slices.ContainsFunc(j.stored["east"], func(e ledger.StoredEvent) bool { return e.ID == "test-000079" })
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.stored["east"] {
		if e.Subject == "hot" {
			t.Errorf("%s is stored, of a subject that cannot be", e.ID)
		}
	}
}

// dawdling is a stream that, each time it is opened, redelivers the first message only
// after all the others.
type dawdling struct{ eventing.Stream }

func (s dawdling) Open(ctx context.Context, cfg eventing.OpenConfig) (eventing.Reader, error) {
	reader, err := s.Stream.Open(ctx, cfg)
	return &dawdler{Reader: reader}, err
}

type dawdler struct {
	eventing.Reader
	kept  eventing.Message
	pulls int
}

func (d *dawdler) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	d.pulls++
	err := d.Reader.Pull(ctx, n, bytes, func(m eventing.Message) {
		if d.pulls == 1 && d.kept == nil {
			d.kept = m
			return
		}
		receive(m)
	})
	if d.pulls > 1 && d.kept != nil {
		receive(d.kept)
		d.kept = nil
	}
	return err
}

func TestWhatWasHandedOutBeforeIsWaitedFor(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		e := eventtest.NewEvent(fmt.Sprintf("test-%06d", 10*n+1))
		e.SetSubject("hot")
		eventtest.Eventually(t, "it is stored", func() bool { return publisher.Publish(t.Context(), []event.Event{e}) == nil })
	}
	var mu sync.Mutex
	var done []int
	away := true
	sink := newFunction(t)
	sink.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		mu.Lock()
		defer mu.Unlock()
		if away {
			return http.StatusServiceUnavailable
		}
		// The ledger recognises an event that is redelivered after it was committed.
		if n := numberOf(e.ID()); !slices.Contains(done, n) {
			done = append(done, n)
		}
		return http.StatusNoContent
	})
	j, p := newJournal(0), &progress{}
	r := startOrdered(t, server, j, "east", sink.url(), p, source.Config{})
	eventtest.Eventually(t, "the first is tried", func() bool { return sink.tried("/ test-000001") > 3 })
	r.kill()
	mu.Lock()
	away = false
	mu.Unlock()

	stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	source, err := source.New(eventing.StreamList{dawdling{stream}}, eventtest.NewSender(t, sink.url(), sink.url()+"/dead-letters"), p, source.Config{
		Function: "flights", Ordered: true, Blocked: verdictsOf{"east", j}, Ledger: j, SaveInterval: saveInterval,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	eventtest.Eventually(t, "all is done", func() bool { return p.floor("EVENTS") == 21 })
	mu.Lock()
	defer mu.Unlock()
	if !slices.IsSorted(done) || len(done) != 20 {
		t.Errorf("done in this order: %v", done)
	}
}

// A blocked subject, with a stream full of its events, delays no other subject, and
// takes no more memory than the limit.
func TestABlockedSubjectStarvesNoOther(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	const total = 1900 // of at most 2048, see docs/streams.md
	for n := 0; n < total; n += 100 {
		var events []event.Event
		for i := n; i < n+100; i++ {
			e := eventtest.NewEvent(fmt.Sprintf("test-%06d", i))
			e.SetSubject("blocked")
			if i%100 == 99 {
				e.SetSubject(fmt.Sprintf("free %d", i%7))
			}
			events = append(events, e)
		}
		eventtest.Eventually(t, "they are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
	}
	f := newFunction(t)
	f.broken.Store(true)
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if f.broken.Load() && e.Subject() == "blocked" {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	p := &progress{}
	r := startOrdered(t, server, newJournal(0), "east", f.url(), p, source.Config{MaxBytes: 1 << 20})
	f.waitFor(t, total/100)
	eventtest.Eventually(t, "it is ready", func() bool { return r.source.Ready() == nil })
	f.broken.Store(false)
	eventtest.Eventually(t, "the subject goes on", func() bool { return f.count() > total/100+20 })
}

// A source that starts delivers nothing until it is known that no earlier event of a subject is
// missing. It has room for all that were delivered before, also if its memory was lowered since.
func TestASourceThatStartsHasRoomForWhatWasDeliveredBefore(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	const total = 2200 // more than the 2048 that 1 MiB has room for, as docs/streams.md says
	for n := 0; n < total; n += 100 {
		var events []event.Event
		for i := n; i < n+100; i++ {
			e := eventtest.NewEvent(fmt.Sprintf("test-%06d", i))
			e.SetSubject("one")
			events = append(events, e)
		}
		eventtest.Eventually(t, "they are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
	}
	f := newFunction(t)
	f.broken.Store(true)
	f.answer(func(http.ResponseWriter, *http.Request, event.Event) int {
		if f.broken.Load() {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	p, j := &progress{}, newJournal(0)
	r := startOrdered(t, server, j, "east", f.url(), p, source.Config{MaxBytes: 2 << 20})
	eventtest.Eventually(t, "all are in flight", func() bool {
		consumer, err := natstest.JetStream(t, server.URL()).Consumer(t.Context(), "EVENTS", "tandem-east-flights")
		return err == nil && consumer.CachedInfo().NumAckPending == total
	})
	r.kill()
	f.broken.Store(false)
	startOrdered(t, server, j, "east", f.url(), p, source.Config{MaxBytes: 1 << 20})
	f.waitFor(t, total)
}

// Events behind a dead letter do not hold the floor of the stream, and are delivered in
// order after the verdict, even by the next process.
func TestWhatWaitsBehindADeadLetterDoesNotHoldTheStream(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(from, to int) {
		var events []event.Event
		for i := from; i < to; i++ {
			e := eventtest.NewEvent(fmt.Sprintf("test-%06d", i))
			e.SetSubject("hot")
			events = append(events, e)
		}
		eventtest.Eventually(t, "they are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
	}
	const total = 1200
	publish(1, total/2)
	j := newJournal(total, 1)
	p := &progress{}
	sink := j.functionOf(t, "east", nil)
	r := startOrdered(t, server, j, "east", sink, p, source.Config{MaxBytes: 1 << 20})
	eventtest.Eventually(t, "the floor passes what waits", func() bool { return p.floor("EVENTS") == total/2 })
	if committed, _, _ := j.done(); committed > 0 {
		t.Errorf("%d events are committed behind a dead letter", committed)
	}
	r.kill()

	startOrdered(t, server, j, "east", sink, p, source.Config{})
	publish(total/2, total)
	eventtest.Eventually(t, "the floor passes what waits", func() bool { return p.floor("EVENTS") == total })
	if committed, _, _ := j.done(); committed > 0 {
		t.Errorf("%d events are committed behind a dead letter", committed)
	}
	j.drop(0)
	eventtest.Eventually(t, "they are committed", func() bool {
		committed, _, wrong := j.done()
		return committed == total-2 || len(wrong) > 0
	})
	eventtest.Eventually(t, "nothing is stored", func() bool {
		counts, _ := verdictsOf{"east", j}.Stored(t.Context(), "")
		return len(counts) == 0
	})
	if _, _, wrong := j.done(); len(wrong) > 0 {
		t.Errorf("out of order: %s", strings.Join(wrong[:min(5, len(wrong))], "; "))
	}
}
