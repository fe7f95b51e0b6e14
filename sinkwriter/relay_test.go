package sinkwriter_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
)

func TestAnOutputThatNobodyTakesHoldsUpNoOthers(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	for _, text := range []string{
		`[{"specversion":"1.0","id":"a","source":"/s","type":"t"},{"specversion":"1.0","id":"b","source":"/s","type":"t"}]`,
		`[{"specversion":"1.0","id":"bad","source":"/s","type":"t"}]`,
		`[{"specversion":"1.0","id":"unreadable"}]`,
		`[{"specversion":"1.0","id":"c","source":"/s","type":"t"}]`,
	} {
		sinktest.Execute(t, pool, `insert into tandem.outbox (due, events) values (now() - interval '1 second', $1)`, text)
	}
	var published []string
	refused := errors.New("refused")
	n, err := sinkwriter.NewOutbox(pool).Relay(t.Context(), func(_ context.Context, events []event.Event) error {
		if slices.ContainsFunc(events, func(e event.Event) bool { return e.ID() == "bad" }) {
			return refused
		}
		for _, e := range events {
			published = append(published, e.ID())
		}
		return nil
	})
	if n != 3 || !errors.Is(err, refused) || !strings.Contains(err.Error(), "source, type: missing") {
		t.Errorf("relayed %d, %v", n, err)
	}
	slices.Sort(published)
	if diff := cmp.Diff([]string{"a", "b", "c"}, published); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if left := sinktest.Query[int](t, pool, `select count(*) from tandem.outbox where due > now()`); left != 2 {
		t.Errorf("%d rows are left, want the two that were not published", left)
	}
}
