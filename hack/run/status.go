package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// status is one observation of the run.
type status struct {
	elapsed time.Duration

	published int64 // acknowledged events of the feed, including earlier runs
	feedTotal int64 // 0 if unknown
	skipped   int64
	complete  bool

	eventsPerSecond float64

	rows, outputs, backlog figure

	clusters []clusterStatus
}

// clusterStatus is the line of a cluster.
type clusterStatus struct {
	name     string
	counts   counts
	p50, p99 figure // milliseconds
	lag      figure
	restarts int
}

// figure is a number that may be unknown.
type figure struct {
	value float64
	known bool
}

func known(v float64) figure { return figure{value: v, known: true} }

// count formats an integer with a comma before every three digits.
func count(v float64) string {
	digits := strconv.FormatInt(int64(math.Round(math.Abs(v))), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if v < 0 {
		return "-" + digits
	}
	return digits
}

func (f figure) count() string {
	if !f.known {
		return "–"
	}
	return count(f.value)
}

// millis formats milliseconds with a sensible number of digits.
func (f figure) millis() string {
	switch {
	case !f.known:
		return "–"
	case f.value < 100:
		return strconv.FormatFloat(f.value, 'f', 1, 64)
	default:
		return count(f.value)
	}
}

func (s status) progress() string {
	text := count(float64(s.published))
	if s.feedTotal > 0 {
		text += " of " + count(float64(s.feedTotal))
	}
	if s.skipped > 0 {
		text += ", " + count(float64(s.skipped)) + " skipped"
	}
	return text
}

func seconds(d time.Duration) string {
	return strconv.Itoa(int(d.Round(time.Second).Seconds())) + " s"
}

// table returns the status for a terminal of 80 columns or more.
func (s status) table() []string {
	lines := []string{
		fmt.Sprintf("%s  fed %s  %s events/s  rows %s  outputs %s  outbox %s", seconds(s.elapsed), s.progress(),
			count(s.eventsPerSecond), s.rows.count(), s.outputs.count(), s.backlog.count()),
		fmt.Sprintf("%-7s %9s %7s %7s %8s %6s %6s %6s %6s %8s", "cluster", "delivered", "won", "lost", "rejected", "failed",
			"p50 ms", "p99 ms", "lag", "restarts"),
	}
	for _, c := range s.clusters {
		lines = append(lines, fmt.Sprintf("%-7s %9s %7s %7s %8s %6s %6s %6s %6s %8d", c.name, count(c.counts.delivered),
			count(c.counts.won), count(c.counts.lost), count(c.counts.rejected), count(c.counts.failed),
			c.p50.millis(), c.p99.millis(), c.lag.count(), c.restarts))
	}
	return lines
}

// line returns the status for a file.
func (s status) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: fed %s, %s/s, rows %s, outputs %s, outbox %s", seconds(s.elapsed), s.progress(),
		count(s.eventsPerSecond), s.rows.count(), s.outputs.count(), s.backlog.count())
	for _, c := range s.clusters {
		fmt.Fprintf(&b, " | %s delivered %s won %s lost %s rejected %s failed %s p50 %s p99 %s ms lag %s", c.name,
			count(c.counts.delivered), count(c.counts.won), count(c.counts.lost), count(c.counts.rejected),
			count(c.counts.failed), c.p50.millis(), c.p99.millis(), c.lag.count())
	}
	return b.String()
}
