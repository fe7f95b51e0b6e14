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

// picky is a publisher that stores what it accepts, and counts it by subject.
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

// A busy database, or a small pool, has no connection for as long as a deletion may take.
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
		// COMMIT took longer than the short timeout: its output is left to a relay.
		sinktest.Execute(t, pool, `delete from tandem.outbox`)
	}
	c := <-taken
	defer c.Release()
	<-failed
	closed := make(chan error, 1)
	go func() { closed <- w.Close(t.Context()) }()
	select {
	case <-failed: // as it closes too
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

func TestOutputsBeyondTheMemoryOfAWinnerStayInTheOutbox(t *testing.T) {
	t.Parallel()

	const outputs, size, bound = 48, 1 << 20, 32
	pool := sinktest.NewDatabase(t)
	var published atomic.Int64
	open := make(chan struct{})
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Publisher: publisher(func(_ context.Context, events []event.Event) error {
		select {
		case <-open: // whatever the time for a call: all that fits is held by then
			published.Add(int64(len(events)))
			return nil
		case <-t.Context().Done():
			return t.Context().Err()
		}
	})})
	for n := range outputs {
		offer := sinktest.Order(fmt.Sprintf("o-%02d", n), 1)
		offer.Effects.Outputs[0].Data = strings.Repeat("x", size)
		if _, err := w.Commit(t.Context(), offer); err != nil {
			t.Fatal(err)
		}
	}
	close(open)
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := published.Load(); n < bound/2 || n > bound {
		t.Errorf("the winner published %d outputs of 1 MiB, want at most %d", n, bound)
	}
	left := sinktest.Query[int64](t, pool, `select count(*) from tandem.outbox`)
	if left+published.Load() != outputs {
		t.Errorf("%d outputs are published and %d in the outbox, want %d together", published.Load(), left, outputs)
	}
	// A relay reads them a few at a time.
	sinktest.Execute(t, pool, `update tandem.outbox set due = now()`)
	box := sinkwriter.NewOutbox(pool)
	for left > 0 {
		n, _, err := box.Relay(t.Context(), func(_ context.Context, events []event.Event) error {
			if len(events) > 16 {
				t.Errorf("%d MiB in one pass, want 16 at most", len(events))
			}
			return nil
		})
		if n == 0 || err != nil {
			t.Fatalf("relayed %d, %v", n, err)
		}
		left -= int64(n)
	}
}

type publisher func(context.Context, []event.Event) error

func (p publisher) Publish(ctx context.Context, events []event.Event) error { return p(ctx, events) }
