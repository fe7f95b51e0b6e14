package clusters_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// requests returns how many requests a cluster's function has received, by its
// own count.
func requests(t *testing.T, c *devcluster.Cluster) int {
	t.Helper()
	n, ok := metric(t, c.FunctionMetricsURL(), "tandem_function_requests_total")
	if !ok {
		return 0 // none was answered yet
	}
	return n
}

// metric returns the sum of a metric over all labels, or over those that contain a
// text.
func metric(t *testing.T, url, name string, label ...string) (sum int, found bool) {
	t.Helper()
	var text []byte
	poll(t, "no metrics at "+url, func(ctx context.Context) bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer func() { _ = res.Body.Close() }()
		text, err = io.ReadAll(res.Body)
		return err == nil && res.StatusCode == http.StatusOK
	})
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, name); ok && strings.HasPrefix(rest, "{") && strings.Contains(rest, strings.Join(label, "")) {
			value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += int(value)
			found = true
		}
	}
	return sum, found
}

// redelivered returns how many deliveries to a cluster's source were not the first of
// their message.
func redelivered(t *testing.T, w *world, c *devcluster.Cluster) uint64 {
	t.Helper()
	js, err := natsjs.New(w.NC)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := jetstream.Ask(t.Context(), func(ctx context.Context) (natsjs.Consumer, error) {
		return js.Consumer(ctx, inputStream, "tandem-"+c.Name()+"-"+c.FunctionName())
	})
	if err != nil {
		t.Fatal(err)
	}
	delivered := consumer.CachedInfo().Delivered
	return delivered.Consumer - delivered.Stream // all messages of the stream are delivered to it
}

func TestAHedgingClusterIsNotAskedUntilTheOtherOneDies(t *testing.T) {
	t.Parallel()
	// On a busy machine the other cluster may need a long time.
	const delay = 10 * time.Second
	w := newWorldWith(t, 400, nil, []string{"TANDEM_HEDGE=" + delay.String()})
	east, west := w.Clusters()[0], w.Clusters()[1]
	w.waitFor(t, 2000)
	w.poll(t, "the other cluster has committed less than 1600 events", func(context.Context) bool { return w.won(t, east) >= 1600 })
	w.poll(t, "the hedging cluster's source skips nothing", func(context.Context) bool {
		skipped, _ := metric(t, west.MetricsURL(), "tandem_source_skipped_total")
		return skipped > 0
	})
	// A lookup times out after 400 ms. On a busy machine one may take longer; then its
	// events are delivered without it, although another cluster has committed them.
	if n := requests(t, west); n > 1600/2 {
		t.Errorf("the hedging cluster's function got %d requests while the other one was healthy", n)
	}
	// On a busy machine the other cluster may be late, too; but no event is won before its
	// delay.
	w.checkDelay(t, west, delay)

	// TestAnEventIsDeliveredAtItsDelayAndWithinASecondIfTheLedgerIsSilent, in
	// eventing/source, checks the time that this takes. This test runs on a machine
	// of any speed: the hedging cluster holds the events and needs no redelivery by
	// the stream.
	east.Vanish()
	died, before := time.Now(), w.won(t, west)
	w.poll(t, "the hedging cluster commits nothing", func(context.Context) bool { return w.won(t, west) > before })
	t.Logf("delay %s: first commit of the hedging cluster %s after the other one died", delay, time.Since(died).Round(time.Millisecond))
	if n := redelivered(t, w, west); n != 0 {
		t.Errorf("the stream redelivered %d messages to the hedging cluster before its first commit", n)
	}
	w.finish(t, west)
	if n, won := int64(requests(t, west)), w.won(t, east); n == 0 || n > w.supply.total()-won/2 {
		t.Errorf("the hedging cluster's function got %d requests in all, and the other one has won %d events", n, won)
	}
}

