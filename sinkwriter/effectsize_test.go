package sinkwriter_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// untouched is a value that fails the test when it is encoded.
type untouched struct{ t *testing.T }

func (u untouched) MarshalJSON() ([]byte, error) {
	u.t.Error("effects that are too large are encoded")
	return []byte("0"), nil
}

// expanding is a small value whose encoded form is large.
type expanding struct{}

func (expanding) MarshalJSON() ([]byte, error) { return json.Marshal(strings.Repeat("x", 33<<20)) }

func TestEffectsThatAreTooLargeAreRefusedBeforeTheyAreEncoded(t *testing.T) {
	t.Parallel()

	const limit = 32 << 20
	circle := map[string]any{}
	circle["self"] = circle
	circle["too"] = circle
	text := strings.Repeat("x", limit+1)
	tests := []struct {
		name   string
		change func(*functions.Effects)
	}{
		{"a text", func(fx *functions.Effects) { fx.Insert("orders", functions.Row{"id": text, "note": untouched{t}}) }},
		{"many texts", func(fx *functions.Effects) {
			for i := range 40 {
				fx.Insert("orders", functions.Row{"id": fmt.Sprint(i), "note": untouched{t}, "tags": []string{text[:1<<20]}})
			}
		}},
		{"many small writes", func(fx *functions.Effects) {
			for i := range 500_000 {
				fx.Insert("orders", functions.Row{"id": i})
			}
			fx.Insert("orders", functions.Row{"id": "x", "note": untouched{t}})
		}},
		{"a key", func(fx *functions.Effects) {
			fx.Add("totals", functions.Row{"region": text}, functions.Row{"orders": 1})
		}},
		{"an argument", func(fx *functions.Effects) {
			fx.Exec(functions.Statement{Name: "store", SQL: "select $1::text, $2::jsonb"}, text, untouched{t})
		}},
		{"an output", func(fx *functions.Effects) {
			fx.Emit(functions.Output{Type: "x", Data: map[string]any{"text": text, "other": untouched{t}}})
		}},
		{"a circle", func(fx *functions.Effects) { fx.Insert("orders", functions.Row{"id": "x", "note": circle}) }},
		{"a value that is large once it is encoded", func(fx *functions.Effects) {
			fx.Insert("orders", functions.Row{"id": "x", "note": expanding{}})
		}},
		{"an output that is large once it is encoded", func(fx *functions.Effects) {
			fx.Emit(functions.Output{Type: "x", Data: expanding{}})
		}},
	}
	pool := sinktest.NewDatabase(t)
	const long = 10 * time.Second // a busy machine needs seconds to encode 16 MiB
	writers := map[string]*sinkwriter.Writer{
		"with digests":    sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", ClaimTimeout: long}),
		"without digests": sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", NoDivergence: true, ClaimTimeout: long}),
	}
	for _, tt := range tests {
		var fx functions.Effects
		tt.change(&fx)
		for with, w := range writers {
			_, err := w.Commit(t.Context(), sinkwriter.Offer{Function: "orders", Version: "1", Event: sinktest.NewEvent(tt.name), Effects: fx})
			var refused *sinkwriter.Error
			if !errors.As(err, &refused) || refused.Fault != sinkwriter.FaultEvent || !strings.Contains(err.Error(), fmt.Sprintf("of at most %d", limit)) {
				t.Errorf("%s, %s: error %.200v, want the event's fault, with the limit", tt.name, with, err)
			}
		}
	}
	for with, w := range writers {
		large := sinktest.Order("large, "+with, 1)
		large.Effects.Writes[0].Row["tags"] = []string{text[:2<<20]}
		if r, err := w.Commit(t.Context(), large); err != nil || !r.Won {
			t.Errorf("effects of 2 MiB: %+v, %v", r, err)
		}
	}
}
