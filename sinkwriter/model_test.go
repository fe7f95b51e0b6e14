package sinkwriter_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/internal/model"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "repeat the random run of this seed; 0 for another one each time")
	eventsFlag = flag.Int("events", 500, "events of each random run")
)

// randomSeed returns a seed and logs it, so that the run can be repeated,
// except for the scheduling of goroutines.
func randomSeed(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	if text := os.Getenv("TANDEM_TEST_SEED"); seed == 0 && text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("TANDEM_TEST_SEED: %v", err)
		}
	}
	if seed == 0 {
		seed = rand.Uint64N(1_000_000)
	}
	t.Logf("to repeat it: go test ./sinkwriter -run '%s' -seed %d -events %d", t.Name(), seed, *eventsFlag)
	return seed
}

func TestARandomRunLeavesWhatTheModelSays(t *testing.T) {
	t.Parallel()
	worlds := []struct {
		name                  string
		clusters              int
		publisher, migrations bool
	}{
		{"two clusters", 2, false, false},
		{"two clusters whose stream fails at times", 2, true, false},
		{"three clusters while the tables change", 3, false, true},
	}
	for i, tt := range worlds {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			seed := randomSeed(t)
			w := newWorld(t, seed+uint64(i), *eventsFlag, newModelDatabase(t))
			if tt.publisher {
				w.stream = &shakyStream{seen: map[string]bool{}}
			}
			if tt.migrations {
				w.migrate(t)
			}
			w.run(t, tt.clusters)
			w.check(t)
		})
	}
}

// migrate changes the tables until the run ends; the run waits for it.
func (w *world) migrate(t *testing.T) {
	t.Helper()
	pool := sinktest.NewPool(t, w.url)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	w.end = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		n := 0
		for ; ctx.Err() == nil; n++ {
			all := model.Migrations()
			if _, err := pool.Exec(t.Context(), all[n%len(all)]); err != nil {
				t.Errorf("migrate: %s: %v", all[n%len(all)], err)
			}
			select {
			case <-time.After(50 * time.Millisecond): // so that events are committed between two changes
			case <-ctx.Done():
			}
		}
		t.Logf("%d changes of tables", n)
	}()
}

// At any message the connection may be cut or may stall, and the server may
// crash. An answer may be lost then, so that no caller learns that it won, but
// nothing else may be lost.
func TestARandomRunWithFailuresLeavesWhatTheModelSays(t *testing.T) {
	t.Parallel()
	seed := randomSeed(t)
	server := pgtest.Server(t)
	if err := schema.Migrate(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	pool := sinktest.NewPool(t, server.URL())
	needCitext(t, pool)
	sinktest.Execute(t, pool, model.Schema)
	pool.Close()

	w := newWorld(t, seed, *eventsFlag, server.URL())
	w.stream = &shakyStream{seen: map[string]bool{}}
	w.way = func(cluster int) string {
		random := rand.New(rand.NewPCG(seed, uint64(cluster)))
		return newProxy(t, server.URL(), func(*message) pass { return misfortune(random) }).url
	}
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for range max(1, *eventsFlag/1000) {
			select {
			case <-time.After(1500 * time.Millisecond):
			case <-ended:
				return
			}
			if err := server.Crash(t.Context()); err != nil {
				t.Errorf("crash: %v", err)
			}
		}
	})
	w.run(t, 2)
	close(ended)
	all.Wait()
	w.check(t)
}

// misfortune decides what happens to a message: occasionally the connection is
// cut within it, or stalls for longer than the claim timeout.
func misfortune(random *rand.Rand) pass {
	switch random.IntN(3000) {
	case 0:
		return pass{act: (*link.Conn).Cut}
	case 1:
		return pass{bytes: 1, act: (*link.Conn).Cut}
	case 2:
		return pass{act: func(c *link.Conn) {
			c.Freeze()
			time.AfterFunc(300*time.Millisecond, c.Thaw)
		}}
	}
	return pass{}
}

// newModelDatabase returns the URL of a database with the model's tables.
func newModelDatabase(t *testing.T) string {
	t.Helper()
	url := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	pool := sinktest.NewPool(t, url)
	needCitext(t, pool)
	sinktest.Execute(t, pool, model.Schema)
	return url
}

