package inflight

import (
	"testing"
	"time"
)

// oddBlocks is the preference of the second of two clusters.
func oddBlocks(e *Entry) bool { return e.Block()%2 == 1 }

// newBacklog returns the table of the second of two clusters that has looked up the
// given number of blocks of a backlog, none of which is committed, and the time at
// which its messages arrived.
func newBacklog(t *testing.T, blocks int) (b *bench, arrived time.Time) {
	t.Helper()

	b = newBench(t, Config{InFlight: 4, MaxBytes: 64 << 20, CatchUpLag: time.Second})
	b.SetPreference(oddBlocks)
	arrived = b.now.Add(-time.Minute)
	b.receive(blocks*blockSize, "", 10, arrived)
	b.lookUp()
	return b, arrived
}

// Entries left to a cluster that makes no progress are delivered from the head on, even
// while new messages are looked up continuously and many entries are ready.
func TestWhatNobodyCommitsIsTakenBackWhileMessagesKeepComing(t *testing.T) {
	t.Parallel()

	b, old := newBacklog(t, 4)
	if b.left.len() == 0 {
		t.Fatal("nothing is left to the other cluster")
	}
	head := b.left.entries[0]
	b.request() // the function is at its limit, and does not answer
	for waited := time.Duration(0); head.state != stateReady; waited += relookEvery {
		b.now = b.now.Add(relookEvery)
		b.receive(1, "", 10, old) // is looked up while the rest is decided
		b.request()
		taken := b.NextLookup(1)
		b.lookUp()
		b.LookedUp(taken, make([]bool, len(taken)))
		if waited > leftPatience+4*relookEvery {
			t.Fatalf("the head is left after %s without progress", waited)
		}
	}
}

// Events that the other cluster commits are acknowledged without a delivery, even while
// new messages are looked up continuously.
func TestWhatTheOtherClusterCommitsIsFoundWhileMessagesKeepComing(t *testing.T) {
	t.Parallel()

	b, old := newBacklog(t, 2)
	left := b.left.len()
	b.request()
	for range 20 {
		b.now = b.now.Add(relookEvery)
		b.receive(1, "", 10, old)
		b.request()
		for b.lookups.len() > 0 {
			entries := b.NextLookup(1000)
			committed := make([]bool, len(entries))
			for i, e := range entries {
				committed[i] = !oddBlocks(e)
			}
			b.LookedUp(entries, committed)
		}
	}
	if left == 0 || b.left.len() > 0 {
		t.Errorf("%d of %d are still left though they are committed", b.left.len(), left)
	}
}

// The other clusters that catch up may become known only when many entries are ready
// already.
func TestWhatIsReadyIsLeftToTheClusterThatGoesFirst(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{InFlight: 4, MaxBytes: 64 << 20, CatchUpLag: time.Second})
	b.receive(4*blockSize, "", 10, b.now.Add(-time.Minute))
	b.lookUp()
	b.SetPreference(oddBlocks)
	for e := range b.together.all() {
		if !oddBlocks(e) {
			t.Fatalf("%d is still ready, in a block of the other cluster", e.Sequence())
		}
	}
	if ready, left := b.Counts()[stateReady], b.Counts()[stateLeft]; ready == 0 || left == 0 {
		t.Errorf("%d ready, %d left, want some of both", ready, left)
	}
}

// While almost nothing of a backlog is committed, only samples of it are looked up first;
// all of it again when a sample is committed.
func TestABacklogThatNobodyCommitsIsHardlyLookedUp(t *testing.T) {
	t.Parallel()

	b, old := newBacklog(t, 4)
	b.receive(2*sampled*blockSize, "", 10, old)
	if n := b.lookups.len(); n < blockSize || n > 3*blockSize {
		t.Errorf("%d of %d are looked up first", n, 2*sampled*blockSize)
	}
	for b.lookups.len() > 0 {
		entries := b.NextLookup(blockSize)
		committed := make([]bool, len(entries))
		for i := range committed {
			committed[i] = true
		}
		b.LookedUp(entries, committed)
	}
	b.receive(blockSize, "", 10, old)
	if n := b.lookups.len(); n != blockSize {
		t.Errorf("%d of %d are looked up first after samples were committed", n, blockSize)
	}
}

// Entries left to a cluster that is no longer active are delivered.
func TestWhatIsLeftIsDeliveredWhenTheOtherClusterIsGone(t *testing.T) {
	t.Parallel()

	b, _ := newBacklog(t, 4)
	b.SetPreference(nil)
	b.lookUp()
	if n := b.Counts()[stateLeft]; n > 0 {
		t.Errorf("%d are still left to a cluster that is gone", n)
	}
}

// While lookups fail, only some events are delivered at a time.
func TestWhileLookupsFailTheDatabaseGetsAFewEventsAtATime(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{InFlight: 64, MaxBytes: 64 << 20, CatchUpLag: time.Second})
	b.receive(1000, "", 10, b.now.Add(-time.Minute))
	entries := b.NextLookup(1000)
	b.LookedUp(entries, nil)
	if ready := b.Counts()[stateReady]; ready == 0 || ready > 16 {
		t.Errorf("%d of %d are delivered without a lookup, want some, at most 16", ready, len(entries))
	}
	first := b.NextLookup(100)
	if first[0].Sequence() > 17 {
		t.Errorf("the next lookup begins with %d, want those that come next in order", first[0].Sequence())
	}
}
