package outcome_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/outcome"
)

func TestStatusWithoutAHeaderIsAttributedOnlyIfItIsClear(t *testing.T) {
	t.Parallel()

	kinds := map[outcome.Kind][]int{
		outcome.Committed:   {200, 202, 204, 299},
		outcome.Failed:      {500},
		outcome.Rejected:    {400, 402, 405, 410, 413, 422, 499},
		outcome.Unavailable: {0, 100, 199, 301, 302, 399, 401, 403, 404, 408, 409, 415, 429, 501, 502, 503, 504, 599},
	}
	for want, statuses := range kinds {
		for _, status := range statuses {
			if got := outcome.FromHTTP(status, http.Header{}, ""); got.Kind != want || got.Status != status {
				t.Errorf("status %d is %s with status %d, want %s", status, got.Kind, got.Status, want)
			}
		}
	}
}

func TestSingleAnswerIsReadFromStatusAndHeaders(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name   string
		status int
		header map[string]string
		reason string
		want   outcome.Outcome
	}{
		{
			"won", 204,
			map[string]string{outcome.ReceiptHeader: "won", outcome.DigestHeader: "2ac8"},
			"",
			outcome.Outcome{Kind: outcome.Committed, Status: 204, Won: true, Digest: "2ac8"},
		},
		{"lost", 204, map[string]string{outcome.ReceiptHeader: "lost"}, "", outcome.Outcome{Kind: outcome.Committed, Status: 204}},
		{"a sink that is no function of ours", 202, nil, "thanks", outcome.Outcome{Kind: outcome.Committed, Status: 202}},
		{
			"deployment", 503,
			map[string]string{outcome.OutcomeHeader: `deployment;fingerprint="42703 flights.gate";effect-class=commuting`, "Retry-After": "2"},
			"column is missing\n",
			outcome.Outcome{Kind: outcome.Deployment, Status: 503, Reason: "column is missing ", Fingerprint: "42703 flights.gate", EffectClass: outcome.Commuting, RetryAfter: 2 * time.Second},
		},
		{"deployment without parameters", 503, map[string]string{outcome.OutcomeHeader: "deployment"}, "", outcome.Outcome{Kind: outcome.Deployment, Status: 503}},
		{"unknown class", 503, map[string]string{outcome.OutcomeHeader: "deployment; effect-class=odd"}, "", outcome.Outcome{Kind: outcome.Deployment, Status: 503}},
		{"kind that the status does not imply", 500, map[string]string{outcome.OutcomeHeader: "unavailable"}, "", outcome.Outcome{Status: 500}},
		{"unknown kind", 422, map[string]string{outcome.OutcomeHeader: "bored"}, "", outcome.Outcome{Status: 422}},
		{"header that cannot be parsed", 422, map[string]string{outcome.OutcomeHeader: `;;"`}, "", outcome.Outcome{Kind: outcome.Rejected, Status: 422}},
		{"a header never commits", 503, map[string]string{outcome.OutcomeHeader: "committed"}, "", outcome.Outcome{Status: 503}},
		{"a single event is never pending", 503, map[string]string{outcome.OutcomeHeader: "pending"}, "", outcome.Outcome{Status: 503}},
		{"wait of years", 503, map[string]string{"Retry-After": "2147483647"}, "", outcome.Outcome{Status: 503, RetryAfter: 24 * time.Hour}},
		{"date to wait for", 503, map[string]string{"Retry-After": "Mon, 01 Jan 2035 00:00:00 GMT"}, "", outcome.Outcome{Status: 503}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			header := http.Header{}
			for name, value := range tt.header {
				header.Set(name, value)
			}
			if diff := cmp.Diff(tt.want, outcome.FromHTTP(tt.status, header, tt.reason)); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHeaderIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()

	for _, want := range []outcome.Outcome{
		{Status: 503},
		{Kind: outcome.Rejected, Status: 422},
		{Kind: outcome.Failed, Status: 500},
		{Kind: outcome.Deployment, Status: 503},
		{Kind: outcome.Deployment, Status: 503, EffectClass: outcome.OrderBound},
		{Kind: outcome.Deployment, Status: 503, Fingerprint: "42703 flights.gate"},
		{Kind: outcome.Deployment, Status: 503, Fingerprint: `42P01 a "quoted\" näme; x=y`, EffectClass: outcome.Commuting},
	} {
		header := http.Header{outcome.OutcomeHeader: {want.Header()}}
		if diff := cmp.Diff(want, outcome.FromHTTP(want.Status, header, "")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Header(), diff)
		}
	}
	o := outcome.Outcome{Kind: outcome.Deployment, Fingerprint: "42P01 a\r\nX-Injected: 1"}
	if strings.ContainsAny(o.Header(), "\r\n") {
		t.Errorf("the header has a line break: %q", o.Header())
	}
}
