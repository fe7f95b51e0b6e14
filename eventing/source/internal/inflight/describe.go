package inflight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// describedEntries is how many entries of a partition [Table.String] describes: the first ones,
// which hold its floor.
const describedEntries = 12

// String describes the table and the reasons for which the first entries of each partition
// wait. Failing tests print it.
func (t *Table) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	now := t.cfg.Now()
	since := func(at time.Time) string {
		if at.IsZero() {
			return "never"
		}
		return now.Sub(at).String()
	}
	fmt.Fprintf(&b, "hedge=%s in_flight=%d rate=%d max_bytes=%d ordered=%t ledger=%t lease=%t closed=%t woken=%t\n",
		t.hedge, t.cfg.InFlight, t.cfg.Rate, t.cfg.MaxBytes, t.cfg.Ordered, t.cfg.Ledger, t.cfg.Lease, t.closed, len(t.wake) > 0)
	fmt.Fprintf(&b, "requests: sending=%d open=%d together=%d alone=%d slow=%d again=%d retrying=%d saved=%s cost=%s takes=%s sent=%s\n",
		t.sending, t.open, t.together.Len(), t.alone.Len(), t.slow.Len(), t.again.Len(), t.retrying, t.saved, t.cost, t.takes, since(t.sentAt))
	fmt.Fprintf(&b, "lookups: queued=%d under_way=%d failing=%t left=%d left_asked=%d committed=%.2f lagging=%t helping=%d checking=%d\n",
		t.lookups.len(), t.asking, t.failing, t.left.len(), t.leftAsked, t.committed, t.lagging, t.helping, t.checking)
	fmt.Fprintf(&b, "suspects: queue=%d trial=%t asides=%d undecided=%d strikes=%d healthy=%t since=%s broke=%s down=%s outages=%s\n",
		t.queue.Len(), t.trial != nil, t.asides, t.undecided, len(t.pending), t.healthy, since(t.healthySince), since(t.brokeAt), since(t.downSince), t.outages)
	fmt.Fprintf(&b, "waiting=%d to_defer=%d stored=%d behind=%v to_store=%d blocked_known=%t blocked=%v silent=%d\n",
		t.waiting.Len(), len(t.toDefer), t.storedCount, t.behind, len(t.toStore), t.blocked != nil, t.blocked, t.silent)
	for _, c := range t.probed {
		fmt.Fprintf(&b, "probed type %q: harm=%t held=%d probes=%d window=%d next=%s breaks=%d broken_trials=%d\n",
			c.eventType, c.harm, c.held.Len(), c.probes, c.window, c.probeAt.Sub(now), c.breaks, c.brokenTrials)
	}
	for i, p := range t.partitions {
		p.describe(&b, i)
	}
	return b.String()
}

func (p *Partition) describe(b *strings.Builder, number int) {
	t := p.table
	name := fmt.Sprint(number)
	switch p {
	case t.storedPart:
		name = "stored"
	case t.deferredPart:
		name = "deferred"
	}
	fmt.Fprintf(b, "partition %s: complete=%t entries=%d of %d bytes=%d of %d fits=%d lanes=%d unconfirmed=%d look_up_below=%d lagging=%t starved=%t",
		name, p.complete, p.entries.len(), t.mostEntries(p), p.bytes, t.share(), p.fits(), len(p.lanes), len(p.unconfirmed), p.lookUpBelow, p.lagging, p.starved())
	for s, n := range p.counts {
		if n > 0 {
			fmt.Fprintf(b, " %s=%d", State(s), n)
		}
	}
	b.WriteByte('\n')
	entries := slices.SortedFunc(p.entries.all(), func(x, y *Entry) int { return cmp.Compare(x.sequence, y.sequence) })
	for _, e := range entries[:min(describedEntries, len(entries))] {
		e.describe(b)
	}
}

func (e *Entry) describe(b *strings.Builder) {
	now := e.partition.table.cfg.Now()
	fmt.Fprintf(b, "  %d %s: %s subject=%q attempts=%d lookups=%d age=%s", e.sequence, e.ID.ID, e.state, e.Subject, e.attempts, e.lookups, now.Sub(e.received))
	if e.state == stateWaiting {
		fmt.Fprintf(b, " due=%s retry=%t hedged=%t", e.due.Sub(now), e.retry, e.hedged)
	}
	for _, flag := range []struct {
		name string
		is   bool
	}{
		{"evicted", e.Evicted},
		{"taken", e.taken},
		{"early", e.early},
		{"failing", e.failing},
		{"slow", e.slow},
		{"mine", e.mine},
		{"dead_letter", e.Delivery.DeadLetter},
		{"alone", e.Delivery.Alone},
		{"probing", e.probing != nil},
		{"suspect", e.suspect},
		{"chosen", e.chosen},
		{"aside", e.aside},
		{"running", e.lane != nil && e.lane.running == e},
	} {
		if flag.is {
			b.WriteString(" " + flag.name)
		}
	}
	if e.breaks > 0 || e.Delivery.Strikes > 0 {
		fmt.Fprintf(b, " breaks=%d strikes=%d", e.breaks, e.Delivery.Strikes)
	}
	if s := e.strike; s != nil {
		fmt.Fprintf(b, " strike_until=%s others=%d", s.until.Sub(now), s.others)
	}
	if l := e.lane; l != nil && l.running != nil && l.running != e {
		fmt.Fprintf(b, " behind=%d", l.running.sequence)
	}
	b.WriteByte('\n')
}
