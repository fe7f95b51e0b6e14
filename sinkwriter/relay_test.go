package sinkwriter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

func TestAnOutputThatNobodyTakesHoldsUpNoOthers(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	for _, text := range []string{
		`[{"specversion":"1.0","id":"a","source":"/s","type":"t"},{"specversion":"1.0","id":"b","source":"/s","type":"t"}]`,
		`[{"specversion":"1.0","id":"bad","source":"/s","type":"t"}]`,
		`[{"specversion":"1.0","id":"unreadable"}]`,
		`[{"specversion":"1.0","id":"c","source":"/s","type":"t"}]`,
	} {
		sinktest.Execute(t, pool, `insert into tandem.outbox (due, events) values (now() - interval '1 second', $1)`, text)
	}
	var published []string
	broken := errors.New("broken")
	n, rejected, err := sinkwriter.NewOutbox(pool).Relay(t.Context(), func(_ context.Context, events []event.Event) error {
		reasons := make([]error, len(events))
		for i, e := range events {
			switch e.ID() {
			case "bad":
				reasons[i] = broken
			case "b":
				reasons[i] = &contract.Rejection{Code: 413, Err: errors.New("too\x00large")}
			default:
				published = append(published, e.ID())
			}
		}
		return fmt.Errorf("publish: %w", contract.Published(reasons))
	})
	if n != 2 || rejected != 1 || !errors.Is(err, broken) || !strings.Contains(err.Error(), "source, type: missing") {
		t.Errorf("relayed %d, rejected %d, %v", n, rejected, err)
	}
	slices.Sort(published)
	if diff := cmp.Diff([]string{"a", "c"}, published); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if left := sinktest.Query[int](t, pool, `select count(*) from tandem.outbox where due > now()`); left != 2 {
		t.Errorf("%d rows are left, want the two that were not published", left)
	}
	if got := sinktest.Query[string](t, pool, `select source || ' ' || id || ' ' || type || ' ' || code || ' ' || reason || ' ' || (event ->> 'id') from tandem.rejected_output`); got != "/s b t 413 too\uFFFDlarge b" {
		t.Errorf("set aside is %q", got)
	}
}

// picky is a publisher that stores the events that it accepts, and counts them by
// subject.
type picky struct {
	accept func(e event.Event) error

	mu        sync.Mutex
	published map[string]int
}

func (p *picky) Publish(_ context.Context, events []event.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	reasons := make([]error, len(events))
	for i, e := range events {
		if reasons[i] = p.accept(e); reasons[i] == nil {
			p.published[e.Subject()]++
		}
	}
	return contract.Published(reasons)
}

func (p *picky) counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.published)
}

func TestAWinnerPublishesEachOutputOnceAndLeavesTheRestToTheRelay(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	p := &picky{published: map[string]int{}, accept: func(e event.Event) error {
		switch e.Subject() {
		case "o-3":
			return errors.New("unavailable")
		case "o-5":
			return &contract.Rejection{Code: 400, Err: errors.New("no")}
		}
		return nil
	}}
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Publisher: p, PublishTimeout: 300 * time.Millisecond})
	var offers []sinkwriter.Offer
	want := map[string]int{}
	for n := range 10 {
		id := fmt.Sprintf("o-%d", n)
		offers = append(offers, sinktest.Order(id, 1))
		if n != 3 && n != 5 {
			want[id] = 1
		}
	}
	for _, o := range w.CommitAll(t.Context(), offers) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	const left = `select coalesce(string_agg(event ->> 'subject', ' '), '') from tandem.outbox_event where due <= now()`
	sinktest.Eventually(t, "o-3 is overdue", func() bool { return sinktest.Query[string](t, pool, left) == "o-3" })
	if diff := cmp.Diff(want, p.counts()); diff != "" {
		t.Errorf("published by the winner (-want +got):\n%s", diff)
	}
	if got := sinktest.Query[string](t, pool, `select string_agg((event ->> 'subject') || ' ' || code, ' ') from tandem.rejected_output`); got != "o-5 400" {
		t.Errorf("set aside are %s", got)
	}
	if stats := w.Stats(); stats.Published != 8 || stats.Rejected != 1 {
		t.Errorf("published %d, rejected %d, want 8 and 1", stats.Published, stats.Rejected)
	}
}

