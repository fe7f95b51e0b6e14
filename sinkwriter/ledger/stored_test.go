package ledger_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestStoredEventsKeepTheOrderOfTheirSubject(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	east, west := ledger.NewBlocked(pool, "east"), ledger.NewBlocked(pool, "west")
	var events []ledger.StoredEvent
	for i := range 200 {
		events = append(events, ledger.StoredEvent{
			Subject: []string{"b", "a"}[i%2], Source: "test", ID: fmt.Sprint(1000 - i), Stream: "EVENTS", Sequence: uint64(i) + 1<<63,
			Arrived: time.UnixMilli(int64(i)).UTC(), Event: []byte(`{"id":"\u0000"}`),
		})
	}
	all := func(want bool) []bool {
		list := make([]bool, len(events))
		for i := range list {
			list[i] = want
		}
		return list
	}
	for _, want := range []bool{true, false} {
		stored, err := east.Store(t.Context(), "f", events)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(all(want), stored); diff != "" {
			t.Errorf("stored now (-want +got)\n%s", diff)
		}
	}
	if _, err := west.Store(t.Context(), "f", events[:1]); err != nil {
		t.Fatal(err)
	}
	if _, err := east.Store(t.Context(), "g", events[:1]); err != nil {
		t.Fatal(err)
	}

	counts, err := east.Stored(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	want := []ledger.StoredCount{{Subject: "a", Events: 100, Bytes: 1500}, {Subject: "b", Events: 100, Bytes: 1500}}
	if diff := cmp.Diff(want, counts, cmpopts.SortSlices(func(a, b ledger.StoredCount) bool { return a.Subject < b.Subject })); diff != "" {
		t.Errorf("counts (-want +got)\n%s", diff)
	}

	// In pieces, and as a whole.
	var got []ledger.StoredEvent
	for {
		some, err := east.Load(t.Context(), "f", []string{"b", "none"}, 30)
		if err != nil {
			t.Fatal(err)
		}
		if len(some) == 0 {
			break
		}
		var positions []int64
		for _, e := range some {
			positions = append(positions, e.Position)
		}
		got = append(got, some...)
		if err := east.Delete(t.Context(), "f", positions); err != nil {
			t.Fatal(err)
		}
	}
	var ofB []ledger.StoredEvent
	for _, e := range events {
		if e.Subject == "b" {
			ofB = append(ofB, e)
		}
	}
	if diff := cmp.Diff(ofB, got, cmpopts.IgnoreFields(ledger.StoredEvent{}, "Position")); diff != "" {
		t.Errorf("subject b (-want +got)\n%s", diff)
	}
	for _, other := range []struct {
		blocked  *ledger.Blocked
		function string
		want     int
	}{{east, "f", 100}, {west, "f", 1}, {east, "g", 1}} {
		some, err := other.blocked.Load(t.Context(), other.function, []string{"a", "b"}, 1000)
		if err != nil || len(some) != other.want {
			t.Errorf("%d are left of function %s, err %v; want %d", len(some), other.function, err, other.want)
		}
	}
}

func TestEventsWithLongSubjectsAreStored(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	b := ledger.NewBlocked(pool, "east")
	random := rand.NewChaCha8([32]byte{15}) // incompressible: an index accepts longer texts that can be compressed
	long := make([]byte, 20_000)
	_, _ = random.Read(long)
	subject := base64.StdEncoding.EncodeToString(long)
	var events []ledger.StoredEvent
	for i := range 20 {
		events = append(events, ledger.StoredEvent{
			Subject: subject + fmt.Sprint(i%2), Source: "test", ID: fmt.Sprint(i), Stream: "EVENTS", Sequence: uint64(i), Arrived: time.UnixMilli(int64(i)).UTC(), Event: []byte(`{}`),
		})
	}
	if _, err := b.Store(t.Context(), "f", events); err != nil {
		t.Fatal(err)
	}
	got, err := b.Load(t.Context(), "f", []string{subject + "1"}, 5)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range got {
		ids = append(ids, e.ID)
	}
	if diff := cmp.Diff([]string{"1", "3", "5", "7", "9"}, ids); diff != "" {
		t.Errorf("events of the subject (-want +got)\n%s", diff)
	}
}
