package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAScheduleFollowsFromItsSeed(t *testing.T) {
	t.Parallel()

	if diff := cmp.Diff(schedule(kinds, 7, time.Minute), schedule(kinds, 7, time.Minute)); diff != "" {
		t.Errorf("the same seed twice:\n%s", diff)
	}
	if cmp.Equal(schedule(kinds, 7, time.Minute), schedule(kinds, 8, time.Minute)) {
		t.Error("two seeds give the same")
	}
	met := map[string]bool{}
	for _, s := range schedule(kinds, 7, time.Minute) {
		met[s.Kind] = true
	}
	for _, k := range kinds {
		if !met[k.name] {
			t.Errorf("in a minute nothing like %q happens", k.name)
		}
	}
}

func TestWrongOptionsAreExplained(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		want string
		args []string
	}{
		{"--seed \"x\": want a number", []string{"--seed", "x"}},
		{"--plant \"bug\": want one of early-ack", []string{"--plant", "bug"}},
		{"--duration 1ms: want 1s", []string{"--duration", "1ms"}},
		{"--only \"bug\": want the beginning of one of kill", []string{"--only", "kill,bug"}},
		{"--help lists", []string{"7"}},
	} {
		if _, err := parse(tt.args, 1, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want %q in it", tt.args, err, tt.want)
		}
	}
	if o, err := parse(nil, 42, &bytes.Buffer{}); err != nil || o.seed != 42 {
		t.Errorf("without arguments: %+v, %v", o, err)
	}
}

func TestOneKindOrAllThatBeginAlike(t *testing.T) {
	t.Parallel()

	for word, want := range map[string]int{"kill": 1, "kill-": 2, "link": 6, "big-output": 1} {
		if got := picked([]string{word}); len(got) != want {
			t.Errorf("--only %s selects %v, want %d", word, got, want)
		}
	}
}