// world is one random run.
type world struct {
	*model.Model
	url    string
	events int
	random *rand.Rand
	stream *shakyStream
	way    func(cluster int) string // returns the database URL of a cluster; nil means a direct connection without failures
	end    func()                   // ends the background work; nil if there is none

	won  []atomic.Int32 // by event
	told []atomic.Int32 // how many callers received a receipt
}

func newWorld(t *testing.T, seed uint64, events int, url string) *world {
	t.Helper()
	w := &world{
		Model: model.New(seed, events), url: url, events: events, random: rand.New(rand.NewPCG(seed, 0)),
		won: make([]atomic.Int32, events), told: make([]atomic.Int32, events),
	}
	sinktest.Execute(t, sinktest.NewPool(t, url), w.StockSQL())
	return w
}

// run offers every event in every cluster, some of them more than once.
func (w *world) run(t *testing.T, clusters int) {
	t.Helper()
	var all sync.WaitGroup
	for c := range clusters {
		config := sinkwriter.Config{
			Cluster:     fmt.Sprintf("cluster-%d", c),
			Connections: 1 + w.random.IntN(4),
			BatchEvents: []int{1, 3, 16, 64, 512}[w.random.IntN(5)],
			Logger:      slog.New(slog.DiscardHandler), // failures are expected here
		}
		if w.stream != nil {
			config.Publisher, config.PublishTimeout = w.stream, 100*time.Millisecond
		}
		callers := []int{4, 32, 128}[w.random.IntN(3)]
		t.Logf("%s: %d connections, batches of %d, %d callers", config.Cluster, config.Connections, config.BatchEvents, callers)
		url := w.url
		if w.way != nil {
			url = w.way(c)
		}
		writer := sinktest.NewWriter(t, sinktest.NewPool(t, url), config)
		order := w.order()
		all.Go(func() {
			for pass := 0; len(order) > 0; pass++ {
				if pass > 20 {
					t.Errorf("%s: %d events still wait for what they refer to", config.Cluster, len(order))
					break
				}
				order = w.offer(t, writer, uint64(c), order, callers)
			}
			if err := writer.Close(t.Context()); err != nil {
				t.Errorf("close %s: %v", config.Cluster, err)
			}
			t.Logf("%s: %+v", config.Cluster, writer.Stats())
		})
	}
	all.Wait()
	if w.end != nil {
		w.end()
	}
}

