package jetstream_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestWhatIsSetForOneClusterWinsOverWhatIsSetForAll(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	hedges := jetstream.Hedges{Conn: conn}
	east, west := jetstream.NewHedgeSwitch(conn, "east", ""), jetstream.NewHedgeSwitch(conn, "west", "")
	set := func(cluster, value string) {
		t.Helper()
		if err := hedges.Set(t.Context(), "flights", cluster, value); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(wantEast, wantWest string) {
		t.Helper()
		for s, want := range map[*jetstream.HedgeSwitch]string{east: wantEast, west: wantWest} {
			if got, err := s.Hedge(t.Context(), "flights"); err != nil || got != want {
				t.Errorf("hedge %q, %v, want %q", got, err, want)
			}
		}
	}

	expect("", "") // no bucket
	set("", "300ms")
	expect("300ms", "300ms")
	set("west", "standby")
	expect("300ms", "standby")
	if got, err := east.Hedge(t.Context(), "other"); err != nil || got != "" {
		t.Errorf("of another function: %q, %v", got, err)
	}
	all, err := hedges.All(t.Context(), "flights")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"": "300ms", "west": "standby"}, all); diff != "" {
		t.Errorf("set (-want +got):\n%s", diff)
	}
	set("", "0") // all at once
	expect("0", "0")
	set("west", "1s")
	set("west", "")
	expect("0", "0")
	set("", "")
	expect("", "")

	// By hand, with another client.
	kv, err := native(t, server).KeyValue(t.Context(), jetstream.HedgeBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "flights.east", " standby\n"); err != nil {
		t.Fatal(err)
	}
	expect("standby", "")
	if err := native(t, server).DeleteKeyValue(t.Context(), jetstream.HedgeBucket); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "there is no bucket", func() bool {
		got, err := east.Hedge(t.Context(), "flights")
		return err == nil && got == ""
	})
}

func TestABucketThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	s := jetstream.NewHedgeSwitch(conn, "east", "")
	if err := (jetstream.Hedges{Conn: conn}).Set(t.Context(), "flights", "", "300ms"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Hedge(t.Context(), "flights"); err != nil || got != "300ms" {
		t.Fatalf("%q, %v", got, err)
	}
	server.Stop()
	eventtest.Eventually(t, "the loss is noticed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Hedge(ctx, "flights")
		return errors.Is(err, jetstream.ErrNotConnected)
	})
	server.Restart(t)
	eventtest.Eventually(t, "it can be read again", func() bool {
		got, err := s.Hedge(t.Context(), "flights")
		return err == nil && got == "300ms"
	})
}