// committed returns the keys and commit times that a query returns.
func (w *world) committed(t *testing.T, sql string, args ...any) map[ledger.Key]time.Time {
	t.Helper()
	rows, err := w.Pool.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	committed := map[ledger.Key]time.Time{}
	var key [16]byte
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&key, &at}, func() error {
		committed[key] = at
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return committed
}

// checkDelay checks that a hedging cluster has won no event before its delay.
func (w *world) checkDelay(t *testing.T, c *devcluster.Cluster, delay time.Duration) {
	t.Helper()
	won := w.committed(t, `select key, committed_at from tandem.ledger join tandem.writer using (writer) where cluster = $1`, c.Name())
	if len(won) == 0 {
		return
	}
	js, err := natsjs.New(w.NC)
	if err != nil {
		t.Fatal(err)
	}
	inOrder(t, js, int(w.feed.Published()), func(m natsjs.Msg) struct{} {
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		id := m.Headers().Get("ce-id")
		if at, ok := won[ledger.NewKey(c.FunctionName(), m.Headers().Get("ce-source"), id)]; ok && at.Sub(meta.Timestamp) < delay {
			t.Errorf("event %s was won by the hedging cluster %s after it was stored, want at least %s", id, at.Sub(meta.Timestamp), delay)
		}
		return struct{}{}
	})
}

func TestRedundancyIsSwitchedWhileEventsFlow(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, 700, nil, []string{"TANDEM_HEDGE=standby"})
	east, west := w.Clusters()[0], w.Clusters()[1]
	progress := ledger.NewCheckpoints(w.Pool, "")
	set := func(cluster, value string) {
		t.Helper()
		if err := progress.SetHedge(t.Context(), "flights", cluster, value); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...string) {
		t.Helper()
		w.poll(t, "not switched to "+strings.Join(want, " and "), func(ctx context.Context) bool {
			clusters, err := progress.Clusters(ctx, "flights")
			return err == nil && len(clusters) == 2 && clusters[0].Hedge == want[0] && clusters[1].Hedge == want[1]
		})
	}

	// West was alone when it started, if it was first, and stands by now.
	expect("0", "standby")
	before := -1
	w.poll(t, "requests under way do not end", func(context.Context) bool {
		last := before
		sending, _ := metric(t, west.MetricsURL(), "tandem_source_in_flight", `state="sending"`)
		before = requests(t, west)
		time.Sleep(time.Second)
		return sending == 0 && before == last
	})
	w.more(t, 1500)
	if n := requests(t, west); n != before {
		t.Errorf("the function got %d requests while its cluster stood by", n-before)
	}

	// All at once, and back.
	set("", "50ms")
	expect("50ms", "50ms")
	w.poll(t, "no word about the backlog", func(context.Context) bool {
		log, err := os.ReadFile(west.Source.LogFile())
		return err == nil && strings.Contains(string(log), "standby ended")
	})
	w.more(t, 1000)
	set("", "race")
	expect("0", "0")

	// One of them refuses to stand by, although the row was written without a check.
	if _, err := w.Pool.Exec(t.Context(), `update tandem.hedge set value = 'standby'`); err != nil {
		t.Fatal(err)
	}
	w.poll(t, "none stands by, or both", func(ctx context.Context) bool {
		clusters, err := progress.Clusters(ctx, "flights")
		return err == nil && (clusters[0].Hedge == "standby") != (clusters[1].Hedge == "standby")
	})
	w.more(t, 1500)
	clusters, err := progress.Clusters(t.Context(), "flights")
	if err != nil || clusters[0].Hedge == clusters[1].Hedge {
		t.Errorf("clusters %+v, %v", clusters, err)
	}

	// Swapped.
	set("west", "0")
	w.poll(t, "west does not leave standby", func(ctx context.Context) bool {
		clusters, err := progress.Clusters(ctx, "flights")
		return err == nil && clusters[1].Hedge == "0"
	})
	set("east", "standby")
	expect("standby", "0")
	east.Vanish()
	w.finish(t, west)
}
