package clusters_test

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// requests is how many requests a cluster's function was sent, by its own count.
func requests(t *testing.T, c *devcluster.Cluster) int {
	t.Helper()
	n, ok := metric(t, c.FunctionMetricsURL(), "tandem_function_requests_total")
	if !ok {
		return 0 // none was answered yet
	}
	return n
}

// metric adds up what a metric has for all labels.
func metric(t *testing.T, url, name string) (sum int, found bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, name); ok && strings.HasPrefix(rest, "{") {
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
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	consumer, err := js.Consumer(ctx, inputStream, "tandem-"+c.Name()+"-"+c.FunctionName())
	if err != nil {
		t.Fatal(err)
	}
	delivered := consumer.CachedInfo().Delivered
	return delivered.Consumer - delivered.Stream // every message of the stream is for it
}

func TestAHedgingClusterIsNotAskedUntilTheOtherOneDies(t *testing.T) {
	t.Parallel()
	// On a busy machine the other cluster may take longer than one would choose.
	const delay = 10 * time.Second
	w := newWorldWith(t, 400, nil, []string{"TANDEM_HEDGE=" + delay.String()})
	east, west := w.Clusters()[0], w.Clusters()[1]
	w.waitFor(t, 5000)
	// A lookup has 400 ms. On a busy machine one may take longer, and then a few events
	// are delivered without it, which another cluster has committed.
	if n, won := requests(t, west), w.won(t, west); n > 5000/100 || won != 0 {
		t.Errorf("the hedging cluster's function got %d requests and won %v events while the other one was healthy", n, won)
	}
	if skipped, _ := metric(t, west.MetricsURL(), "tandem_source_skipped_total"); skipped == 0 {
		t.Error("the hedging cluster's source has skipped nothing")
	}
	w.poll(t, "the other cluster has committed less than 4000 events", func(context.Context) bool { return w.won(t, east) >= 4000 })

	// TestAnEventIsDeliveredAtItsDelayAndWithinASecondIfTheLedgerIsSilent, in
	// eventing/source, has the time that this takes. Here, on a machine of any speed:
	// the hedging cluster holds the events and needs no redelivery by the stream.
	east.Vanish()
	died := time.Now()
	w.poll(t, "the hedging cluster commits nothing", func(context.Context) bool { return w.won(t, west) > 0 })
	t.Logf("delay %s: first commit of the hedging cluster %s after the other one died", delay, time.Since(died).Round(time.Millisecond))
	if n := redelivered(t, w, west); n != 0 {
		t.Errorf("the stream redelivered %d messages to the hedging cluster before its first commit", n)
	}
	w.finish(t, west)
	if n := requests(t, west); n == 0 || n > 20_000-4000 {
		t.Errorf("the hedging cluster's function got %d requests in all", n)
	}
}

func TestRedundancyIsSwitchedWhileEventsFlow(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, 700, nil, []string{"TANDEM_HEDGE=standby"})
	east, west := w.Clusters()[0], w.Clusters()[1]
	set := func(cluster, value string) {
		t.Helper()
		if err := (jetstream.Hedges{Conn: w.Conn}).Set(t.Context(), "flights", cluster, value); err != nil {
			t.Fatal(err)
		}
	}
	progress := ledger.NewCheckpoints(w.Pool, "")
	expect := func(want ...string) {
		t.Helper()
		w.poll(t, "not switched to "+strings.Join(want, " and "), func(ctx context.Context) bool {
			clusters, err := progress.Clusters(ctx, "flights")
			return err == nil && len(clusters) == 2 && clusters[0].Hedge == want[0] && clusters[1].Hedge == want[1]
		})
	}

	// West was alone when it began, if it came first, and stands by now.
	expect("0", "standby")
	before := -1
	w.poll(t, "what was under way does not end", func(context.Context) bool {
		last := before
		before = requests(t, west)
		time.Sleep(time.Second)
		return before == last
	})
	w.waitFor(t, 4000)
	if n := requests(t, west); n != before {
		t.Errorf("the function got %d requests while its cluster stood by", n-before)
	}

	// All at once; and back.
	set("", "50ms")
	expect("50ms", "50ms")
	if log, err := os.ReadFile(west.Source.LogFile()); err != nil || !strings.Contains(string(log), "standby ended") {
		t.Errorf("no word about the backlog: %v", err)
	}
	w.waitFor(t, 6000)
	set("", "race")
	expect("0", "0")

	// One of them refuses to stand by.
	set("", "standby")
	w.poll(t, "none stands by, or both", func(ctx context.Context) bool {
		clusters, err := progress.Clusters(ctx, "flights")
		return err == nil && (clusters[0].Hedge == "standby") != (clusters[1].Hedge == "standby")
	})
	w.waitFor(t, 9000)
	clusters, err := progress.Clusters(t.Context(), "flights")
	if err != nil || clusters[0].Hedge == clusters[1].Hedge {
		t.Errorf("clusters %+v, %v", clusters, err)
	}

	// Swapped.
	set("west", "0")
	set("east", "standby")
	expect("standby", "0")
	east.Vanish()
	w.finish(t, west)
}
