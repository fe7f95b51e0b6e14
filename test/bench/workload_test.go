package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestEventsAreTheSameWheneverTheyAreMade(t *testing.T) {
	t.Parallel()

	for _, w := range []workload{{}, {first: 10_000_001}, {random: true}, {hot: true}, {hot: true, money: true}} {
		if diff := cmp.Diff(w.offer(123), w.offer(123)); diff != "" {
			t.Errorf("%+v: two makings of an offer differ (-first +second):\n%s", w, diff)
		}
	}
}

func TestAnEventIsARowAndAnOutputOfAbout200Bytes(t *testing.T) {
	t.Parallel()

	offer := workload{}.offer(123)
	if got := offer.Event.ID(); got != "event-00000123" {
		t.Errorf("the id is %s, want event-00000123", got)
	}
	size := 16 // amount and time
	for _, v := range offer.Effects.Writes[0].Row {
		if s, ok := v.(string); ok {
			size += len(s)
		}
	}
	out, err := offer.Effects.Outputs[0].Event(offer.Function, offer.Event, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]int{"row": size, "output": len(out.Data())} {
		if got < 150 || got > 250 {
			t.Errorf("the %s has %d bytes, want about 200", name, got)
		}
	}
}

func TestKeysAreInOrderUnlessRandomOnesAreAskedFor(t *testing.T) {
	t.Parallel()

	key := func(w workload, n int) string {
		o := w.offer(n)
		return ledger.NewKey(o.Function, o.Event.Source(), o.Event.ID()).String()
	}
	w := workload{first: 10_000_001}
	if low, high := key(w, 0), key(w, 1); !strings.HasPrefix(low, "00000098-9681-") || low >= high {
		t.Errorf("keys of events 10000001 and 10000002 are %s and %s, want 00000098-9681-… and a higher one", low, high)
	}
	w.random = true
	if _, ok := functions.Order(w.offer(0).Event.ID()); ok {
		t.Errorf("id %s has an order, want none", w.offer(0).Event.ID())
	}
}

func BenchmarkOffer(b *testing.B) {
	b.ReportAllocs()
	var w workload
	for n := range b.N {
		w.offer(n)
	}
}