// order returns the order in which a cluster receives the events: roughly theirs,
// with repeats.
func (w *world) order() []int {
	var order []int
	for i := range w.events {
		order = append(order, i)
		for w.random.IntN(8) == 0 {
			order = append(order, i)
		}
	}
	for i := range order {
		j := min(len(order)-1, i+w.random.IntN(60))
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// offer offers events from many goroutines, and returns those that have to be
// offered again.
func (w *world) offer(t *testing.T, writer *sinkwriter.Writer, cluster uint64, order []int, callers int) (again []int) {
	t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	next := make(chan int)
	for g := range callers {
		random := rand.New(rand.NewPCG(cluster, uint64(g)))
		all.Go(func() {
			for i := range next {
				if random.IntN(30) == 0 {
					time.Sleep(time.Duration(random.IntN(4000)) * time.Microsecond)
				}
				if !w.commit(t, writer, cluster, i) {
					mu.Lock()
					again = append(again, i)
					mu.Unlock()
				}
			}
		})
	}
	for _, i := range order {
		next <- i
	}
	close(next)
	all.Wait()
	return again
}

// commit offers an event once, and reports whether its outcome is final.
func (w *world) commit(t *testing.T, writer *sinkwriter.Writer, style uint64, i int) bool {
	t.Helper()
	fx, verdict := w.Effects(i, style)
	r, err := writer.Commit(t.Context(), sinkwriter.Offer{Function: model.Function, Version: model.Version, Event: w.Event(i), Effects: fx})
	if err == nil {
		w.told[i].Add(1)
		if r.Won {
			w.won[i].Add(1)
		}
		if r.Diverged {
			t.Errorf("event %d diverged", i)
		}
		if verdict >= model.Refused {
			t.Errorf("event %d was committed, but its verdict is %d: %+v", i, verdict, fx)
		}
		return true
	}
	var e *sinkwriter.Error
	if !errors.As(err, &e) {
		t.Errorf("event %d: %v", i, err)
		return true
	}
	switch {
	case e.Fault == sinkwriter.FaultOrder && e.Constraint == "children_parent_fkey":
		return verdict == model.Orphan
	case verdict == model.Contends && e.Fault == sinkwriter.FaultEvent && e.Constraint == "users_email_key",
		verdict == model.Limited && e.Fault == sinkwriter.FaultEvent && e.Constraint == "levels_n_check",
		verdict == model.Refused && e.Fault == sinkwriter.FaultEvent,
		verdict == model.Undefined && e.Fault == sinkwriter.FaultDeployment:
	default:
		t.Errorf("event %d, verdict %d: %v; effects %+v", i, verdict, err, fx)
	}
	return true
}

// check compares receipts, tables, ledger and outputs with the model.
func (w *world) check(t *testing.T) {
	t.Helper()
	pool := sinktest.NewPool(t, w.url)
	found, err := pool.Query(t.Context(), `select key::text from tandem.ledger`)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	inLedger := map[string]bool{}
	for _, key := range keys {
		inLedger[key] = true
	}
	committed := make([]bool, w.events)
	for i := range w.events {
		key := ledger.NewKey(model.Function, model.Source, w.ID(i)).String()
		committed[i] = inLedger[key]
		delete(inLedger, key)
		won, told := w.won[i].Load(), w.told[i].Load()
		if won > 1 || won == 0 && committed[i] && w.way == nil {
			t.Errorf("event %d was won %d times", i, won)
		}
		if (told > 0) != committed[i] {
			t.Errorf("event %d: %d callers received a receipt, in the ledger: %t", i, told, committed[i])
		}
	}
	for key := range inLedger {
		t.Errorf("key %s is in the ledger, but no event has it", key)
	}
	w.compare(t, pool, func(i int) bool { return committed[i] })
}

// compare compares the database with the state that the winning events must
// have produced.
func (w *world) compare(t *testing.T, pool *pgxpool.Pool, won func(int) bool) {
	t.Helper()
	tables := map[string][]model.Row{}
	for name, sql := range model.Queries() {
		found, err := pool.Query(t.Context(), sql)
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
		maps, err := pgx.CollectRows(found, pgx.RowToMap)
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
		tables[name] = []model.Row{}
		for _, m := range maps {
			tables[name] = append(tables[name], m)
		}
	}
	for _, line := range w.Check(won, tables) {
		t.Error(line)
	}

	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.divergence_count`); n != 0 {
		t.Errorf("%d rows in tandem.divergence_count", n)
	}
	for _, line := range w.CheckOutputs(won, w.outputs(t, pool)) {
		t.Error(line)
	}
}

// outputs returns the published outputs and, after relaying them, those left in
// the outbox.
func (w *world) outputs(t *testing.T, pool *pgxpool.Pool) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	if w.stream != nil {
		all = w.stream.seen
	}
	sinktest.Execute(t, pool, `update tandem.outbox set due = now() - interval '1 second'`)
	box := sinkwriter.NewOutbox(pool)
	for {
		n, _, err := box.Relay(t.Context(), func(_ context.Context, events []event.Event) error {
			for _, e := range events {
				line := outputLine(e)
				if all[line] && w.stream == nil {
					t.Errorf("twice in the outbox: %s", line)
				}
				all[line] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	if n, err := box.Backlog(t.Context()); err != nil || n != 0 {
		t.Errorf("backlog %d, %v", n, err)
	}
	return all
}

func outputLine(e event.Event) string {
	if got := e.Extensions()["causationid"]; got == "" {
		return "an output without causationid: " + e.String()
	}
	return model.OutputLine(e.Source(), e.ID(), e.Type(), e.Subject(), e.Time(), e.Data())
}

// shakyStream stores events, or refuses them, or stores them and then reports a
// failure.
type shakyStream struct {
	mu    sync.Mutex
	calls int
	seen  map[string]bool
}

func (s *shakyStream) Publish(_ context.Context, events []event.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.calls%3 == 1 {
		return errors.New("the stream is down")
	}
	for _, e := range events {
		s.seen[outputLine(e)] = true
	}
	if s.calls%3 == 2 {
		return errors.New("the answer was lost")
	}
	return nil
}
