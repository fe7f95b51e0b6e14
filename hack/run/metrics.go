package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const scrapeTimeout = 900 * time.Millisecond

// counts are the counters of a source.
type counts struct {
	delivered, won, lost, rejected, failed float64

	commit histogram // seconds from arrival to commit
}

// histogram is cumulative: the number of values up to each bound, in increasing
// order; the last bound is infinite.
type histogram struct {
	bounds, upTo []float64
}

func (h histogram) count() float64 {
	if len(h.upTo) == 0 {
		return 0
	}
	return h.upTo[len(h.upTo)-1]
}

// combine adds or, with sign -1, subtracts a histogram with the same bounds; an
// empty histogram takes over the other's bounds.
func (h histogram) combine(sign float64, o histogram) histogram {
	if len(o.bounds) == 0 {
		return h
	}
	sum := histogram{bounds: o.bounds, upTo: make([]float64, len(o.upTo))}
	for i := range sum.upTo {
		sum.upTo[i] = sign * o.upTo[i]
		if i < len(h.upTo) {
			sum.upTo[i] += h.upTo[i]
		}
	}
	return sum
}

// quantile returns the value that a share q of all values do not exceed,
// interpolated within a bucket; false if there are no values.
func (h histogram) quantile(q float64) (float64, bool) {
	total := h.count()
	if total <= 0 {
		return 0, false
	}
	rank := q * total
	i, _ := slices.BinarySearch(h.upTo, rank)
	var low, below float64
	if i > 0 {
		low, below = h.bounds[i-1], h.upTo[i-1]
	}
	if math.IsInf(h.bounds[i], 1) {
		return low, true // only a lower bound is known
	}
	if in := h.upTo[i] - below; in > 0 {
		return low + (h.bounds[i]-low)*(rank-below)/in, true
	}
	return h.bounds[i], true
}

func (c counts) combine(sign float64, o counts) counts {
	return counts{
		delivered: c.delivered + sign*o.delivered,
		won:       c.won + sign*o.won,
		lost:      c.lost + sign*o.lost,
		rejected:  c.rejected + sign*o.rejected,
		failed:    c.failed + sign*o.failed,
		commit:    c.commit.combine(sign, o.commit),
	}
}

// scrape reads a source's counters.
func scrape(ctx context.Context, url string) (counts, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return counts{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return counts{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return counts{}, fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return parseCounts(resp.Body)
}

func parseCounts(r io.Reader) (counts, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return counts{}, fmt.Errorf("read metrics: %w", err)
	}
	if families["tandem_source_delivered_total"] == nil {
		return counts{}, errors.New("read metrics: there is no tandem_source_delivered_total")
	}
	receipts := families["tandem_source_receipts_total"]
	c := counts{
		delivered: sum(families["tandem_source_delivered_total"], ""),
		won:       sum(receipts, "won"),
		lost:      sum(receipts, "lost"),
		rejected:  sum(families["tandem_source_rejected_total"], ""),
		failed:    sum(families["tandem_source_failed_total"], ""),
	}
	for _, m := range families["tandem_source_commit_seconds"].GetMetric() {
		c.commit = c.commit.combine(1, readHistogram(m.GetHistogram()))
	}
	return c, nil
}

// sum returns the sum of the counters of a family, only those with this
// receipt if it is not empty.
func sum(family *dto.MetricFamily, receipt string) float64 {
	var total float64
	for _, m := range family.GetMetric() {
		hasReceipt := slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
			return l.GetName() == "receipt" && l.GetValue() == receipt
		})
		if receipt == "" || hasReceipt {
			total += m.GetCounter().GetValue()
		}
	}
	return total
}

func readHistogram(h *dto.Histogram) histogram {
	var out histogram
	for _, b := range h.GetBucket() {
		out.bounds = append(out.bounds, b.GetUpperBound())
		out.upTo = append(out.upTo, float64(b.GetCumulativeCount()))
	}
	if n := len(out.bounds); n == 0 || !math.IsInf(out.bounds[n-1], 1) {
		out.bounds = append(out.bounds, math.Inf(1))
		out.upTo = append(out.upTo, float64(h.GetSampleCount()))
	}
	return out
}

// counter adds up a source's counts over its restarts, which reset them to zero,
// and stores recent ones for the current quantiles.
type counter struct {
	generation int    // of the process that was read last
	ended      counts // counts of the processes before it
	last       counts // counts of the process that was read last
	history    []counts
}

const (
	// enoughValues is the number of values that a current quantile should be
	// based on.
	enoughValues = 200

	// historySeconds is the maximum length of the period for current quantiles.
	historySeconds = 10
)

// read stores the counts of a process of this generation.
func (c *counter) read(generation int, now counts) {
	if generation != c.generation {
		c.ended = c.ended.combine(1, c.last)
		c.generation = generation
	}
	c.last = now
}

// total returns the counts of all processes.
func (c *counter) total() counts { return c.ended.combine(1, c.last) }

// tick is called once a second, after read.
func (c *counter) tick() {
	c.history = append(c.history, c.total())
	if n := len(c.history) - historySeconds - 1; n > 0 {
		c.history = slices.Delete(c.history, 0, n)
	}
}

// recent returns the times to commit of the last second, of a longer period if
// there were few, or of the whole run if there were few for long.
func (c *counter) recent() histogram {
	if len(c.history) == 0 {
		return histogram{}
	}
	now := c.history[len(c.history)-1].commit
	for _, before := range slices.Backward(c.history[:len(c.history)-1]) {
		if h := now.combine(-1, before.commit); h.count() >= enoughValues {
			return h
		}
	}
	return now
}
