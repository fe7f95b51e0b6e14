// Package patience bounds the waits of tests. An unmet claim fails its test after a minute
// and a thousand attempts: on a busy machine, where everything takes longer, each attempt
// takes longer, too.
package patience

import (
	"testing"
	"time"
)

const (
	limit = time.Minute
	tries = 1000
)

// Wait is the time for which a test has waited for a claim. The zero value is a wait that
// has not begun.
type Wait struct {
	begin time.Time
	tries int
}

// Over waits for a moment, and reports whether the test has waited long enough, or ends soon.
func (w *Wait) Over(tb testing.TB) bool {
	tb.Helper()
	if w.begin.IsZero() {
		w.begin = time.Now()
	}
	w.tries++
	time.Sleep(5 * time.Millisecond)
	if t, ok := tb.(*testing.T); ok {
		if deadline, ok := t.Deadline(); ok && time.Until(deadline) < 20*time.Second {
			return true
		}
	}
	return w.tries > tries && time.Since(w.begin) > limit
}

// Waited returns how long the test has waited.
func (w *Wait) Waited() time.Duration { return time.Since(w.begin).Round(time.Second) }

// Until waits until ok returns true, and fails the test if that takes too long; what
// describes the claim.
func Until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()

	for w := (Wait{}); !ok(); {
		if w.Over(tb) {
			tb.Fatalf("not within %s, in %d tries: %s", w.Waited(), w.tries, what)
		}
	}
}
