package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/drill"
)

func TestWrongOptionsAreExplained(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		want string
		args []string
	}{
		{"lose-cluster ", []string{"lose-everything"}},
		{"--plant \"bug\": want one of early-ack", []string{"--plant", "bug", "lose-cluster"}},
		{"--phase 1ms: want 500ms", []string{"--phase", "1ms", "lose-cluster"}},
		{"flags come first", []string{"lose-cluster", "--keep"}},
	} {
		if _, err := parse(tt.args, &bytes.Buffer{}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want %q in it", tt.args, err, tt.want)
		}
	}
	var out bytes.Buffer
	if _, err := parse(nil, &out, &out); !errors.Is(err, errListed) || strings.Count(out.String(), "\n  ") < len(scenarios) {
		t.Errorf("without a scenario: %v\n%s", err, out.String())
	}
}

func TestEveryScenarioAllowsAGap(t *testing.T) {
	t.Parallel()

	for _, s := range scenarios {
		before := 50 * time.Millisecond
		limit, why, ok := drill.AllowedGap(s.name, options{lag: time.Second, reaction: time.Second, witness: true}.conditions(before))
		if !ok || limit <= before || why == "" {
			t.Errorf("%s: %s, %q, %t", s.name, limit, why, ok)
		}
	}
}