func TestRelaysLeaveRowsToAWinnerThatIsAtWork(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	g := gate{waits: make(chan struct{}, 1), open: make(chan struct{})}
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Publisher: g, PublishTimeout: 25 * time.Second})
	if _, err := w.Commit(t.Context(), sinktest.Order("o-1", 1)); err != nil {
		t.Fatal(err)
	}
	<-g.waits
	due := func() time.Time { return sinktest.Query[time.Time](t, pool, `select due from tandem.outbox`) }
	before := due()
	sinktest.Eventually(t, "the row is renewed", func() bool { return due().After(before) })
	close(g.open)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.outbox`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// On a busy database, or with a small pool, there may be no connection for as long as a
// deletion may take.
func TestPublishedOutputsAreDeletedOnceThereIsAConnection(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	config := pool.Config()
	config.MaxConns = 1
	small, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(small.Close)
	taken := make(chan *pgxpool.Conn, 1)
	failed := make(chan struct{}, 100)
	w := sinktest.NewWriter(t, small, sinkwriter.Config{
		Cluster: "east", CommitTimeout: 100 * time.Millisecond,
		Publisher: publisher(func(ctx context.Context, _ []event.Event) error {
			c, err := small.Acquire(ctx)
			if err == nil {
				taken <- c
			}
			return err
		}),
		Logger: slog.New(slog.NewTextHandler(lineWriter(func(line string) {
			if strings.Contains(line, "could not delete published outputs") {
				failed <- struct{}{}
			}
		}), nil)),
	})
	for n := 0; ; n++ {
		r, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprint("o-", n), 1))
		if err != nil {
			t.Fatal(err)
		}
		if r.Won {
			break
		}
		// COMMIT took longer than the short timeout, so its output is left to a
		// relay.
		sinktest.Execute(t, pool, `delete from tandem.outbox`)
	}
	c := <-taken
	defer c.Release()
	<-failed
	closed := make(chan error, 1)
	go func() { closed <- w.Close(t.Context()) }()
	select {
	case <-failed: // it closes, too
	case err := <-closed:
		t.Fatalf("Close returned %v though a published output is in the outbox", err)
	}
	c.Release()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.outbox`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

type lineWriter func(line string)

func (w lineWriter) Write(line []byte) (int, error) {
	w(string(line))
	return len(line), nil
}

