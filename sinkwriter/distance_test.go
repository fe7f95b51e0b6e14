package sinkwriter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/postgres"
)

// newLinked returns a pool whose connections cross a link.
func newLinked(t *testing.T, databaseURL string, condition link.Condition) (*link.Link, *pgxpool.Pool) {
	t.Helper()
	l := link.New()
	t.Cleanup(l.Close)
	url, err := l.URL(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	l.Set(condition)
	return l, sinktest.NewPool(t, url)
}

// offers returns n offers whose row has a note of that many bytes.
func offers(name string, n, bytes int) []sinkwriter.Offer {
	list := make([]sinkwriter.Offer, n)
	for i := range list {
		id := fmt.Sprintf("%s-%d", name, i)
		var fx functions.Effects
		fx.Insert("orders", functions.Row{"id": id, "amount": 1, "note": strings.Repeat("x", bytes)})
		list[i] = sinkwriter.Offer{Function: "orders", Version: "1", Event: sinktest.NewEvent(id), Effects: fx}
	}
	return list
}

// wins commits offers, and fails the test unless all of them won.
func wins(t *testing.T, w *sinkwriter.Writer, list []sinkwriter.Offer) {
	t.Helper()
	for i, o := range w.CommitAll(t.Context(), list) {
		if o.Err != nil || !o.Receipt.Won {
			t.Fatalf("offer %d: %+v", i, o)
		}
	}
}

func TestAClusterWithALongRoundTripCommits(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	// Longer than the claim timeout.
	l, far := newLinked(t, pool.Config().ConnString(), link.Condition{Delay: 110 * time.Millisecond})
	w := sinktest.NewWriter(t, far, sinkwriter.Config{Cluster: "west"})
	wins(t, w, offers("far", 1000, 10))
	// On a busy machine some batches may be retried. If the claim timeout did not include
	// the round trip, all of them would be.
	if s := w.Stats(); s.Retries > s.Batches {
		t.Errorf("%d batches were retried, of %d", s.Retries, s.Batches)
	}

	// The round trip grows while connections are open. The server ends them once, and the
	// new connections measure it.
	l.Set(link.Condition{Delay: 400 * time.Millisecond})
	wins(t, w, offers("farther", 1000, 10))
}

func TestBatchesAreAsLargeAsTheLinkCarries(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	const rate, size, n = 20_000_000 / 8, 20_000, 200
	_, slow := newLinked(t, pool.Config().ConnString(), link.Condition{Rate: rate, Delay: 5 * time.Millisecond})
	w := sinktest.NewWriter(t, slow, sinkwriter.Config{Cluster: "west"})
	wins(t, w, offers("slow", n, size))
	stats := w.Stats()
	if stats.Retries > stats.Batches { // as above
		t.Errorf("%d batches were retried, of %d", stats.Retries, stats.Batches)
	}
	// A tenth of a second plus a round trip, which is longer on a busy machine. Without the
	// limit all events would be in one or two batches.
	if least := int64(n * size / (rate * 4 / 10)); stats.Batches < least {
		t.Errorf("%d batches, want at least %d", stats.Batches, least)
	}
	near := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	wins(t, near, offers("near", n, size))
	t.Logf("a near cluster needs %d batches, and one behind a slow link %d", near.Stats().Batches, stats.Batches)
}

// Invariant I5 over a distance: the events that the far cluster had claimed when its link
// broke can be claimed again after its claim timeout and its round trip.
func TestAFarClusterThatFreezesDelaysTheNearOneByItsClaimTimeoutAndARoundTrip(t *testing.T) {
	t.Parallel()
	const delay, claimTimeout = 150 * time.Millisecond, 500 * time.Millisecond
	pool := sinktest.NewDatabase(t)
	l, linked := newLinked(t, pool.Config().ConnString(), link.Condition{Delay: delay})
	far := sinktest.NewWriter(t, linked, sinkwriter.Config{Cluster: "west", ClaimTimeout: claimTimeout, CommitTimeout: 5 * time.Second})
	near := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	for _, w := range []*sinkwriter.Writer{far, near} { // to open a connection
		if _, err := w.Commit(t.Context(), offers("warm", 1, 10)[0]); err != nil {
			t.Fatal(err)
		}
	}

	key := ledger.NewKey("orders", "/test", "once")
	claimed := make(chan time.Time, 1)
	var once sync.WaitGroup
	once.Go(func() {
		_, err := far.Once(t.Context(), key, func(pgx.Tx) error {
			l.Set(link.Condition{Silent: true})
			claimed <- time.Now()
			return nil
		})
		if err == nil {
			t.Error("a transaction over a broken link is committed")
		}
	})
	begin := <-claimed
	won, err := sinktest.UntilDecided(func() (bool, error) { return near.Once(t.Context(), key, func(pgx.Tx) error { return nil }) })
	took := time.Since(begin)
	if err != nil || !won {
		t.Errorf("won %t, %v", won, err)
	}
	t.Logf("the near cluster waited %s", took)
	// A busy machine is slower; without the timeout the broken link takes much longer.
	if bound := claimTimeout + 2*delay + 3*time.Second; took > bound {
		t.Errorf("the near cluster waited %s, want less than %s", took, bound)
	}
	once.Wait()
	l.Heal()
}

// Both clusters offer all events. The far one wins some, and the near one, which waits for
// it, ends none of its transactions.
func TestANearAndAFarClusterRace(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	_, linked := newLinked(t, pool.Config().ConnString(), link.Condition{Delay: 40 * time.Millisecond})
	far := sinktest.NewWriter(t, linked, sinkwriter.Config{Cluster: "west"})
	near := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var clusters sync.WaitGroup
	for i, w := range []*sinkwriter.Writer{near, far} {
		clusters.Go(func() {
			for i == 0 && far.Stats().Won == 0 && ctx.Err() == nil {
				time.Sleep(time.Millisecond) // otherwise it would finish before the far one has started
			}
			var callers sync.WaitGroup
			for c := range 8 {
				callers.Go(func() {
					for k := range 10 {
						// The far cluster starts with the events that the near
						// one offers last.
						if i == 1 {
							k = 9 - k
						} else {
							time.Sleep(100 * time.Millisecond)
						}
						for _, o := range w.CommitAll(ctx, offers(fmt.Sprint(c, "-", k), 20, 10)) {
							if o.Err != nil && !errors.Is(o.Err, context.DeadlineExceeded) {
								t.Error(o.Err)
							}
						}
					}
				})
			}
			callers.Wait()
		})
	}
	clusters.Wait()
	if got := sinktest.Query[int](t, pool, `select count(*) from orders`); got != 1600 {
		t.Errorf("%d rows, want 1600", got)
	}
	for name, w := range map[string]*sinkwriter.Writer{"near": near, "far": far} {
		t.Logf("%s: %+v", name, w.Stats())
		if w.Stats().Won == 0 {
			t.Errorf("the %s cluster won nothing", name)
		}
	}
	if won := near.Stats().Won + far.Stats().Won; won != 1600 {
		t.Errorf("%d events were won, want 1600", won)
	}
}

// The host that is reachable is the last of three, and each of the others takes
// its time to fail.
func TestAnAttemptOutlastsTheHostsBeforeTheLivingOne(t *testing.T) {
	t.Parallel()
	url := sinktest.NewDatabase(t).Config().ConnString()
	l := link.New()
	t.Cleanup(l.Close)
	l.Set(link.Condition{Silent: true})
	hosts, err := link.MapHosts(url, func(host string) (string, error) {
		one, err := l.Listen(host)
		if err != nil {
			return "", err
		}
		two, err := l.ListenAny(host, host)
		return one + "," + two + "," + host, err
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := postgres.ParseConfig(hosts+"&target_session_attrs=read-write&connect_timeout=2", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", CommitTimeout: 3 * time.Second})
	wins(t, w, offers("o", 1, 10))
	if n := w.Stats().Retries; n > 2 { // a busy machine ends one now and then
		t.Errorf("%d attempts ended before the living host was tried", n)
	}
}

// Waiting for a client that is far away is not hanging: another cluster, whose claim timeout is
// shorter than the round trip, waits for the session and does not end it.
func TestAWaiterAllowsForTheRoundTripOfTheHolder(t *testing.T) {
	if testing.Short() {
		t.Skip("left to make long: a long way takes its time")
	}
	t.Parallel()
	const delay, claimTimeout = 600 * time.Millisecond, 400 * time.Millisecond
	pool := sinktest.NewDatabase(t)
	_, linked := newLinked(t, pool.Config().ConnString(), link.Condition{Delay: delay})
	far := sinktest.NewWriter(t, linked, sinkwriter.Config{Cluster: "west", ClaimTimeout: 5 * time.Second})
	near := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", ClaimTimeout: claimTimeout})
	// Open the connections that it needs.
	if _, err := near.Once(t.Context(), ledger.NewKey("orders", "/test", "warm"), func(pgx.Tx) error {
		_, err := near.Commit(t.Context(), offers("warm", 1, 10)[0])
		return err
	}); err != nil {
		t.Log(err)
	}
	key := ledger.NewKey("orders", "/test", "once")
	var waiter sync.WaitGroup
	won, err := far.Once(t.Context(), key, func(pgx.Tx) error {
		waiter.Go(func() { // the server has been waiting for the client for half of the round trip
			won, err := sinktest.UntilDecided(func() (bool, error) { return near.Once(t.Context(), key, func(pgx.Tx) error { return nil }) })
			if err != nil || won {
				t.Errorf("the near cluster: won %t, %v", won, err)
			}
		})
		return nil
	})
	if err != nil || !won {
		t.Errorf("the far cluster: won %t, %v", won, err)
	}
	waiter.Wait()
}
