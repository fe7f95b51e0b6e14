package main

import (
	"bytes"
	"testing"
)

func TestNothingThatIsPrintedActsUponTheTerminal(t *testing.T) {
	t.Parallel()

	const text, want = "\x1b[31mRED\x1b]0;owned\x07 \u202eabc äö", "\ufffd[31mRED\ufffd]0;owned\ufffd \ufffdabc äö"
	if got := clip(text); got != want {
		t.Errorf("a cell of a table: %q, want %q", got, want)
	}
	var out bytes.Buffer
	if err := (&tool{out: &out}).print("%s\n", text); err != nil || out.String() != want+"\n" {
		t.Errorf("a line: %q, %v, want %q", out.String(), err, want)
	}
}
