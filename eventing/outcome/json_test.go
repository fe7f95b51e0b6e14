package outcome_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/outcome"
)

const digest = "2ac8f1f6f4b7c8e3a0d1b2c3d4e5f607"

// all has an outcome of every form.
var all = []outcome.Outcome{
	{Kind: outcome.Committed, Status: 204, Won: true, Digest: digest},
	{Kind: outcome.Committed, Status: 204, Digest: digest},
	{Kind: outcome.Committed, Status: 204, Won: true},
	{Kind: outcome.Committed, Status: 204},
	{Kind: outcome.Committed, Status: 204, Won: true, Digest: `no "hex`},
	{Kind: outcome.Committed, Status: 202, Won: true, Digest: digest},
	{Kind: outcome.Rejected, Status: 422, Reason: `function "flights": <origin> is missing: ä`},
	{Kind: outcome.Failed, Status: 500, Reason: "panic"},
	{Status: 503, Reason: "the database is unreachable", RetryAfter: 1500 * time.Millisecond},
	{Kind: outcome.Deployment, Status: 503, Reason: "r", Fingerprint: "42703 flights.gate", EffectClass: outcome.Commuting, RetryAfter: time.Second},
	{Kind: outcome.Pending},
	{},
}

func TestOutcomesAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()

	body := outcome.Append(nil, all)
	got, err := outcome.Parse(body, len(all))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	var values []map[string]any
	if err := json.Unmarshal(body, &values); err != nil || len(values) != len(all) {
		t.Errorf("%d values, %v in %s", len(values), err, body)
	}
	if none, err := outcome.Parse(outcome.Append(nil, nil), 0); err != nil || len(none) != 0 {
		t.Errorf("no outcomes are read as %v, %v", none, err)
	}
}

func TestOutcomesThatOtherVersionsWriteAreRead(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, body string
		want       outcome.Outcome
	}{
		{"other order and space", ` [ { "receipt" : "won", "kind" : "committed", "digest":"ab" } ] ` + "\n", outcome.Outcome{Kind: outcome.Committed, Status: 204, Won: true, Digest: "ab"}},
		{"more fields", `[{"kind":"committed","receipt":"lost","shard":{"a":[1,"]"]}}]`, outcome.Outcome{Kind: outcome.Committed, Status: 204}},
		{"unknown kind", `[{"kind":"delegated","status":299}]`, outcome.Outcome{Status: 299}},
		{"no kind", `[{}]`, outcome.Outcome{}},
		{"unknown class", `[{"kind":"deployment","effect_class":"odd"}]`, outcome.Outcome{Kind: outcome.Deployment}},
		{"wait that is negative", `[{"kind":"pending","retry_after_ms":-5}]`, outcome.Outcome{Kind: outcome.Pending}},
		{"wait of ages", `[{"kind":"pending","retry_after_ms":9223372036854775807}]`, outcome.Outcome{Kind: outcome.Pending, RetryAfter: 24 * time.Hour}},
		{"long reason of lines", `[{"kind":"failed","reason":"a\nb` + strings.Repeat("ä", 1000) + `"}]`, outcome.Outcome{Kind: outcome.Failed, Reason: "a b" + strings.Repeat("ä", 510)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := outcome.Parse([]byte(tt.body), 1)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]outcome.Outcome{tt.want}, got); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBodyWithoutAnOutcomeForEachEventIsAnError(t *testing.T) {
	t.Parallel()

	const won = `{"kind":"committed","receipt":"won"}`
	for _, body := range []string{
		``, `null`, `{}`, `[`, `[]`, `[` + won, `[` + won + `,`, `[` + won + `]`, `[` + won + `,]`,
		`[` + won + won + `]`, `[` + won + `,` + won + `] x`, `[` + won + `,` + won + `,` + won + `]`,
		`[` + won + `,5]`, `[` + won + `,null]`, `[` + won + `,{"kind":]`, `[` + won + `,{"status":"x"}]`,
		`[,` + won + `]`, `[` + won + `,,` + won + `]`,
	} {
		if got, err := outcome.Parse([]byte(body), 2); err == nil {
			t.Errorf("%s is read as %v", body, got)
		}
	}
}

// FuzzParse compares Parse with encoding/json.
func FuzzParse(f *testing.F) {
	f.Add(outcome.Append(nil, all), len(all))
	f.Add([]byte(`[{"kind":"committed","receipt":"won"},{"kind":"committed","receipt":"lost","digest":"00ff"}]`), 2)
	f.Add([]byte(`[ {"kind":"pending" , "x":[1,{}]} ]`), 1)
	f.Add([]byte(`[{"kind":"committed","receipt":"won","digest":"0`+"\x00"+`"}]`), 1)
	f.Add([]byte(`[{"kind":"committed","receipt":"won"}{}]`), 1)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		got, err := outcome.Parse(body, n)
		var values []map[string]any
		valid := json.Unmarshal(body, &values)
		if err != nil {
			return
		}
		if valid != nil || len(values) != n || len(got) != n {
			t.Fatalf("%d outcomes of %q; encoding/json: %d, %v", len(got), body, len(values), valid)
		}
		again, err := outcome.Parse(outcome.Append(nil, got), n)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			for _, o := range []*outcome.Outcome{&got[i], &again[i]} {
				o.RetryAfter = o.RetryAfter.Truncate(time.Millisecond)
			}
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("%q (-first +second):\n%s", body, diff)
		}
	})
}

// BenchmarkParse measures parsing the outcomes of a batch of 64, as the source does.
func BenchmarkParse(b *testing.B) {
	for _, failed := range []int{0, 1} {
		b.Run(fmt.Sprintf("failed=%d", failed), func(b *testing.B) {
			body := outcome.Append(nil, batch(failed))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := outcome.Parse(body, 64); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAppend measures encoding them, as the function does.
func BenchmarkAppend(b *testing.B) {
	outcomes := batch(0)
	var body []byte
	b.ReportAllocs()
	for b.Loop() {
		body = outcome.Append(body[:0], outcomes)
	}
}

// batch returns the outcomes of 64 events.
func batch(failed int) []outcome.Outcome {
	outcomes := make([]outcome.Outcome, 64)
	for i := range outcomes {
		outcomes[i] = outcome.Outcome{Kind: outcome.Committed, Status: 204, Won: i%2 == 0, Digest: digest}
		if i < failed {
			outcomes[i] = outcome.Outcome{Kind: outcome.Failed, Status: 500, Reason: "function flights: panic"}
		}
	}
	return outcomes
}