// The winner does not leave them to a relay, which would publish them 30 s later.
func TestOutputsBeyondTheMemoryOfAWinnerAreReadBack(t *testing.T) {
	t.Parallel()

	const outputs, size, together = 80, 1 << 20, 8
	pool := sinktest.NewDatabase(t)
	var mu sync.Mutex
	var published []string
	open, unread := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(unread) })
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{
		Cluster: "east",
		Publisher: publisher(func(_ context.Context, events []event.Event) error {
			select {
			case <-open: // not limited by the time of a call: everything that fits is held by then
			case <-t.Context().Done():
				return t.Context().Err()
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				published = append(published, e.ID())
			}
			if len(published) > 40 && len(events) > together {
				t.Errorf("%d MiB were read back for one call, want %d at most", len(events), together)
			}
			return nil
		}),
		Logger: slog.New(slog.NewTextHandler(lineWriter(func(line string) {
			if strings.Contains(line, "could not read outputs back") {
				once()
			}
		}), nil)),
	})
	for n := range outputs {
		offer := sinktest.Order(fmt.Sprintf("o-%02d", n), 1)
		offer.Effects.Outputs[0].Data = strings.Repeat("x", size)
		if _, err := w.Commit(t.Context(), offer); err != nil {
			t.Fatal(err)
		}
	}
	// Rows that cannot be read are read later.
	sinktest.Execute(t, pool, `alter table tandem.outbox rename to hidden`)
	close(open)
	select {
	case <-unread:
	case <-time.After(time.Minute):
		t.Fatal("nothing was read back")
	}
	sinktest.Execute(t, pool, `alter table tandem.hidden rename to outbox`)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(published)
	if n := len(slices.Compact(published)); n != outputs || len(published) != n {
		t.Errorf("%d outputs are published, %d of them different, want %d", len(published), n, outputs)
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.outbox`); n != 0 {
		t.Errorf("%d rows are left in the outbox", n)
	}
}

// A relay reads rows a few at a time.
func TestARelayReadsAFewMiBAtATime(t *testing.T) {
	t.Parallel()

	const rows = 48
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `insert into tandem.outbox (due, events) select now() - interval '1 s', format(
		'[{"specversion":"1.0","id":"%s","source":"/s","type":"t","data":"%s"}]', i, repeat('x', 1 << 20)) from generate_series(1, $1::int) i`, rows)
	box := sinkwriter.NewOutbox(pool)
	for left := rows; left > 0; {
		n, _, err := box.Relay(t.Context(), func(_ context.Context, events []event.Event) error {
			if len(events) > 8 {
				t.Errorf("%d MiB in one call, want 8 at most", len(events))
			}
			return nil
		})
		if n == 0 || err != nil {
			t.Fatalf("relayed %d, %v", n, err)
		}
		left -= n
	}
}

type publisher func(context.Context, []event.Event) error

func (p publisher) Publish(ctx context.Context, events []event.Event) error { return p(ctx, events) }

// overdueRows stores rows of outputs that are overdue.
func overdueRows(t *testing.T, pool *pgxpool.Pool, rows, outputs int) {
	t.Helper()
	sinktest.Execute(t, pool, `insert into tandem.outbox (due, events) select now() - interval '1 s', (select '[' || string_agg(format(
		'{"specversion":"1.0","id":"%s-%s","source":"/s","type":"t"}', r, i), ',') || ']' from generate_series(1, $2::int) i) from generate_series(1, $1::int) r`, rows, outputs)
}

// A publisher that stores a thousand outputs per second, one call after the other, and
// nothing in a call that is cut short.
func TestARelayThatIsTooSlowForAllRowsGetsOnWithSome(t *testing.T) {
	t.Parallel()
	const rows, outputs = 64, 32
	pool := sinktest.NewDatabase(t)
	overdueRows(t, pool, rows, outputs)
	var mu sync.Mutex
	stored := map[string]int{}
	publish := func(ctx context.Context, events []event.Event) error {
		mu.Lock()
		defer mu.Unlock()
		took := time.NewTimer(time.Duration(len(events)) * time.Millisecond)
		defer took.Stop()
		select {
		case <-took.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, e := range events {
			stored[e.ID()]++
		}
		return nil
	}
	box := sinkwriter.NewOutbox(pool)
	passes := 0
	for left := int64(rows * outputs); left > 0; passes++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		published, _, err := box.Relay(ctx, publish)
		cancel()
		if err != nil && published > 0 {
			t.Error(err)
		}
		now, err := box.Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if now != left-int64(published) {
			t.Errorf("%d are left of %d after %d were published", now, left, published)
		}
		if left = now; passes > 100 {
			t.Fatalf("%d are left after %d passes", left, passes)
		}
	}
	if passes < 2 {
		t.Errorf("it took %d passes: the publisher was not too slow", passes)
	}
	mu.Lock()
	defer mu.Unlock()
	for id, n := range stored {
		if n > 1 {
			t.Errorf("%s was stored %d times", id, n)
		}
	}
	if len(stored) != rows*outputs {
		t.Errorf("%d are stored, want %d", len(stored), rows*outputs)
	}
}

// While a call waits for the answer about one output, the other outputs are published and
// leave the outbox.
func TestAnOutputWithoutAnAnswerDelaysNoOthersInTheRelay(t *testing.T) {
	t.Parallel()
	const rows, outputs = 20, 256
	pool := sinktest.NewDatabase(t)
	overdueRows(t, pool, rows, outputs)
	var calls, stored atomic.Int64
	hangs, answer := make(chan struct{}), make(chan struct{})
	publish := func(_ context.Context, events []event.Event) error {
		reasons := make([]error, len(events))
		if calls.Add(1) == 1 {
			close(hangs)
			<-answer
			reasons[0] = errors.New("no answer")
		}
		for _, reason := range reasons {
			if reason == nil {
				stored.Add(1)
			}
		}
		return contract.Published(reasons)
	}
	box := sinkwriter.NewOutbox(pool)
	done := make(chan error, 1)
	go func() {
		published, _, err := box.Relay(t.Context(), publish)
		if published != rows*outputs-1 {
			err = errors.Join(err, fmt.Errorf("published %d", published))
		}
		done <- err
	}()
	<-hangs
	sinktest.Eventually(t, "the other rows leave the outbox", func() bool {
		return sinktest.Query[int](t, pool, `select count(*) from tandem.outbox`) <= rows/4
	})
	close(answer)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "no answer") || strings.Contains(err.Error(), "published") {
		t.Errorf("error %v", err)
	}
	if n, err := box.Backlog(t.Context()); n != 1 || err != nil {
		t.Errorf("%d are left, %v, want the one without an answer", n, err)
	}
	if n := stored.Load(); n != rows*outputs-1 {
		t.Errorf("%d were stored, want each once", n)
	}
}

// While a long snapshot exists, deleted rows of the outbox and their index entries
// cannot be removed.
func TestDeletedRowsOfTheOutboxCostNeitherClaimsNorTakeovers(t *testing.T) {
	t.Parallel()
	const dead, bound = 300_000, 50_000
	pool := sinktest.NewDatabase(t)
	dump := psql(t, pool.Config().ConnString(), "pg_dump", "begin isolation level repeatable read", "select count(*) from tandem.outbox")
	defer dump.Exec(context.WithoutCancel(t.Context()), "commit") //nolint:errcheck // it is closed too
	// A row every 0.1 s, for eight hours.
	sinktest.Execute(t, pool, `insert into tandem.outbox (due, events) select now() - n * interval '0.1 s', '[]' from generate_series(1, $1::int) n`, dead)
	sinktest.Execute(t, pool, `delete from tandem.outbox`)
	for _, due := range []string{"1 second", "4 hours", "30 days"} {
		sinktest.Execute(t, pool, `insert into tandem.outbox (due, events) values (now() - $1::text::interval, format('[{"specversion":"1.0","id":"%s","source":"/s","type":"t"}]', $1))`, due)
	}

	config := pool.Config()
	config.MaxConns = 1 // so that its statistics are flushed
	one, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(one.Close)
	looks := func() (scans, entries int64) {
		t.Helper()
		sinktest.Execute(t, one, `select pg_stat_force_next_flush()`)
		sinktest.Execute(t, one, `select pg_stat_clear_snapshot()`)
		scans = sinktest.Query[int64](t, one, `select seq_scan from pg_stat_user_tables where relid = 'tandem.outbox'::regclass`)
		entries = sinktest.Query[int64](t, one, `select idx_tup_read from pg_stat_user_indexes where indexrelid = 'tandem.outbox_due_idx'::regclass`)
		return scans, entries
	}
	w := sinktest.NewWriter(t, one, sinkwriter.Config{Cluster: "east"})
	scansBefore, _ := looks()
	for n, begin := 0, time.Now(); n < 30 || time.Since(begin) < 2500*time.Millisecond; n++ { // it measures once a second
		if _, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprint("o-", n), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if scans, _ := looks(); scans != scansBefore {
		t.Errorf("claims have scanned the outbox %d times", scans-scansBefore)
	}

	// A relay that starts now takes over the latest overdue row at once, and older
	// rows soon.
	box := sinkwriter.NewOutbox(one)
	var ids []string
	var mu sync.Mutex
	publish := func(_ context.Context, events []event.Event) error {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			ids = append(ids, e.ID())
		}
		return nil
	}
	_, before := looks()
	if n, _, err := box.Relay(t.Context(), publish); n != 1 || err != nil || ids[0] != "1 second" {
		t.Fatalf("relayed %d, %v, %q", n, err, ids)
	}
	if _, entries := looks(); entries-before > bound {
		t.Errorf("%d entries of the index were read for a row that has just become overdue, want at most %d", entries-before, bound)
	}
	passes := 0
	for ; len(ids) < 3 && passes < 1000; passes++ {
		if _, _, err := box.Relay(t.Context(), publish); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) < 3 {
		t.Fatalf("after %d passes relayed are %q", passes, ids)
	}
	t.Logf("a row that was overdue for 30 days is relayed after %d passes", passes)
	for range 10 { // while it continues to look for older ones
		sinktest.Execute(t, pool, `insert into tandem.outbox (due, events) values (now() - interval '1 second', '[{"specversion":"1.0","id":"new","source":"/s","type":"t"}]')`)
		if n, _, err := box.Relay(t.Context(), publish); n != 1 || err != nil {
			t.Fatalf("relayed %d, %v", n, err)
		}
	}
}
