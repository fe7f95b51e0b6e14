package inflight

import (
	"testing"
	"time"
)

// BenchmarkBacklog measures the second of two clusters processing its half of a backlog,
// one event an operation, while the first one commits the other half equally fast.
func BenchmarkBacklog(b *testing.B) {
	t := newBench(b, Config{InFlight: 1024, MaxBytes: 64 << 20, CatchUpLag: time.Second})
	t.SetPreference(oddBlocks)
	t.events = 128
	arrived := t.now.Add(-time.Minute)
	b.ReportAllocs()
	var done uint64 // by the first cluster
	for handled := 0; handled < b.N; {
		if _, n := t.partition.Has(0); n < 24576 {
			t.receive(1024, "", 300, arrived)
		}
		_, entries, _ := t.request()
		if entries != nil {
			handled += len(entries)
			done = max(done, entries[len(entries)-1].Sequence())
			t.answer(entries, Finish, 0, 5*time.Millisecond)
		}
		if handled%(64*128) == 0 {
			t.partition.Confirm(t.next-min(t.next, 49152), false, t.now, nil)
		}
		for t.lookups.len() > 0 {
			entries := t.NextLookup(4096)
			committed := make([]bool, len(entries))
			for i, e := range entries {
				committed[i] = e.Sequence() <= done && !oddBlocks(e)
			}
			t.LookedUp(entries, committed)
		}
		t.now = t.now.Add(5 * time.Millisecond)
	}
}
