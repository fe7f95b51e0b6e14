package inflight

import (
	"testing"
	"time"
)

func TestRedeliveriesTakeATenthAndAreSpread(t *testing.T) {
	isModel(t)
	t.Parallel()

	b := newBench(t, Config{MaxBytes: 64 << 20, InFlight: 1024})
	b.events = 1
	answers := func(eventType string) Next {
		if eventType == "bad" {
			return Retry
		}
		return Finish
	}
	for range 20 {
		b.receiveType(1000, "bad") // like after an outage
	}
	b.runTypes(time.Second, func() {}, answers)
	all := b.runTypes(5*time.Second, func() { b.receiveType(4, "good") }, answers)
	good, second := 0, map[int]int{}
	begun := all[0].at
	for _, s := range all {
		if s.eventType == "good" {
			good++
		} else {
			second[int(s.at.Sub(begun)/(100*time.Millisecond))]++
		}
	}
	if good != 4*5000 {
		t.Errorf("%d good events are sent, want all", good)
	}
	// A good event takes 1 ms, a redelivery costs 2: 0.4 s and a ninth of 4 s in a second.
	const most = (400 + 4000/9) / 2 / 10
	for at, n := range second {
		if n > most+int(retryBurst/minRetryCost)+1 {
			t.Errorf("%d redeliveries in tenth %d of a second, want at most %d", n, at, most)
		}
	}
	if redelivered := len(all) - good; redelivered < 40*most {
		t.Errorf("%d redeliveries in 5 s, want about %d", redelivered, 50*most)
	}
}

func TestRedeliveriesThatHangTakeATenthOfTheRequests(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{InFlight: 40, MaxBytes: 64 << 20})
	b.events = 1
	b.receiveType(40, "bad")
	b.runTypes(time.Millisecond, func() {}, func(string) Next { return Retry })
	open := 0
	for range 1000 {
		b.now = b.now.Add(10 * time.Millisecond)
		if _, entries, _ := b.request(); entries != nil {
			open++
		}
	}
	if open != 40/retryShare {
		t.Errorf("%d redeliveries are in requests, want %d of 40", open, 40/retryShare)
	}
}

// A single event that fails occasionally is retried when it is due.
func TestOneFailingEventWaitsForNoBudget(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{})
	b.receiveType(1, "bad")
	_, entries, _ := b.request()
	b.answer(entries, Retry, time.Second, 3*time.Second)
	b.now = b.now.Add(time.Second)
	if _, entries, _ := b.request(); len(entries) != 1 {
		t.Error("it is not sent when it is due")
	}
}

// Events that hang leave half of the requests to others, even before the first attempt of
// any of them has ended.
func TestEventsThatHangLeaveRequestsToOthers(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{InFlight: 40, MaxBytes: 64 << 20})
	b.receiveType(200, "hangs")
	hangs := 0
	for {
		_, entries, wait := b.request()
		switch {
		case entries == nil && b.together.Len() > 0:
			b.now = b.now.Add(wait)
			continue
		case entries == nil:
		case entries[0].slow:
			hangs++
			continue
		default:
			b.answer(entries, Pending, 0, time.Millisecond)
			continue
		}
		break
	}
	if hangs != 40/slowShare {
		t.Errorf("%d slow events are in requests, want %d of 40", hangs, 40/slowShare)
	}
	all := b.runTypes(time.Second, func() { b.receiveType(1, "good") }, func(string) Next { return Finish })
	good := 0
	for _, s := range all {
		if s.eventType == "good" {
			good++
		}
	}
	if good != 1000 {
		t.Errorf("%d of 1000 other events are sent", good)
	}
}
