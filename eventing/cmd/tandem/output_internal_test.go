package main

import "testing"

func TestATerminalIsToldNothing(t *testing.T) {
	t.Parallel()

	if got, want := clip("\x1b[31mRED\x1b]0;owned\x07 \u202eabc äö"), "\ufffd[31mRED\ufffd]0;owned\ufffd \ufffdabc äö"; got != want {
		t.Errorf("clip: %q, want %q", got, want)
	}
}
